//! A panic is an error of the work in which it happened, alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::error;

use crate::error::{Error, Result};

/// Runs `work`; a panic in it is an error of that work alone.
pub(crate) fn contain<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Everything `work` shares is behind locks whose holders do not leave it half changed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        if let Some(error) = latentd_models::Error::of_panic(panic.as_ref()) {
            return Err(error.into());
        }
        let what = panic_text(panic.as_ref());
        error!(panic = what, "a job panicked");
        Err(Error::internal(format!("the daemon failed at this job: {what}; please report it")))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}
