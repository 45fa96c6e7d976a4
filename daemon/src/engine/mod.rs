//! One thread for each device: takes the jobs that are for it in their order, and does them. What they do is their
//! tasks' affair.

mod watch;

use std::sync::Arc;
use std::thread::JoinHandle;

use tracing::info;

use crate::clock;
use crate::contain::{contain, keep_going};
use crate::error::{Class, Error, Result};
use crate::jobs::{Job, Jobs};
use crate::tasks::{Device, Run};
use crate::thread;
use watch::JobWatch;

/// Does jobs on a thread of its own until they stop.
pub(crate) fn start(jobs: Arc<Jobs>, device: Arc<Device>) -> std::io::Result<JoinHandle<()>> {
    thread::start("engine", move || {
        keep_going("engine", || take_jobs(&jobs, &device), || jobs.fail_running(device.id));
    })
}

fn take_jobs(jobs: &Jobs, device: &Device) {
    while let Some(job) = jobs.next(device.id) {
        info!(job = job.id, method = &*job.request.method, "started");
        let outcome = contain(|| run(jobs, &job, device));
        jobs.finish(&job, outcome);
    }
}

fn run(jobs: &Jobs, job: &Job, device: &Device) -> Result<Vec<u8>> {
    let task = job.task().ok_or_else(|| Error::internal("the job has nothing to do; please report it"))?;
    let waited_s = (clock::now() - job.created_at).max(0.0);
    let watch = JobWatch { jobs, job };
    let done = task.run(&Run { job: &job.id, waited_s, device, watch: &watch })?;
    // Whoever cancelled it was told that it would not finish.
    if job.is_cancelled() {
        Err(Error::new(Class::Cancelled, "cancelled as it was about to end"))
    } else {
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{self, Sender};

    use latentd_client::protocol::{EventKind, LibraryEvent};

    use super::*;
    use crate::jobs::{Answer, Told, Watcher, fixture};
    use crate::memory::Memory;
    use crate::tasks::DeviceId;

    /// Fails where the engine tells of it, outside of what a job does.
    struct Fails(Mutex<Sender<(String, &'static str)>>);

    impl Watcher for Fails {
        fn event(&self, told: &Told<'_>) {
            let event = told.event();
            let name = match event.kind {
                EventKind::Started => "started",
                EventKind::Finished => "finished",
                EventKind::Failed { .. } => "failed",
                _ => return,
            };
            self.0.lock().expect("sound").send((event.job.clone(), name)).expect("heard");
            let fails =
                matches!((event.job.as_str(), name), ("at-start", "started") | ("at-end", "finished"));
            assert!(!fails, "on purpose");
        }

        fn library_event(&self, _: &LibraryEvent) {}
    }

    #[test]
    fn the_engine_goes_on_whatever_fails_around_a_job() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = Arc::new(fixture::jobs(folder.path(), fixture::LIMITS));
        let (sender, told) = mpsc::channel();
        let watcher: Arc<dyn Watcher> = Arc::new(Fails(Mutex::new(sender)));
        jobs.watch_all(&watcher);
        for id in ["at-start", "at-end", "sound"] {
            fixture::queue(&jobs, id, Answer::Id).expect("taken");
        }
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("threads"));
        let (device, budget) = crate::device::open(pool, 1 << 20).expect("a device");
        let device = Device { id: DeviceId(0), threads: 1, memory: Memory::new(device, budget) };
        let engine = start(Arc::clone(&jobs), Arc::new(device)).expect("started");
        let mut heard: Vec<_> = Vec::new();
        while heard.last() != Some(&("sound".to_owned(), "finished")) {
            heard.push(told.recv().expect("told"));
        }
        let expected = [
            ("at-start", "started"),
            ("at-start", "failed"),
            ("at-end", "started"),
            ("at-end", "finished"),
            ("sound", "started"),
            ("sound", "finished"),
        ];
        assert_eq!(heard, expected.map(|(id, name)| (id.to_owned(), name)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("started");
        for (id, finished) in [("at-start", false), ("at-end", true), ("sound", true)] {
            let result = jobs.result(&runtime.block_on(jobs.wait(jobs.want(id))));
            assert_eq!(result.is_ok(), finished, "{id}: {result:?}");
        }
        jobs.stop();
        engine.join().expect("ends well");
        assert!(jobs.is_idle());
    }
}
