//! Hashes that are computed because a request names a file by one, while it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::item::Item;
use super::pinned::Pinned;
use crate::error::{Class, Error, Result};

/// Requests that may wait for hashes at once: each holds a thread that others need to be resolved.
const MOST: usize = 4;

/// Who waits for hashes.
pub(crate) trait Waiter {
    /// Whether it waits no longer. Asked many times a second.
    fn is_cancelled(&self) -> bool;

    /// So many bytes of all that must be read were. Told as often.
    fn hashed(&self, done: u64, total: u64);
}

/// One who waits for as long as it takes, and wants to hear nothing.
pub(crate) struct Patient;

impl Waiter for Patient {
    fn is_cancelled(&self) -> bool {
        false
    }

    fn hashed(&self, _done: u64, _total: u64) {}
}

/// Places for those who wait.
#[derive(Default)]
pub(super) struct WaitingRoom(AtomicUsize);

struct Place<'a>(&'a WaitingRoom);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WaitingRoom {
    fn enter(&self) -> Result<Place<'_>> {
        // Counted before it is looked at, so that no two take the last.
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let place = Place(self);
        if before < MOST {
            return Ok(place);
        }
        let text = format!(
            "{MOST} requests wait for the hashes of files already; retry when they are through, or name the file"
        );
        Err(Error::new(Class::Busy, text))
    }

    /// Hashes the files one after the other until one has `hash`; `hold` opens them. The file stays open for who asked.
    /// What cannot be hashed is passed by.
    pub(super) fn find(
        &self,
        hash: &str,
        files: &[Item],
        waiter: &dyn Waiter,
        hold: impl Fn(&Item) -> Option<Arc<Pinned>>,
    ) -> Result<Option<Arc<Pinned>>> {
        let _place = self.enter()?;
        let total: u64 = files.iter().map(Item::size).sum();
        let mut done = 0;
        for item in files {
            if waiter.is_cancelled() {
                return Err(cancelled());
            }
            if let Some(file) = hold(item) {
                let ends = || {
                    waiter.hashed(done + file.hashed_bytes(), total);
                    waiter.is_cancelled()
                };
                match file.sha256(&ends) {
                    Ok(digest) if digest.starts_with(hash) => return Ok(Some(file)),
                    Err(error) if error.class == Class::Cancelled => return Err(cancelled()),
                    Ok(_) | Err(_) => (),
                }
            }
            done += item.size();
        }
        Ok(None)
    }
}

fn cancelled() -> Error {
    Error::new(Class::Cancelled, "cancelled while models were hashed")
}
