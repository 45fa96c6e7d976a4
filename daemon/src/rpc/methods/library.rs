//! `library.*`. These wait for the first scan.

use latentd_client::protocol::{
    Empty, LibraryEntry, LibraryGetParams, LibraryList, LibraryListParams, RescanResult, WireError,
};

use super::{Method, Session, blocking};

pub(super) fn methods() -> Vec<Method> {
    vec![blocking("library.list", list), blocking("library.get", get), blocking("library.rescan", rescan)]
}

fn list(session: &Session, params: &LibraryListParams) -> Result<LibraryList, WireError> {
    let library = &session.daemon.engine.library;
    let snapshot = library.snapshot();
    let wanted = snapshot.entries.iter().filter(|item| params.kind.is_none_or(|kind| item.kind == kind));
    Ok(LibraryList {
        entries: wanted.map(|item| library.entry(item)).collect(),
        problems: if params.kind.is_none() { snapshot.problems.clone() } else { Vec::new() },
    })
}

fn get(session: &Session, params: &LibraryGetParams) -> Result<LibraryEntry, WireError> {
    let library = &session.daemon.engine.library;
    library.find(params.kind, &params.name).map(|item| library.entry(&item))
}

fn rescan(session: &Session, _: &Empty) -> Result<RescanResult, WireError> {
    let snapshot = session.daemon.engine.library.rescan();
    Ok(RescanResult { entries: snapshot.entries.len() as u32, problems: snapshot.problems.len() as u32 })
}
