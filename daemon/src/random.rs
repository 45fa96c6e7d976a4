//! Numbers from the operating system.

use latentd_client::protocol::{ErrorName, WireError};

/// 64 bits that nobody can guess.
pub(crate) fn u64() -> Result<u64, WireError> {
    getrandom::u64().map_err(|error| {
        WireError::new(ErrorName::Internal, format!("the system gives no random numbers: {error}"))
    })
}
