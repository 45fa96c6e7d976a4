//! One load at a time. A job does not wait for one that nobody draws with: that gives way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often somebody who waits looks whether it still should.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// For whom something is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// A job that runs.
    Job,
    /// Nobody yet.
    Later,
}

#[derive(Default)]
pub(super) struct LoadingTurn {
    current: Mutex<Option<Current>>,
    free: Condvar,
}

struct Current {
    whom: For,
    /// What is loaded, or the file that stands for it.
    source: [u8; 32],
    gives_way: Arc<AtomicBool>,
}

/// The right to load, until this is dropped. While somebody has it, all that is leased for networks is in the table or
/// his own.
pub(super) struct Turn<'a> {
    turns: &'a LoadingTurn,
    gives_way: Arc<AtomicBool>,
}

impl LoadingTurn {
    /// Waits for the right to load something of `source`; `None` once `cancelled`. What is loaded for nobody yet gives way
    /// to a job, unless it is what the job needs.
    pub(super) fn wait(&self, whom: For, source: [u8; 32], cancelled: &dyn Fn() -> bool) -> Option<Turn<'_>> {
        let mut current = self.lock();
        while let Some(other) = &*current {
            if cancelled() {
                return None;
            }
            if whom == For::Job && other.whom == For::Later && other.source != source {
                other.gives_way.store(true, Ordering::Relaxed);
            }
            let waited = self.free.wait_timeout(current, LOOK_EVERY);
            current = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let gives_way = Arc::new(AtomicBool::new(false));
        *current = Some(Current { whom, source, gives_way: Arc::clone(&gives_way) });
        Some(Turn { turns: self, gives_way })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Whether a job wants it. A job's own turn is wanted by none.
    pub(super) fn gives_way(&self) -> bool {
        self.gives_way.load(Ordering::Relaxed)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.turns.lock() = None;
        self.turns.free.notify_all();
    }
}
