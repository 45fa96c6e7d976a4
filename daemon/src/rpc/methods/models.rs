//! `models.*`: what is in memory.

use latentd_client::protocol::{Empty, LoadedModels, ModelParams, PinParams, ResidentModel, UnloadResult};

use super::row::{Method, Session, blocking, now};
use crate::error::Result;

pub(super) fn methods() -> Vec<Method> {
    vec![
        blocking("models.load", load),
        blocking("models.unload", unload),
        now("models.loaded", loaded),
        blocking("models.pin", pin),
    ]
}

fn load(session: &Session, params: &ModelParams) -> Result<ResidentModel> {
    session.daemon.engine.studio.load(params)
}

fn unload(session: &Session, params: &ModelParams) -> Result<UnloadResult> {
    let studio = &session.daemon.engine.studio;
    let item = studio.checkpoint(Some(&params.checkpoint))?;
    Ok(UnloadResult { unloaded: studio.residency.unload(&item) })
}

fn loaded(session: &Session, _: &Empty) -> Result<LoadedModels> {
    Ok(LoadedModels { models: session.daemon.engine.studio.residency.list() })
}

fn pin(session: &Session, params: &PinParams) -> Result<ResidentModel> {
    let studio = &session.daemon.engine.studio;
    let item = studio.checkpoint(Some(&params.checkpoint))?;
    studio.residency.pin(&item, params.pinned)
}
