//! Lets checkpoints go whose time is up, on a thread that sleeps until then.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use crate::thread;

/// Wakes up when the time of something is up.
#[derive(Default)]
pub(super) struct Timer {
    shared: Arc<Shared>,
    started: OnceLock<()>,
}

#[derive(Default)]
struct Shared {
    next: Mutex<Next>,
    changed: Condvar,
}

#[derive(Default)]
struct Next {
    at: Option<Instant>,
    /// Nobody is left to wake up for.
    over: bool,
}

impl Timer {
    /// Calls `expire` on the owner at `at`, or before if something else is due; it says when it wants to be called next.
    /// What is set here replaces nothing that is due earlier.
    pub(super) fn set<T: Send + Sync + 'static>(
        &self,
        owner: &Weak<T>,
        at: Instant,
        expire: fn(&T) -> Option<Instant>,
    ) {
        {
            let mut next = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner);
            next.at = Some(next.at.map_or(at, |earlier| earlier.min(at)));
        }
        self.shared.changed.notify_all();
        self.started.get_or_init(|| {
            let (shared, owner) = (Arc::clone(&self.shared), Weak::clone(owner));
            // Without it memory is given back when somebody needs the room.
            thread::start("keep-alive", move || run(&shared, &owner, expire)).ok();
        });
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.shared.next.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.shared.changed.notify_all();
    }
}

fn run<T>(shared: &Shared, owner: &Weak<T>, expire: fn(&T) -> Option<Instant>) {
    let mut next = shared.next.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if next.over {
            return;
        }
        let Some(at) = next.at else {
            next = shared.changed.wait(next).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = at.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            next = shared.changed.wait_timeout(next, left).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        next.at = None;
        drop(next);
        let then = owner.upgrade().and_then(|owner| expire(&owner));
        next = shared.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.at = [next.at, then].into_iter().flatten().min();
    }
}
