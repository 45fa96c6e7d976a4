//! A checkpoint that a job will draw with later: it does not go meanwhile because its time is up.

use std::sync::Arc;
use std::time::Duration;

use super::known::Known;
use super::store::Memory;
use crate::library::ModelFiles;

/// One that is needed until this is dropped. Its networks are as idle as anybody's until they are drawn with.
pub(crate) struct Expected<'a> {
    memory: &'a Memory,
    known: Arc<Known>,
    /// How long it stays afterwards; for ever if `None`.
    keep_alive: Option<Duration>,
}

impl<'a> Expected<'a> {
    pub(crate) fn new(
        memory: &'a Memory,
        files: &ModelFiles,
        known: &Arc<Known>,
        keep_alive: Option<Duration>,
    ) -> Self {
        memory.begin_job(files, known);
        Self { memory, known: Arc::clone(known), keep_alive }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.memory.end_job(&self.known, self.keep_alive);
    }
}
