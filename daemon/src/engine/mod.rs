//! One thread for each device: takes the jobs that are for it in their order, and does them. What they do is their
//! tasks' affair.

mod watch;

use std::sync::Arc;
use std::thread::JoinHandle;

use tracing::info;

use crate::clock;
use crate::contain::contain;
use crate::error::{Class, Error, Result};
use crate::jobs::{Job, Jobs};
use crate::tasks::{Device, Run};
use watch::JobWatch;

/// Does jobs on a thread of its own until they stop.
pub(crate) fn start(jobs: Arc<Jobs>, device: Arc<Device>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("engine".into()).spawn(move || {
        while let Some(job) = jobs.next(device.id) {
            info!(job = job.id, method = job.request.method, "started");
            let outcome = contain(|| run(&jobs, &job, &device));
            jobs.finish(&job, outcome);
        }
    })
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
