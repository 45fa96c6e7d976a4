//! `models.*`: what is in memory.

use latentd_client::protocol::{
    Empty, LibraryKind, LoadParams, LoadedModels, PinParams, ResidentModel, UnloadParams, UnloadResult,
};

use super::row::{Method, Session, now, quick};
use crate::error::{Class, Result};
use crate::library::Item;

pub(super) fn methods() -> Vec<Method> {
    vec![
        quick("models.load", |daemon| &daemon.loaders, load),
        quick("models.unload", |daemon| &daemon.lookers, unload),
        now("models.loaded", loaded),
        quick("models.pin", |daemon| &daemon.lookers, pin),
    ]
}

fn load(session: &Session, params: LoadParams) -> Result<ResidentModel> {
    session.daemon.studio.load(&params.checkpoint, params.vae.as_deref())
}

fn unload(session: &Session, params: UnloadParams) -> Result<UnloadResult> {
    let studio = &session.daemon.studio;
    let item = item(session, &params.checkpoint)?;
    Ok(UnloadResult { unloaded: studio.device.memory.unload(&item) })
}

fn loaded(session: &Session, _: &Empty) -> Result<LoadedModels> {
    Ok(LoadedModels { models: session.daemon.studio.device.memory.list() })
}

fn pin(session: &Session, params: PinParams) -> Result<ResidentModel> {
    let studio = &session.daemon.studio;
    let item = item(session, &params.checkpoint)?;
    studio.device.memory.pin(&item, params.pinned)
}

/// What the library calls so, or did: a file that is gone, or broken now, may be in memory still.
fn item(session: &Session, checkpoint: &str) -> Result<Item> {
    let studio = &session.daemon.studio;
    match studio.library.find(LibraryKind::Checkpoint, checkpoint) {
        // Also the name of several files: which of them is meant is not ours to choose.
        Err(error) if error.class != Class::InvalidParams => {
            studio.device.memory.item(checkpoint).ok_or(error)
        }
        found => found,
    }
}
