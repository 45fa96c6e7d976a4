//! Memory for what is made of a tensor: as much as a file says, so it may not be there. Why it cannot be made.

use crate::{Error, Result};

/// So many zeros; an error where the system refuses them.
pub(super) fn zeros(bytes: usize) -> Result<Vec<u8>> {
    let mut zeros = room(bytes)?;
    zeros.resize(bytes, 0);
    Ok(zeros)
}

/// Nothing yet, with room for so many; an error where the system refuses it.
pub(super) fn room(bytes: usize) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes: bytes as u64 })?;
    Ok(room)
}

/// Why elements cannot be widened.
pub(super) enum Unwidened {
    /// What is wrong with them.
    Wrong(String),
    /// There is no memory for it.
    Memory(Error),
}

impl From<String> for Unwidened {
    fn from(wrong: String) -> Self {
        Self::Wrong(wrong)
    }
}

impl From<Error> for Unwidened {
    fn from(error: Error) -> Self {
        Self::Memory(error)
    }
}
