//! `models.*`: what is in memory.

use latentd_client::protocol::{
    Empty, LibraryKind, LoadedModels, ModelParams, PinParams, ResidentModel, UnloadResult,
};

use super::row::{Method, Session, now, quick};
use crate::error::Result;

pub(super) fn methods() -> Vec<Method> {
    vec![
        quick("models.load", |daemon| &daemon.loaders, load),
        quick("models.unload", |daemon| &daemon.lookers, unload),
        now("models.loaded", loaded),
        quick("models.pin", |daemon| &daemon.lookers, pin),
    ]
}

fn load(session: &Session, params: ModelParams) -> Result<ResidentModel> {
    session.daemon.studio.load(&params.checkpoint)
}

fn unload(session: &Session, params: ModelParams) -> Result<UnloadResult> {
    let studio = &session.daemon.studio;
    let item = studio.library.find(LibraryKind::Checkpoint, &params.checkpoint)?;
    Ok(UnloadResult { unloaded: studio.device.memory.unload(&item) })
}

fn loaded(session: &Session, _: &Empty) -> Result<LoadedModels> {
    Ok(LoadedModels { models: session.daemon.studio.device.memory.list() })
}

fn pin(session: &Session, params: PinParams) -> Result<ResidentModel> {
    let studio = &session.daemon.studio;
    let item = studio.library.find(LibraryKind::Checkpoint, &params.checkpoint)?;
    studio.device.memory.pin(&item, params.pinned)
}
