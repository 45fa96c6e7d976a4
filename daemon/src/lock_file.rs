//! Files whose lock says that a process lives, and which one. The file itself stays when the process ends: removing it
//! would let two processes hold different files of one name.

use std::fmt;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that is locked for as long as this is held.
pub(crate) struct LockFile {
    path: PathBuf,
    file: File,
}

/// What came of locking.
pub(crate) enum Locked {
    Own(LockFile),
    /// Somebody else has it.
    Held(Holder),
}

/// Who has it, as far as that can be told.
#[derive(Debug)]
pub(crate) struct Holder(Option<u32>);

impl Holder {
    pub(crate) fn unknown() -> Self {
        Self(None)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

/// Locks `path`, and writes into it who does.
pub(crate) fn lock(path: &Path) -> io::Result<Locked> {
    // Ours alone: who can open the file can lock it.
    let mut file =
        File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => {
            // For people and errors only; a full disk is no reason not to start.
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).ok();
            Ok(Locked::Own(LockFile { path: path.to_owned(), file }))
        }
        Err(TryLockError::WouldBlock) => {
            let text = fs::read_to_string(path).unwrap_or_default();
            Ok(Locked::Held(Holder(text.trim().parse().ok())))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl LockFile {
    /// Whether it still stands where others would look for it.
    pub(crate) fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.path)
    }
}

/// Whether this file is the one that stands at `path`.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let place = |found: io::Result<Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
    let (held, stands) = (place(file.metadata()), place(fs::metadata(path)));
    held.is_some() && held == stands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_it_is_named_and_a_file_that_was_removed_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let Ok(Locked::Own(own)) = lock(&path) else { panic!("nobody has it") };
        let Ok(Locked::Held(holder)) = lock(&path) else { panic!("we have it") };
        assert_eq!(holder.to_string(), format!("process {}", std::process::id()));
        assert!(own.is_in_place());
        fs::remove_file(&path).expect("removed");
        assert!(!own.is_in_place());
        let Ok(Locked::Own(again)) = lock(&path) else { panic!("another file") };
        assert!(again.is_in_place() && !own.is_in_place());
        drop(again);
        fs::write(&path, "what an older version wrote").expect("written");
        let Ok(Locked::Own(_own)) = lock(&path) else { panic!("free again") };
    }
}
