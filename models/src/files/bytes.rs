//! A file's bytes: mapped, or held in memory.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::mapped::MappedFile;
use crate::Result;

/// Bytes under the name that errors give them.
pub(super) enum FileBytes {
    /// Of a file on disk.
    Mapped(MappedFile),
    /// Of no file, or of one that was read already.
    Held {
        /// What errors call them.
        name: PathBuf,
        /// All of them.
        bytes: Vec<u8>,
    },
}

impl FileBytes {
    /// The file, or the name that stands for one.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Mapped(file) => file.path(),
            Self::Held { name, .. } => name,
        }
    }

    /// All of them. Zeros where a mapped file was cut off since; [`Self::check`] tells.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => file.bytes(),
            Self::Held { bytes, .. } => bytes,
        }
    }

    /// Lets go of the memory behind these bytes where there is a file to read them from again.
    pub(super) fn let_go(&self, range: Range<usize>) {
        match self {
            Self::Mapped(file) => file.let_go(range),
            Self::Held { .. } => {}
        }
    }

    /// An error if anything read so far was no longer there.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Mapped(file) => file.check(),
            Self::Held { .. } => Ok(()),
        }
    }
}
