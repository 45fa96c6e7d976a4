//! Jobs that end with the connection that asked for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use latentd_client::protocol::OnDisconnect;

use super::Outbox;
use crate::jobs::Job;

/// Which connection each of them hangs on. Of several submits of one job the last decides.
#[derive(Default)]
pub(crate) struct Holders(Mutex<HashMap<String, Held>>);

struct Held {
    job: Arc<Job>,
    by: Weak<Outbox>,
}

impl Holders {
    /// Notes what a submit of `job` by a connection wants.
    pub(crate) fn note(&self, job: &Arc<Job>, by: &Arc<Outbox>, wanted: OnDisconnect) {
        let mut held = self.lock();
        // Few are left: no more than may wait and run.
        held.retain(|_, held| !held.job.is_terminal());
        match wanted {
            OnDisconnect::Keep => drop(held.remove(&job.id)),
            OnDisconnect::Cancel => {
                let held_now = Held { job: Arc::clone(job), by: Arc::downgrade(by) };
                drop(held.insert(job.id.clone(), held_now));
            }
        }
    }

    /// The jobs that hang on a connection, which is gone.
    pub(crate) fn end_of(&self, connection: &Arc<Outbox>) -> Vec<Arc<Job>> {
        let connection = Arc::downgrade(connection);
        let is_theirs = |held: &Held| Weak::ptr_eq(&held.by, &connection);
        self.lock().extract_if(|_, held| is_theirs(held)).map(|(_, held)| held.job).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
