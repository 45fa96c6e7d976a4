//! A panic is an error of the work in which it happened, alone: no thread ends with it.

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

/// Does `work` on a thread that must not die: after a panic it does it again, once `mend` has put in order what was left
/// half done.
pub(crate) fn keep_going<T>(name: &str, mut work: impl FnMut() -> T, mut mend: impl FnMut()) -> T {
    loop {
        match catch_unwind(AssertUnwindSafe(&mut work)) {
            Ok(done) => return done,
            Err(panic) => {
                error!(name, panic = panic_text(panic.as_ref()), "a thread failed; it begins anew");
                if catch_unwind(AssertUnwindSafe(&mut mend)).is_err() {
                    error!(name, "what it left half done stays so");
                }
            }
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}
