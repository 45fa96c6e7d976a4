//! One thread for the device: takes jobs in order, brings their models into memory, draws, and hands back results.

mod contain;
mod hooks;
mod output;
mod plan;
mod studio;
mod txt2img;

use std::sync::Arc;
use std::thread::JoinHandle;

use tracing::info;

use crate::jobs::Jobs;
use contain::contain;
pub(crate) use plan::{Plan, PlanLimits};
pub(crate) use studio::Studio;

/// The jobs and what they are drawn with.
pub(crate) struct Engine {
    pub jobs: Arc<Jobs>,
    pub studio: Studio,
}

impl Engine {
    /// Draws on a thread of its own until the jobs stop.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let engine = Arc::clone(self);
        std::thread::Builder::new().name("engine".into()).spawn(move || {
            while let Some(job) = engine.jobs.next() {
                info!(job = job.id, method = job.method, "started");
                let outcome = contain(|| txt2img::run(&engine.studio, &engine.jobs, &job));
                engine.jobs.finish(&job, outcome);
            }
        })
    }
}
