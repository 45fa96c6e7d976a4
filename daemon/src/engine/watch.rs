//! A run that is watched by its job.

use latentd_client::protocol::{ImageOut, Pass, PluginProgress};

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

    fn progress_of(&self, pass: Option<Pass>, stage: &str, steps: (u32, u32), eta_s: Option<f64>) {
        self.jobs.progress(self.job, pass, stage, steps, eta_s);
    }

    fn preview(&self, pass: Pass, step: u32, image: ImageOut) {
        self.jobs.preview(self.job, pass, step, image);
    }

    fn plugin_progress(&self, progress: PluginProgress) {
        self.jobs.plugin_progress(self.job, progress);
    }

    fn plugin_preview(&self, plugin: &str, image: ImageOut) {
        self.jobs.plugin_preview(self.job, plugin, image);
    }
}
