//! The folder in which the daemon keeps what outlives it. One daemon at a time, also when their sockets differ.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::{lock_file, whole_file};

/// The folder, ours for as long as this is held.
pub(crate) struct StateDir {
    /// Where `output.format = "file"` writes when a request names no folder.
    pub outputs: PathBuf,
    _lock: File,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateDirError {
    #[error("a daemon already keeps its state in {}; use it, or give another --state-dir", path.display())]
    Taken { path: PathBuf },
    #[error("cannot write {}: {error}; give another --state-dir", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Makes the folder where it is missing, takes it, and clears away what a daemon that was killed left half written.
pub(crate) fn claim(state_dir: &Path) -> Result<StateDir, StateDirError> {
    make_private(state_dir).map_err(at(state_dir))?;
    let path = state_dir.join("lock");
    let lock = lock_file::lock(&path).map_err(at(&path))?;
    let lock = lock.ok_or_else(|| StateDirError::Taken { path: state_dir.to_owned() })?;
    let (results, outputs) = (state_dir.join("results"), state_dir.join("outputs"));
    for folder in [&results, &outputs] {
        make_private(folder).map_err(at(folder))?;
        whole_file::remove_leftovers(folder);
    }
    Ok(StateDir { outputs, _lock: lock })
}

/// Makes a folder that only its user can look into: pictures and prompts are nobody else's business.
pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    move |error| StateDirError::Io { path, error }
}
