//! `jobs.*`.

use std::sync::LazyLock;

use latentd_client::protocol::{
    JobList, JobListParams, JobParams, JobRef, JobView, SubmitParams, SubscribeParams, Subscribed,
    Txt2ImgParams, Txt2ImgResult,
};
use serde_json::Value as Json;

use super::row::{Method, Session, blocking, now, waiting};
use super::txt2img;
use crate::error::{Error, Result};
use crate::jobs::Ended;
use crate::schema;
use crate::suggest::nearest;

/// Methods that can be submitted.
const SUBMITTABLE: [&str; 1] = [txt2img::NAME];

static TXT2IMG_SCHEMA: LazyLock<Json> = LazyLock::new(schema::of::<Txt2ImgParams>);

pub(super) fn methods() -> Vec<Method> {
    vec![
        now("jobs.submit", submit),
        waiting::<JobParams, Txt2ImgResult, _>("jobs.wait", wait),
        now("jobs.get", get),
        blocking("jobs.list", list),
        now("jobs.cancel", cancel),
        now("jobs.subscribe", subscribe),
    ]
}

fn submit(session: &Session, params: &SubmitParams) -> Result<JobRef> {
    if params.method != txt2img::NAME {
        let shown = schema::shorten(&params.method);
        let meant = nearest(&params.method, SUBMITTABLE).unwrap_or_default();
        let text = format!("method: '{shown}' cannot be submitted; did you mean '{meant}'?");
        return Err(Error::not_found(text));
    }
    let request = schema::decode::<Txt2ImgParams>(&TXT2IMG_SCHEMA, &params.params)?;
    txt2img::submit(session, request, params.id.clone()).map(|job| JobRef { job })
}

async fn wait(session: Session, params: JobParams) -> Result<Ended> {
    session.daemon.engine.jobs.wait(&params.job).await
}

fn get(session: &Session, params: &JobParams) -> Result<JobView> {
    session.daemon.engine.jobs.get(&params.job)
}

fn list(session: &Session, params: &JobListParams) -> Result<JobList> {
    Ok(JobList { jobs: session.daemon.engine.jobs.list(params) })
}

fn cancel(session: &Session, params: &JobParams) -> Result<JobView> {
    session.daemon.engine.jobs.cancel(&params.job)
}

fn subscribe(session: &Session, params: &SubscribeParams) -> Result<Subscribed> {
    let jobs = &session.daemon.engine.jobs;
    let Some(job) = &params.job else {
        jobs.watch_all(&session.watcher());
        return Ok(Subscribed { job: None });
    };
    let view = jobs.watch(job, &session.watcher(), params.since.unwrap_or(0))?;
    Ok(Subscribed { job: Some(view) })
}
