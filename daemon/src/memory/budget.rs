//! Bytes that may be taken, and who holds them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many bytes for everybody.
pub(crate) struct Budget {
    total: u64,
    leased: Mutex<u64>,
}

/// Some of them, until this is dropped.
pub(crate) struct Lease {
    bytes: u64,
    budget: Arc<Budget>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

impl Budget {
    pub(crate) fn new(total: u64) -> Arc<Self> {
        Arc::new(Self { total, leased: Mutex::default() })
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn leased(&self) -> u64 {
        *self.lock()
    }

    /// A lease, if there are as many bytes left.
    pub(crate) fn try_reserve(self: &Arc<Self>, bytes: u64) -> Option<Lease> {
        let mut leased = self.lock();
        let after = leased.checked_add(bytes).filter(|after| *after <= self.total)?;
        *leased = after;
        Some(Lease { bytes, budget: Arc::clone(self) })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.budget.lock() -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_had_again() {
        let budget = Budget::new(10);
        let first = budget.try_reserve(6).expect("room");
        assert!(budget.try_reserve(5).is_none() && budget.try_reserve(u64::MAX).is_none());
        let second = budget.try_reserve(4).expect("room");
        assert_eq!((budget.leased(), first.bytes()), (10, 6));
        drop(first);
        assert_eq!(budget.leased(), 4);
        drop(second);
        assert_eq!(budget.leased(), 0);
    }
}
