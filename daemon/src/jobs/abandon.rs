//! The end of jobs that nobody wants any more.

use std::sync::Arc;

use super::{Job, Jobs};
use crate::error::{Class, Error};

impl Jobs {
    /// Stops a job whose connection is gone, as a cancel does, also one that nobody was told of yet.
    pub(crate) fn abandon(&self, job: &Arc<Job>) {
        job.request_cancel();
        self.give_up(
            job,
            Error::new(Class::Cancelled, "the job was cancelled: the program that asked for it is gone"),
        );
    }
}
