//! `library.*`. These wait for the first scan.

use latentd_client::protocol::{
    Empty, LibraryEntry, LibraryGetParams, LibraryList, LibraryListParams, RescanResult,
};

use super::row::{Method, Session, quick};
use crate::error::Result;
use crate::library::Problem;

pub(super) fn methods() -> Vec<Method> {
    vec![
        quick("library.list", |daemon| &daemon.lookers, list),
        quick("library.get", |daemon| &daemon.lookers, get),
        quick("library.rescan", |daemon| &daemon.lookers, rescan),
    ]
}

fn list(session: &Session, params: LibraryListParams) -> Result<LibraryList> {
    let library = &session.daemon.studio.library;
    let snapshot = library.snapshot();
    let wanted = snapshot.entries.iter().filter(|item| params.kind.is_none_or(|kind| item.kind == kind));
    let problems = snapshot.problems.iter().filter(|_| params.kind.is_none()).map(Problem::to_wire);
    let configured = &session.daemon.studio.settings.get().default_checkpoint;
    let default = library.default_checkpoint(configured);
    Ok(LibraryList {
        entries: wanted.map(|item| library.entry(item)).collect(),
        problems: problems.collect(),
        default_checkpoint: default.ok().map(|item| item.name),
    })
}

fn get(session: &Session, params: LibraryGetParams) -> Result<LibraryEntry> {
    let library = &session.daemon.studio.library;
    library.find(params.kind, &params.name).map(|item| library.entry_with_details(&item))
}

fn rescan(session: &Session, _: Empty) -> Result<RescanResult> {
    let snapshot = session.daemon.studio.library.rescan();
    Ok(RescanResult { entries: snapshot.entries.len() as u32, problems: snapshot.problems.len() as u32 })
}
