//! What files are read into that is no checkpoint's: it stays for the next who asks while there is room.

use std::sync::{Arc, Mutex, PoisonError};

use latentd_models::nn::Precision;

use super::base::BaseKey;
use super::budget::Lease;
use crate::error::Result;
use crate::library::{Identity, Pinned};

/// Those that are there.
pub(super) struct Kept<T: ?Sized>(Mutex<Vec<One<T>>>);

struct One<T: ?Sized> {
    identity: Identity,
    /// Over which checkpoint it was made, if over any.
    base: Option<BaseKey>,
    precision: Precision,
    made: Arc<T>,
    lease: Lease,
}

impl<T: ?Sized> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: ?Sized> Kept<T> {
    /// That of a file, and of the checkpoint that it is over; made now if it is not there. The room is had first.
    pub(super) fn get(
        &self,
        (file, base): (&Pinned, Option<BaseKey>),
        precision: Precision,
        reserve: impl FnOnce() -> Result<Lease>,
        make: impl FnOnce() -> Result<Arc<T>>,
    ) -> Result<Arc<T>> {
        if let Some(made) = self.find((file, base.as_ref()), precision) {
            return Ok(made);
        }
        // Not held meanwhile: others that lie idle here may have to go for it.
        let (lease, made) = (reserve()?, make()?);
        // What was written to meanwhile may look like anything.
        file.check()?;
        if let Some(made) = self.find((file, base.as_ref()), precision) {
            return Ok(made);
        }
        let identity = file.identity().clone();
        let one = One { identity, base, precision, made: Arc::clone(&made), lease };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        Ok(made)
    }

    fn find(&self, (file, base): (&Pinned, Option<&BaseKey>), precision: Precision) -> Option<Arc<T>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |one: &&One<T>| {
            one.identity == *file.identity() && one.base.as_ref() == base && one.precision == precision
        };
        let found = kept.iter().find(is);
        found.map(|one| Arc::clone(&one.made))
    }

    /// Lets go of those that no job has. Whether there were any.
    pub(super) fn clear(&self) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.len();
        kept.retain(|one| Arc::strong_count(&one.made) > 1);
        kept.len() < before
    }

    /// Bytes that are to be had by letting go of them.
    pub(super) fn idle_bytes(&self) -> u64 {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|one| Arc::strong_count(&one.made) == 1).map(|one| one.lease.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::budget::Budget;
    use crate::memory::fixture::Fixture;

    #[test]
    fn what_nobody_has_stays_until_the_room_is_wanted() {
        let (fixture, kept, budget) = (Fixture::new(), Kept::<str>::default(), Budget::new(10));
        let files = fixture.pin();
        let get = |precision, text: &str| {
            let reserve = || Ok(budget.try_reserve(4).expect("room"));
            kept.get((&files.checkpoint, None), precision, reserve, || Ok(text.into())).expect("made")
        };
        let one = get(Precision::F32, "one");
        assert!(Arc::ptr_eq(&one, &get(Precision::F32, "again")), "it is made once");
        assert_eq!((&*get(Precision::Bf16, "other"), budget.leased()), ("other", 8));
        assert_eq!((kept.idle_bytes(), kept.clear(), budget.leased()), (4, true, 4));
        assert!(!kept.clear());
        drop(one);
        assert!(kept.clear() && budget.leased() == 0);
    }
}
