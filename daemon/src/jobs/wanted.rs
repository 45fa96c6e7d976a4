//! Results that somebody waits for: they are kept until they were read, whatever the limits say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The ids of those jobs.
#[derive(Clone, Default)]
pub(super) struct WantedResults {
    ids: Arc<Mutex<HashMap<String, usize>>>,
}

/// A job's result is kept for as long as this is held.
pub(crate) struct Wanted {
    all: WantedResults,
    id: String,
}

impl WantedResults {
    pub(super) fn want(&self, id: &str) -> Wanted {
        *self.lock().entry(id.to_owned()).or_default() += 1;
        Wanted { all: self.clone(), id: id.to_owned() }
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    /// The job.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut ids = self.all.lock();
        if let Some(count) = ids.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                ids.remove(&self.id);
            }
        }
    }
}
