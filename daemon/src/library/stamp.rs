//! What tells a file from another one that stood, or will stand, in its place.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use latentd_models::files::config_beside;

/// A file as it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    pub size: u64,
    /// Nanoseconds since 1970. Copies and archives set it to what it was.
    pub modified_ns: i64,
    /// When anything about it last changed, its name and rights too, in nanoseconds since 1970. Nobody can set it.
    pub changed_ns: i64,
    pub device: u64,
    pub inode: u64,
}

/// A weight file and what was said beside it, as both were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub file: Stamp,
    /// Of the configuration with the file's name, if there is one.
    pub config: Option<Stamp>,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let time = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            size: metadata.len(),
            modified_ns: time(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: time(metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Of what stands at `path`, through links.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    /// Device and inode: two names of one file have the same.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether this, of a file that was held open, has still the bytes it had. Not by the time of its last change:
    /// who removes or renames it changes that, and no byte.
    pub(super) fn has_bytes_of(&self, before: &Self) -> bool {
        (self.place(), self.size, self.modified_ns) == (before.place(), before.size, before.modified_ns)
    }
}

impl Seen {
    /// A file that is open, or was looked at, as `metadata` says.
    pub(super) fn of(metadata: &Metadata, path: &Path) -> Self {
        Self { file: Stamp::of(metadata), config: Stamp::at(&config_beside(path)) }
    }

    /// What stands at `path` now.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata, path))
    }
}
