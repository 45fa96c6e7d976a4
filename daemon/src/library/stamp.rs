//! What tells a file from another one that stood, or will stand, in its place.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use latentd_models::files::config_beside;

use super::model_folder::{self, DEPTH};

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

    /// Of a folder that is one model: the bytes of all that is in it, the latest of its times.
    pub(super) fn of_folder(metadata: &Metadata, path: &Path) -> Self {
        fn add(stamp: &mut Stamp, folder: &Path, depth: usize) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                // Through links, as those have who keep one copy of what several models share.
                let Ok(metadata) = fs::metadata(&path) else {
                    continue;
                };
                let inner = Stamp::of(&metadata);
                stamp.modified_ns = stamp.modified_ns.max(inner.modified_ns);
                stamp.changed_ns = stamp.changed_ns.max(inner.changed_ns);
                if metadata.is_dir() && depth > 0 {
                    add(stamp, &path, depth - 1);
                } else if metadata.is_file() {
                    stamp.size = stamp.size.saturating_add(inner.size);
                }
            }
        }
        let mut stamp = Self { size: 0, ..Self::of(metadata) };
        add(&mut stamp, path, DEPTH);
        stamp
    }

    /// Of a file, or a model's folder, that is open.
    pub(super) fn of_open(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok(Self::of_folder(&metadata, &model_folder::path_of(file)));
        }
        Ok(Self::of(&metadata))
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
    /// A file that is open, or was looked at, as `metadata` says; or a model's folder.
    pub(super) fn of(metadata: &Metadata, path: &Path) -> Self {
        Self::listed(metadata, path, !metadata.is_dir())
    }

    /// The same where it is known whether there is a configuration.
    pub(super) fn listed(metadata: &Metadata, path: &Path, has_config: bool) -> Self {
        if metadata.is_dir() {
            return Self { file: Stamp::of_folder(metadata, path), config: None };
        }
        let config = if has_config { Stamp::at(&config_beside(path)) } else { None };
        Self { file: Stamp::of(metadata), config }
    }

    /// What stands at `path` now.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata, path))
    }
}
