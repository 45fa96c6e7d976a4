//! `models.*`: what is in memory.

use latentd_client::protocol::{
    Empty, LoadedModels, ModelParams, PinParams, ResidentModel, UnloadResult, WireError,
};

use super::{Method, Session, blocking, now};

pub(super) fn methods() -> Vec<Method> {
    vec![
        blocking("models.load", load),
        blocking("models.unload", unload),
        now("models.loaded", loaded),
        blocking("models.pin", pin),
    ]
}

fn load(session: &Session, params: &ModelParams) -> Result<ResidentModel, WireError> {
    session.daemon.engine.load(params)
}

fn unload(session: &Session, params: &ModelParams) -> Result<UnloadResult, WireError> {
    let engine = &session.daemon.engine;
    let item = engine.checkpoint(Some(&params.checkpoint))?;
    Ok(UnloadResult { unloaded: engine.residency.unload(&item) })
}

fn loaded(session: &Session, _: &Empty) -> Result<LoadedModels, WireError> {
    Ok(LoadedModels { models: session.daemon.engine.residency.list() })
}

fn pin(session: &Session, params: &PinParams) -> Result<ResidentModel, WireError> {
    let engine = &session.daemon.engine;
    let item = engine.checkpoint(Some(&params.checkpoint))?;
    engine.residency.pin(&item, params.pinned)
}
