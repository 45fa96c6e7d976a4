//! Numbers from the operating system.

use crate::error::{Error, Result};

/// 64 bits that nobody can guess.
pub(crate) fn u64() -> Result<u64> {
    getrandom::u64().map_err(|error| Error::internal(format!("the system gives no random numbers: {error}")))
}
