//! Files whose lock says that a process lives. The file itself stays when the process ends: removing it would let
//! two processes hold different files of one name.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Locks `path` for as long as the file is held; `None` if somebody else has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<File>> {
    // Ours alone: who can open the file can lock it.
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether this file is the one that stands at `path`.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let place = |found: io::Result<Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
    let (held, stands) = (place(file.metadata()), place(std::fs::metadata(path)));
    held.is_some() && held == stands
}
