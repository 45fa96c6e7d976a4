//! A run that is watched by its job.

use latentd_client::protocol::ImageOut;

use crate::jobs::{Job, Jobs};
use crate::tasks::Watch;

pub(super) struct JobWatch<'a> {
    pub jobs: &'a Jobs,
    pub job: &'a Job,
}

impl Watch for JobWatch<'_> {
    fn is_cancelled(&self) -> bool {
        self.job.is_cancelled()
    }

    fn progress(&self, stage: &str, step: u32, steps: u32, eta_s: Option<f64>) {
        self.jobs.progress(self.job, stage, (step, steps), eta_s);
    }

    fn preview(&self, step: u32, image: ImageOut) {
        self.jobs.preview(self.job, step, image);
    }
}
