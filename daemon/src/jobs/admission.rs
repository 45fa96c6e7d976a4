//! From a submit to a place in the queue.
//!
//! A job has its place from the moment it is asked for. Then it is resolved, on a thread that may wait for files. What is
//! refused within a moment was never a job; what takes longer becomes one in state `resolving`, which the engines pass
//! by until it is resolved, and which fails if it is refused then.

use std::sync::Arc;

use latentd_client::protocol::{EventKind, JobState};

use super::job::{Admission, Answer, Job};
use super::store::NewRow;
use super::watcher::Watcher;
use super::{Jobs, State, id, stopping};
use crate::contain::contain;
use crate::error::{Class, Error, Result};
use crate::tasks::{Request, Task};

/// What a submit leads to.
pub(crate) enum Reserved {
    /// A job that is to be resolved.
    New(Arc<Job>),
    /// The one that the same request with this id already is.
    Known(Arc<Job>),
}

impl Jobs {
    /// Takes the last place in the queue. Touches no file. `watcher` follows the job.
    pub(crate) fn reserve(
        &self,
        request: Request,
        wanted: Option<String>,
        answer: Answer,
        watcher: Option<&Arc<dyn Watcher>>,
    ) -> Result<Reserved> {
        let given = wanted.is_some();
        let id = wanted.map_or_else(id::new, id::check)?;
        let mut state = self.lock();
        if let Some(job) = state.jobs.get(&id) {
            same_request(&id, job.request.method == request.method && job.request.digest == request.digest)?;
            if let Some(watcher) = watcher {
                job.watch(watcher, 0);
            }
            return Ok(Reserved::Known(Arc::clone(job)));
        }
        let admission = match self.refusal(&state, &request, answer) {
            None => Admission::Reserved,
            // A job of before may have this id, and then this is no new one.
            Some(refusal) if given => Admission::Doubtful(refusal),
            Some(refusal) => return Err(refusal),
        };
        let job = Arc::new(Job::new(id.clone(), request, answer, admission));
        if let Some(watcher) = watcher {
            job.watch(watcher, 0);
        }
        state.jobs.insert(id, Arc::clone(&job));
        state.queue.push_back(Arc::clone(&job));
        Ok(Reserved::New(job))
    }

    /// Resolves a job that has its place, and lets the engines at it. Reads files.
    pub(crate) fn resolve(&self, job: &Arc<Job>, resolve: impl FnOnce() -> Result<Arc<dyn Task>>) {
        if let Some(outcome) = self.stored_before(job) {
            self.refuse(job, outcome);
            return;
        }
        let admission = job.admission().clone();
        let resolved = match admission {
            Admission::Doubtful(refusal) => Err(refusal),
            Admission::Refused => return,
            Admission::Reserved | Admission::Listed => contain(resolve),
        };
        match resolved {
            Ok(task) => {
                job.set_task(task);
                self.enlist(job, JobState::Queued);
                // Under the lock: an engine that has just looked must hear of it.
                let _state = self.lock();
                self.queued.notify_all();
            }
            Err(error) => self.give_up(job, error),
        }
    }

    /// Stores a job and tells of it, if that was not done yet and it was not refused.
    pub(crate) fn enlist(&self, job: &Arc<Job>, state: JobState) {
        let mut admission = job.admission();
        match *admission {
            Admission::Reserved => {
                let mut standing = job.lock().standing.clone();
                standing.state = state;
                // Before the answer, so that a job somebody knows of is not forgotten by a crash. One small write to
                // the log of SQLite, no waiting for the disk.
                let stored = self.in_store("a new job", |store| {
                    store.put(&NewRow { job, standing: &standing, last_seq: 1 })
                });
                if let (Answer::Id, Err(error)) = (job.answer, &stored) {
                    *admission = Admission::Refused;
                    return self.forget(job, Err(error.refusal("the job cannot be stored")));
                }
                *admission = Admission::Listed;
                job.set_listed();
                self.tell(job, |inner| {
                    inner.standing.state = state;
                    inner.told = true;
                    Some(EventKind::Queued)
                });
                job.tell_submitted(Ok(()));
            }
            Admission::Listed if state == JobState::Queued => {
                // It may have been cancelled meanwhile.
                if job.is_terminal() {
                    job.drop_task();
                } else {
                    self.advance(job, None, |standing| standing.state = JobState::Queued);
                }
            }
            Admission::Listed | Admission::Doubtful(_) | Admission::Refused => (),
        }
    }

    /// Whether this is a job of before: then how its submit comes out.
    fn stored_before(&self, job: &Job) -> Option<Result<()>> {
        if *job.admission() == Admission::Listed {
            return None;
        }
        let stored = match self.look_up(&job.id) {
            Ok(stored) => stored?,
            // Whether it is one of before cannot be told, only that this is none that could be promised to be kept.
            Err(error) if job.answer == Answer::Id => return Some(Err(error)),
            Err(_) => return None,
        };
        Some(same_request(&job.id, stored.is_of(&job.request)))
    }

    /// Why no more jobs are taken, if so.
    fn refusal(&self, state: &State, request: &Request, answer: Answer) -> Option<Error> {
        let busy = |text: String| Some(Error::new(Class::Busy, text));
        if state.stopping {
            return Some(stopping());
        }
        if let (Answer::Id, Some(full)) = (answer, self.refuses_to_hold()) {
            return Some(full);
        }
        let (waiting, limits) = (state.queue.len(), self.limits.get());
        if waiting >= limits.queue {
            return busy(format!("{waiting} jobs wait, which is the limit; retry when some are done"));
        }
        let held: u64 = state.queue.iter().map(|job| job.request.bytes).sum();
        let (bytes, limit) = (request.bytes, limits.queue_bytes);
        if waiting > 0 && held.saturating_add(bytes) > limit {
            return busy(format!(
                "the requests of {waiting} waiting jobs take {held} bytes, this one {bytes}, {limit} are allowed; \
                 retry when some are done"
            ));
        }
        None
    }
}

fn same_request(id: &str, same: bool) -> Result<()> {
    if same {
        return Ok(());
    }
    Err(Error::invalid(format!("id: '{id}' is already the id of another request; use a new one")))
}

#[cfg(test)]
mod tests {
    use latentd_client::protocol::JobListParams;

    use super::*;
    use crate::jobs::JobLimits;
    use crate::jobs::fixture::{self, Nothing};
    use crate::tasks::DeviceId;

    fn jobs(folder: &std::path::Path) -> Jobs {
        fixture::jobs(folder, JobLimits { queue: 3, queue_bytes: 100, ..fixture::LIMITS })
    }

    fn request(digest: u8, bytes: u64) -> Request {
        Request { method: "nothing".into(), digest: [digest; 32], bytes }
    }

    fn reserve(jobs: &Jobs, id: &str, digest: u8) -> Arc<Job> {
        match jobs.reserve(request(digest, 1), Some(id.into()), Answer::Id, None).expect("room") {
            Reserved::New(job) => job,
            Reserved::Known(job) => panic!("'{}' is known", job.id),
        }
    }

    fn outcome(job: &Job) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("started");
        runtime.block_on(job.submitted())
    }

    // Of one shape with `wrong`.
    #[allow(clippy::unnecessary_wraps)]
    fn nothing() -> Result<Arc<dyn Task>> {
        Ok(Arc::new(Nothing))
    }

    fn wrong() -> Result<Arc<dyn Task>> {
        Err(Error::invalid("wrong"))
    }

    #[test]
    fn what_is_refused_at_once_never_was_a_job() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = jobs(folder.path());
        let job = reserve(&jobs, "a", 1);
        assert!(jobs.get("a").is_err(), "nobody was told of it");
        jobs.resolve(&job, wrong);
        assert_eq!(outcome(&job), Err(Error::invalid("wrong")));
        assert!(jobs.get("a").is_err() && jobs.is_idle());
        assert_eq!(jobs.list(&JobListParams::default()), Ok(Vec::new()));
        // Its id is free.
        let job = reserve(&jobs, "a", 2);
        jobs.resolve(&job, || panic!("on purpose"));
        assert!(outcome(&job).is_err_and(|error| error.class == Class::Internal));
    }

    #[test]
    fn what_takes_long_keeps_its_place_and_is_passed_by() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = jobs(folder.path());
        let (slow, bad, quick) =
            (reserve(&jobs, "slow", 1), reserve(&jobs, "bad", 2), reserve(&jobs, "quick", 3));
        for job in [&slow, &bad] {
            jobs.enlist(job, JobState::Resolving);
            assert_eq!(outcome(job), Ok(()));
            assert_eq!(jobs.get(&job.id).map(|view| view.state), Ok(JobState::Resolving));
        }
        // The same request again is the same job, another one is not.
        let again = jobs.reserve(request(1, 1), Some("slow".into()), Answer::Id, None);
        assert!(matches!(again, Ok(Reserved::Known(job)) if Arc::ptr_eq(&job, &slow)));
        assert!(jobs.reserve(request(9, 1), Some("slow".into()), Answer::Id, None).is_err());
        jobs.resolve(&quick, nothing);
        let first = jobs.next(DeviceId(0)).expect("one is ready");
        assert_eq!((first.id.as_str(), jobs.get("quick").map(|view| view.steps)), ("quick", Ok(7)));
        jobs.resolve(&bad, wrong);
        assert_eq!(jobs.get("bad").map(|view| view.state), Ok(JobState::Failed));
        jobs.resolve(&slow, nothing);
        assert_eq!(jobs.get("slow").map(|view| (view.state, view.position)), Ok((JobState::Queued, Some(1))));
        assert_eq!(jobs.next(DeviceId(0)).expect("ready now").id, "slow");
    }

    #[test]
    fn no_engine_takes_a_job_that_is_not_stored_yet() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = jobs(folder.path());
        let job = reserve(&jobs, "a", 1);
        let meet = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                jobs.resolve(&job, || {
                    meet.wait();
                    meet.wait();
                    nothing()
                });
            });
            meet.wait();
            let busy = jobs.store();
            meet.wait();
            // It is about to be stored now, and waits for its turn.
            while job.task().is_none() {
                std::thread::yield_now();
            }
            assert!(!job.is_ready(DeviceId(0)) && jobs.lock().listed("a").is_none());
            drop(busy);
        });
        assert!(job.is_ready(DeviceId(0)));
    }

    #[test]
    fn a_job_whose_submit_is_answered_comes_before_any_that_is_submitted_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = jobs(folder.path());
        for index in 0..100 {
            let (first, second) =
                (reserve(&jobs, &format!("first-{index}"), 1), reserve(&jobs, &format!("second-{index}"), 2));
            std::thread::scope(|scope| {
                scope.spawn(|| jobs.resolve(&first, nothing));
                assert_eq!(outcome(&first), Ok(()));
                jobs.resolve(&second, nothing);
                for job in [&first, &second] {
                    assert_eq!(jobs.next(DeviceId(0)).expect("ready").id, job.id);
                    jobs.finish(job, Ok(Vec::new()));
                }
            });
        }
    }

    #[test]
    fn a_cancelled_job_stays_so_whatever_comes_of_resolving() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = jobs(folder.path());
        for (id, resolve) in [("a", nothing as fn() -> Result<Arc<dyn Task>>), ("b", wrong)] {
            let job = reserve(&jobs, id, 1);
            jobs.enlist(&job, JobState::Resolving);
            assert_eq!(jobs.cancel(id).map(|view| view.state), Ok(JobState::Cancelled));
            jobs.resolve(&job, resolve);
            assert_eq!(jobs.get(id).map(|view| view.state), Ok(JobState::Cancelled));
        }
        assert!(jobs.is_idle());
    }

    #[test]
    fn a_restart_interrupts_what_was_resolved_and_knows_requests_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let before = jobs(folder.path());
        let job = reserve(&before, "a", 1);
        before.enlist(&job, JobState::Resolving);
        drop((before, job));
        let after = jobs(folder.path());
        assert_eq!(after.get("a").map(|view| view.state), Ok(JobState::Interrupted));
        for (digest, same) in [(1, true), (2, false)] {
            let job = reserve(&after, "a", digest);
            after.resolve(&job, || panic!("a job of before is not resolved again"));
            assert_eq!(outcome(&job).is_ok(), same);
        }
        assert_eq!(after.get("a").map(|view| view.state), Ok(JobState::Interrupted));
        // As versions wrote it whose digest was of something else.
        let database = rusqlite::Connection::open(folder.path().join("state.db")).expect("opened");
        database.execute("UPDATE job SET request_sha256 = zeroblob(32)", []).expect("written");
        let job = reserve(&after, "a", 3);
        after.resolve(&job, wrong);
        assert_eq!(outcome(&job), Ok(()));
    }

    #[test]
    fn the_queue_has_an_end_in_jobs_and_in_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = jobs(folder.path());
        let refused = |digest, bytes| {
            let outcome = jobs.reserve(request(digest, bytes), None, Answer::Id, None);
            outcome.err().is_some_and(|error| error.class == Class::Busy)
        };
        assert!(!refused(1, 1000), "one of any size has room");
        assert!(refused(2, 1));
        jobs.stop();
        assert!(refused(3, 1));
        let known = reserve(&jobs, "a", 1);
        jobs.resolve(&known, nothing);
        assert!(outcome(&known).is_err_and(|error| error.class == Class::Busy), "also with an id");
        let other = tempfile::tempdir().expect("a folder");
        let jobs = self::jobs(other.path());
        for digest in 0..3 {
            jobs.reserve(request(digest, 1), None, Answer::Id, None).expect("room");
        }
        assert!(jobs.reserve(request(4, 1), None, Answer::Id, None).is_err());
    }
}
