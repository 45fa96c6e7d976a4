//! Methods whose requests become jobs: submit, and submit and wait, for any of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use latentd_client::protocol::{ImageOut, JobState, Pass};
use rmpv::Value;
use serde_json::Value as Json;

use super::digest;
use super::row::{JobRow, Method, Promise, Run, Session, Submit, Wishes, encode};
use super::value::read;
use crate::error::Result;
use crate::jobs::{Answer, Job, Jobs, Reserved, Wanted};
use crate::schema;
use crate::tasks::{self, DeviceId, JobMethod, Request, Studio, Task, Watch};

/// How long a submit waits for its request to be resolved. What is refused by then never was a job.
const RESOLVED_WITHIN: Duration = Duration::from_millis(100);

/// The row of a method of `tasks`.
pub(super) fn job<M: JobMethod>() -> Method {
    let params = schema::of::<M::Params>();
    let check = params.clone();
    let submit: Arc<Submit> = Arc::new(move |session: &Session, value, wishes| -> Promise<String> {
        // Called here, not in the task, so that jobs are queued in the order in which they were asked for.
        let reserved = reserve::<M>(&check, session, value, wishes, Answer::Id);
        Box::pin(async move {
            let (job, _) = reserved?;
            job.submitted().await?;
            Ok(job.id.clone())
        })
    });
    let check = params.clone();
    let wait = move |session: Session, value| -> Promise<_> {
        let reserved = reserve::<M>(&check, &session, value, Wishes::default(), Answer::Result);
        Box::pin(async move {
            let (job, wanted) = reserved?;
            job.submitted().await?;
            Ok(session.daemon.jobs.wait(wanted).await)
        })
    };
    Method {
        name: M::NAME,
        params,
        result: schema::of::<M::Result>(),
        run: Run::Wait(Box::new(wait)),
        job: Some(JobRow { submit, result: |generator| generator.subschema_for::<M::Result>() }),
    }
}

/// Checks a request, gives it its place in the queue, and has it resolved. Its result is kept while the second part is held.
fn reserve<M: JobMethod>(
    check: &Json,
    session: &Session,
    value: Value,
    wishes: Wishes,
    answer: Answer,
) -> Result<(Arc<Job>, Wanted)> {
    // An empty table of Lua goes over the wire as an empty array.
    let value = if value.as_array().is_some_and(Vec::is_empty) { Value::Map(Vec::new()) } else { value };
    schema::check(check, &value)?;
    let (digest, bytes) = digest::of(&value);
    let params: M::Params = read(value)?;
    let request = Request { method: M::NAME.into(), digest, bytes };
    let wishes = Wishes { on_disconnect: wishes.on_disconnect.max(M::on_disconnect(&params)), ..wishes };
    let resolve = move |studio: &Arc<Studio>, watch: &dyn Watch| -> Result<Arc<dyn Task>> {
        Ok(Arc::new(Resolved(M::resolve(params, studio, watch)?)))
    };
    place(session, request, (wishes, answer), resolve)
}

/// Gives a request its place in the queue, and has it resolved. Its result is kept while the second part is held.
pub(super) fn place(
    session: &Session,
    request: Request,
    (wishes, answer): (Wishes, Answer),
    resolve: impl FnOnce(&Arc<Studio>, &dyn Watch) -> Result<Arc<dyn Task>> + Send + 'static,
) -> Result<(Arc<Job>, Wanted)> {
    let daemon = &session.daemon;
    let follower = session.follows_own.load(Ordering::Relaxed).then(|| session.watcher());
    let (job, is_new) = match daemon.jobs.reserve(request, wishes.id, answer, follower.as_ref())? {
        Reserved::Known(job) => (job, false),
        Reserved::New(job) => (job, true),
    };
    // Here, where the connection still reads: its end comes after.
    daemon.holders.note(&job, &session.outbox, wishes.on_disconnect);
    // Before it can end.
    let wanted = daemon.jobs.want(&job.id);
    if !is_new {
        return Ok((job, wanted));
    }
    let (jobs, studio, ours) = (Arc::clone(&daemon.jobs), Arc::clone(&daemon.studio), Arc::clone(&job));
    daemon.resolvers.run(move || {
        let watch = Resolving { jobs: &jobs, job: &ours };
        jobs.resolve(&ours, || resolve(&studio, &watch));
    });
    // Not with the connection, which may end before.
    let (daemon, late) = (Arc::clone(daemon), Arc::clone(&job));
    tokio::spawn(async move {
        if tokio::time::timeout(RESOLVED_WITHIN, late.submitted()).await.is_err() {
            let jobs = Arc::clone(&daemon.jobs);
            daemon.books.run(move || jobs.enlist(&late, JobState::Resolving));
        }
    });
    Ok((job, wanted))
}

/// Tells of a job that is being resolved.
struct Resolving<'a> {
    jobs: &'a Jobs,
    job: &'a Job,
}

impl Watch for Resolving<'_> {
    fn is_cancelled(&self) -> bool {
        self.job.is_cancelled() || self.jobs.is_stopping()
    }

    fn progress_of(&self, pass: Option<Pass>, stage: &str, steps: (u32, u32), eta_s: Option<f64>) {
        self.jobs.progress(self.job, pass, stage, steps, eta_s);
    }

    fn preview(&self, pass: Pass, step: u32, image: ImageOut) {
        self.jobs.preview(self.job, pass, step, image);
    }
}

/// A request of any method, resolved; its result is encoded as its row says.
struct Resolved<M>(M);

impl<M: JobMethod> Task for Resolved<M> {
    fn device(&self) -> DeviceId {
        self.0.device()
    }

    fn steps(&self) -> u32 {
        self.0.steps()
    }

    fn run(&self, run: &tasks::Run<'_>) -> Result<Vec<u8>> {
        encode(&self.0.run(run)?)
    }
}
