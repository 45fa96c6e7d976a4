//! What somebody can make again but would rather not, by its key: kept while there is room, the least recently used going first.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::Lease;

/// What is kept, whatever it is, with the memory that is counted for it: whoever takes it holds both.
#[derive(Clone)]
pub(crate) struct Cached {
    pub value: Arc<dyn Any + Send + Sync>,
    pub lease: Arc<Lease>,
}

/// A name for what is kept, private to whoever made it up: a hash.
pub(crate) type CacheKey = [u8; 32];

/// All that is kept.
#[derive(Default)]
pub(super) struct Cache {
    entries: Mutex<Entries>,
    /// Bytes of all.
    most: AtomicU64,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<CacheKey, Entry>,
    /// Counts uses.
    uses: u64,
}

struct Entry {
    cached: Cached,
    /// The number of its last use.
    used: u64,
}

impl Entries {
    fn bytes(&self) -> u64 {
        self.by_key.values().map(|entry| entry.cached.lease.bytes()).sum()
    }

    /// Lets go of the one that was used longest ago. Whether there was one.
    fn evict(&mut self) -> bool {
        let oldest = self.by_key.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
        oldest.is_some_and(|key| self.by_key.remove(&key).is_some())
    }
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps no more than so many bytes from now on.
    pub(super) fn set_most(&self, bytes: u64) {
        self.most.store(bytes, Ordering::Relaxed);
        let mut entries = self.lock();
        while entries.bytes() > bytes && entries.evict() {}
    }

    /// What was kept under a key, if it is still there.
    pub(super) fn get(&self, key: &CacheKey) -> Option<Cached> {
        let mut entries = self.lock();
        entries.uses += 1;
        let used = entries.uses;
        let entry = entries.by_key.get_mut(key)?;
        entry.used = used;
        Some(entry.cached.clone())
    }

    /// Keeps it, in the place of what was under that key; others go where they are too many bytes together. What alone is too
    /// large is not kept.
    pub(super) fn put(&self, key: CacheKey, cached: Cached) {
        let most = self.most.load(Ordering::Relaxed);
        let mut entries = self.lock();
        entries.by_key.remove(&key);
        if cached.lease.bytes() > most {
            return;
        }
        while entries.bytes() + cached.lease.bytes() > most && entries.evict() {}
        entries.uses += 1;
        let used = entries.uses;
        entries.by_key.insert(key, Entry { cached, used });
    }

    /// Lets go of the one that was used longest ago. Whether there was one.
    pub(super) fn evict(&self) -> bool {
        self.lock().evict()
    }

    /// Lets go of all. Whether there was one.
    pub(super) fn clear(&self) -> bool {
        let mut entries = self.lock();
        let had = !entries.by_key.is_empty();
        entries.by_key.clear();
        had
    }

    /// Bytes that are to be had by letting go of all: of what nobody holds.
    pub(super) fn idle_bytes(&self) -> u64 {
        let entries = self.lock();
        let idle = entries.by_key.values().filter(|entry| Arc::strong_count(&entry.cached.lease) == 1);
        idle.map(|entry| entry.cached.lease.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let (cache, budget) = (Cache::default(), Budget::new(100));
        cache.set_most(30);
        let key = |number: u8| [number; 32];
        let put = |number: u8, bytes: u64| {
            let lease = Arc::new(budget.try_reserve(bytes).expect("room"));
            cache.put(key(number), Cached { value: Arc::new(number), lease });
        };
        put(1, 10);
        put(2, 10);
        put(3, 10);
        let value = |number: u8| {
            let cached = cache.get(&key(number))?;
            cached.value.downcast_ref::<u8>().copied()
        };
        assert_eq!(value(1), Some(1));
        put(4, 15);
        assert_eq!([1, 2, 3, 4].map(value), [Some(1), None, None, Some(4)]);
        assert_eq!((cache.idle_bytes(), budget.leased()), (25, 25));
        // What somebody holds is counted until they let go of it.
        let held = cache.get(&key(4));
        assert_eq!(cache.idle_bytes(), 10);
        put(5, 31);
        assert_eq!((value(5), value(1)), (None, Some(1)), "what does not fit takes nobody's place");
        put(1, 20);
        assert_eq!((value(4), budget.leased()), (None, 35));
        drop(held);
        assert_eq!(budget.leased(), 20);
        cache.set_most(19);
        assert!(!cache.evict() && !cache.clear() && budget.leased() == 0);
    }
}
