//! How a function of the plugin runs: a panic in it is a failure of that call.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{LATENTD_FAILED, latentd_call, latentd_status};
use crate::call::Call;
use crate::error::{Error, Result};

/// Does what a function of the plugin does; leaves why it fails with the host.
pub(crate) fn run(
    call: *mut latentd_call,
    work: impl FnOnce(Call<'_>) -> Result<latentd_status>,
) -> latentd_status {
    let Ok(called) = Call::of(call) else { return LATENTD_FAILED };
    let done = catch_unwind(AssertUnwindSafe(|| work(called)));
    let done = done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic");
        let error = Error::failed(format!("it panicked: {text}"));
        // A payload may panic as it goes.
        std::mem::forget(panic);
        Err(error)
    });
    match done {
        Ok(status) => status,
        Err(error) => called.fail(&error),
    }
}

/// An instance that `create` made.
///
/// # Safety
/// As the ABI says: it was made by `create`, and not destroyed.
pub(crate) unsafe fn instance<'a, P>(instance: *mut c_void) -> Result<&'a P> {
    // SAFETY: as the caller says.
    unsafe { instance.cast::<P>().as_ref() }.ok_or_else(|| Error::failed("called without an instance"))
}
