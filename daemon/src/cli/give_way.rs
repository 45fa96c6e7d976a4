//! Tells the library while jobs draw: what it does in the background waits then.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use latentd_client::protocol::{EventKind, LibraryEvent};

use crate::jobs::{Told, Watcher};
use crate::library::Library;

/// Follows all jobs.
pub(super) struct GiveWay {
    library: Arc<Library>,
    /// Jobs that began and have not ended.
    running: Mutex<HashSet<String>>,
}

impl GiveWay {
    pub(super) fn new(library: Arc<Library>) -> Self {
        Self { library, running: Mutex::default() }
    }
}

impl Watcher for GiveWay {
    fn event(&self, told: &Told<'_>) {
        let event = told.event();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(event.kind, EventKind::Started) {
            running.insert(event.job.clone());
        } else if event.kind.is_last() {
            running.remove(&event.job);
        } else {
            return;
        }
        self.library.set_busy(!running.is_empty());
    }

    fn library_event(&self, _: &LibraryEvent) {}
}
