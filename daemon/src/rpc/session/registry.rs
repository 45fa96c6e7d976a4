//! Which connections there are: one that nobody uses makes room for a new one when there are too many.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// All connections.
#[derive(Default)]
pub(crate) struct Registry {
    all: Mutex<Vec<Weak<Activity>>>,
    /// Counts uses of any of them.
    uses: Arc<AtomicU64>,
}

/// What one connection does just now.
pub(crate) struct Activity {
    uses: Arc<AtomicU64>,
    /// The number of its last use.
    last: AtomicU64,
    busy: AtomicBool,
    gives_way: AtomicBool,
    asked: Notify,
}

impl Registry {
    /// A connection begins; it is listed until what is given here is dropped.
    pub(crate) fn enter(&self) -> Arc<Activity> {
        let activity = Arc::new(Activity {
            uses: Arc::clone(&self.uses),
            last: AtomicU64::new(self.uses.fetch_add(1, Ordering::Relaxed)),
            busy: AtomicBool::new(false),
            gives_way: AtomicBool::new(false),
            asked: Notify::new(),
        });
        let mut all = self.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&activity));
        activity
    }

    /// Whether there is room for all that are `open` where `limit` are allowed: if not, the connection that was idle
    /// longest is asked to end. False if all are in use.
    pub(crate) fn make_room(&self, open: usize, limit: usize) -> bool {
        let all: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        let leaving = all.iter().filter(|one| one.gives_way()).count();
        if open.saturating_sub(leaving) <= limit {
            return true;
        }
        let idle = all.iter().filter(|one| one.is_idle());
        let Some(longest) = idle.min_by_key(|one| one.last.load(Ordering::Relaxed)) else {
            return false;
        };
        longest.gives_way.store(true, Ordering::Relaxed);
        longest.asked.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Activity>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    /// Says whether anything is under way.
    pub(crate) fn set_busy(&self, busy: bool) {
        if busy || self.busy.load(Ordering::Relaxed) {
            self.last.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub(crate) fn gives_way(&self) -> bool {
        self.gives_way.load(Ordering::Relaxed)
    }

    /// Returns when it is asked to end.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    fn is_idle(&self) -> bool {
        !self.busy.load(Ordering::Relaxed) && !self.gives_way()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_idle_longest_goes_and_none_that_is_busy() {
        let registry = Registry::default();
        let all: Vec<_> = (0..3).map(|_| registry.enter()).collect();
        all[0].set_busy(true);
        assert!(registry.make_room(3, 3) && !all[1].gives_way(), "there is room");
        assert!(registry.make_room(4, 3) && all[1].gives_way());
        assert!(registry.make_room(4, 3) && !all[2].gives_way(), "one leaves already");
        assert!(registry.make_room(5, 3) && all[2].gives_way());
        assert!(!registry.make_room(6, 3) && !all[0].gives_way());
        let new = registry.enter();
        all[0].set_busy(false);
        assert!(registry.make_room(6, 3) && new.gives_way(), "the other was used since");
        drop((all, new));
        assert!(!registry.make_room(4, 3));
    }
}
