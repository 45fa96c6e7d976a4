//! What tests of jobs share.

use std::path::Path;
use std::sync::Arc;

use super::{Answer, Job, JobLimits, Jobs, Reserved};
use crate::error::Result;
use crate::state_dir;
use crate::tasks::{DeviceId, Request, Run, Task};

/// Room for a few small jobs.
pub(crate) const LIMITS: JobLimits = JobLimits {
    queue: 10,
    queue_bytes: 1 << 20,
    history: 1000,
    ttl_s: 1000,
    total_bytes: 1 << 20,
    memory_bytes: 1 << 20,
};

/// A job that has nothing to do.
pub(crate) struct Nothing;

impl Task for Nothing {
    fn device(&self) -> DeviceId {
        DeviceId(0)
    }

    fn steps(&self) -> u32 {
        7
    }

    fn run(&self, _: &Run<'_>) -> Result<Vec<u8>> {
        Ok(vec![0x80])
    }
}

pub(crate) fn jobs(folder: &Path, limits: JobLimits) -> Jobs {
    Jobs::open(Arc::new(state_dir::claim(folder).expect("claimed")), limits).expect("opened")
}

/// A new job that waits for its turn, if it is taken.
pub(crate) fn queue(jobs: &Jobs, id: &str, answer: Answer) -> Result<Arc<Job>> {
    let request = Request { method: "nothing".into(), digest: [1; 32], bytes: 1 };
    let Reserved::New(job) = jobs.reserve(request, Some(id.into()), answer, None)? else {
        panic!("'{id}' is known");
    };
    jobs.resolve(&job, || Ok(Arc::new(Nothing)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("started");
    runtime.block_on(job.submitted()).map(|()| job)
}
