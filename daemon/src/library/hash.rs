//! SHA-256 of large files, computed while something else goes on.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// A digest that is known, or being computed. Clones wait for the same one.
#[derive(Clone, Default)]
pub(crate) struct Sha256Task {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    digest: Mutex<Option<Result<String, String>>>,
    done: Condvar,
}

impl Sha256Task {
    /// One that is known.
    pub(super) fn done(digest: String) -> Self {
        let task = Self::default();
        task.set(Ok(digest));
        task
    }

    /// Reads `path` on a thread of its own and hands the digest to `keep`.
    pub(super) fn spawn(path: PathBuf, keep: impl FnOnce(&str) + Send + 'static) -> Self {
        let task = Self::default();
        let worker = task.clone();
        let spawned = std::thread::Builder::new().name("sha256".into()).spawn(move || {
            let digest = file_sha256(&path).map_err(|error| format!("{}: {error}", path.display()));
            if let Ok(digest) = &digest {
                keep(digest);
            }
            worker.set(digest);
        });
        if let Err(error) = spawned {
            task.set(Err(error.to_string()));
        }
        task
    }

    /// The digest in hex. Waits for it.
    pub(crate) fn wait(&self) -> Result<String, String> {
        let mut digest = self.shared.digest.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(known) = &*digest {
                return known.clone();
            }
            digest = self.shared.done.wait(digest).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn set(&self, digest: Result<String, String>) {
        *self.shared.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
        self.shared.done.notify_all();
    }
}

fn file_sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut bytes = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut bytes)?;
        if length == 0 {
            break;
        }
        hasher.update(bytes.get(..length).unwrap_or_default());
    }
    let mut hex = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}
