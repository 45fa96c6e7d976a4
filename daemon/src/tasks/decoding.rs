//! Pictures that are decoded at the same time: as many as one of the largest would take, so that many requests take no more
//! memory than one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of pixels that are decoded now.
#[derive(Default)]
pub(crate) struct Decoding {
    taken: Mutex<u64>,
    freed: Condvar,
}

/// Room for one picture, until it is dropped.
pub(super) struct Room<'a> {
    decoding: &'a Decoding,
    bytes: u64,
}

impl Decoding {
    /// Waits until so many bytes are free of `most`, which nobody takes more of.
    pub(super) fn wait(&self, bytes: u64, most: u64) -> Room<'_> {
        let bytes = bytes.min(most);
        let mut taken = self.lock();
        while *taken > 0 && *taken + bytes > most {
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += bytes;
        Room { decoding: self, bytes }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *self.decoding.lock() -= self.bytes;
        self.decoding.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn no_more_is_taken_than_one_may() {
        let (decoding, now, most) = (Decoding::default(), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for bytes in [60, 10, 300, 40] {
                        let _room = decoding.wait(bytes, 100);
                        let taken = bytes.min(100);
                        most.fetch_max(now.fetch_add(taken, Ordering::SeqCst) + taken, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(taken, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((60..=100).contains(&most.into_inner()));
        assert_eq!(*decoding.lock(), 0);
    }
}
