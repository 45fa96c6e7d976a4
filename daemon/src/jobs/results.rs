//! The folder of results: a file for each.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::whole_file;

const EXTENSION: &str = "msgpack";

/// The folder.
#[derive(Clone)]
pub(super) struct Results {
    folder: PathBuf,
}

impl Results {
    /// `results/` in the state folder.
    pub(super) fn open(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("results") }
    }

    /// Writes a result, whole or not at all.
    pub(super) fn write(&self, id: &str, bytes: &[u8]) -> io::Result<()> {
        whole_file::write(&self.path(id), bytes)
    }

    /// Reads a result.
    pub(super) fn read(&self, id: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(id))
    }

    /// Forgets a result, if there is one.
    pub(super) fn remove(&self, id: &str) {
        fs::remove_file(self.path(id)).ok();
    }

    /// Forgets results of all jobs but these: a daemon that was killed may have left them.
    pub(super) fn retain(&self, known: &HashSet<String>) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let ours = path.extension().is_some_and(|extension| extension == EXTENSION);
            let id = path.file_stem().and_then(|stem| stem.to_str());
            if ours && id.is_some_and(|id| !known.contains(id)) {
                fs::remove_file(&path).ok();
            }
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        // Ids are checked when they come in: no separators, no leading dot.
        self.folder.join(format!("{id}.{EXTENSION}"))
    }
}
