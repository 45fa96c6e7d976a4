//! `txt2img`: submit and wait.

use std::sync::atomic::Ordering;

use latentd_client::protocol::{Txt2ImgParams, Txt2ImgResult};

use super::row::{Method, Session, waiting};
use crate::engine::Plan;
use crate::error::Result;
use crate::jobs::Ended;

/// The method's name, also for `jobs.submit`.
pub(super) const NAME: &str = "txt2img";

pub(super) fn methods() -> Vec<Method> {
    vec![waiting::<Txt2ImgParams, Txt2ImgResult, _>(NAME, txt2img)]
}

fn txt2img(session: Session, params: Txt2ImgParams) -> impl Future<Output = Result<Ended>> + Send + 'static {
    let submitted = submit(&session, params, None);
    async move { session.daemon.engine.jobs.wait(&submitted?).await }
}

/// Checks a request and queues it.
pub(super) fn submit(session: &Session, params: Txt2ImgParams, id: Option<String>) -> Result<String> {
    let engine = &session.daemon.engine;
    Plan::new(&params, engine.studio.plan_limits)?;
    let follower = session.follows_own.load(Ordering::Relaxed).then(|| session.watcher());
    engine.jobs.submit(NAME, params, id, follower.as_ref())
}
