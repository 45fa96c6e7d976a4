//! The folder in which the daemon keeps what outlives it. One daemon at a time, also when their sockets differ.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::lock_file::{self, Holder, LockFile, Locked};
use crate::whole_file;

/// How long a daemon that gave back its socket may still have its state.
const ENDING: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The folder, ours for as long as this is held.
pub(crate) struct StateDir {
    path: PathBuf,
    lock: Mutex<LockFile>,
}

impl StateDir {
    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where results are kept.
    pub(crate) fn results(&self) -> PathBuf {
        self.path.join("results")
    }

    /// Where `output.format = "file"` writes when a request names no folder.
    pub(crate) fn outputs(&self) -> PathBuf {
        self.path.join("outputs")
    }

    /// The styles that clients saved.
    pub(crate) fn styles(&self) -> PathBuf {
        self.path.join("styles.csv")
    }

    /// Copies of the plugins' libraries that were loaded.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.path.join("plugin-copies")
    }

    /// Where plugins have folders of their own.
    pub(crate) fn plugin_folders(&self) -> PathBuf {
        self.path.join("plugins")
    }

    /// Makes the folder anew and takes it again, if somebody removed it.
    pub(crate) fn keep(&self) -> Result<(), StateDirError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_in_place() {
            return Ok(());
        }
        warn!(folder = %self.path.display(), "the state folder was removed; it is made anew");
        *lock = take(&self.path)?;
        Ok(())
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateDirError {
    #[error("a daemon ({holder}) already keeps its state in {}; use it, or give another --state-dir", path.display())]
    Taken { path: PathBuf, holder: Holder },
    #[error("cannot write {}: {error}; give another --state-dir", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Makes the folder where it is missing, takes it, and clears away what a daemon that was killed left half written.
pub(crate) fn claim(state_dir: &Path) -> Result<StateDir, StateDirError> {
    let deadline = Instant::now() + ENDING;
    let lock = loop {
        match take(state_dir) {
            Err(StateDirError::Taken { .. }) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
            taken => break Mutex::new(taken?),
        }
    };
    let claimed = StateDir { path: state_dir.to_owned(), lock };
    whole_file::remove_leftovers(&claimed.results());
    whole_file::remove_leftovers(&claimed.outputs());
    Ok(claimed)
}

fn take(state_dir: &Path) -> Result<LockFile, StateDirError> {
    make_private(state_dir).map_err(at(state_dir))?;
    let path = state_dir.join("lock");
    let lock = match lock_file::lock(&path).map_err(at(&path))? {
        Locked::Own(lock) => lock,
        Locked::Held(holder) => return Err(StateDirError::Taken { path: state_dir.to_owned(), holder }),
    };
    for folder in ["results", "outputs"] {
        let folder = state_dir.join(folder);
        make_private(&folder).map_err(at(&folder))?;
    }
    Ok(lock)
}

/// Makes a folder, if it is not there, that only its user can look into: pictures and prompts are nobody else's business.
pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    move |error| StateDirError::Io { path, error }
}
