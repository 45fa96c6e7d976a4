//! Programs of tensor operations: against those that others define (`tests/fixtures/tensor_ops.py` made what is wanted), and whatever
//! somebody may write: nothing panics, and nothing takes more memory than was planned.

mod counted;
mod fuzz;
mod parity;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory is counted for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
