//! Folders that users name, any of which may not answer: a network share whose server is gone, a disk that is frozen.
//!
//! Nothing can end an operation on such a folder, so as few as possible are begun, and nobody waits for one longer than
//! it is good for.

mod under_way;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Class, Error};
use crate::workers::Workers;
pub(crate) use under_way::Operation;
use under_way::UnderWay;
pub(crate) use write::Unwritten;

/// How long a file that is written may take between its begin and its end.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);

/// What goes on in the folders that users name.
pub(crate) struct Folders {
    under_way: Arc<UnderWay>,
    writers: Workers,
    written_within: Duration,
}

impl Folders {
    pub(crate) fn new() -> Self {
        Self::written_within(WRITTEN_WITHIN)
    }

    /// As [`Self::new`], with another limit on the time that a file takes.
    pub(crate) fn written_within(written_within: Duration) -> Self {
        let writers = Workers::growing("write", 1);
        Self { under_way: Arc::new(UnderWay::default()), writers, written_within }
    }

    /// Makes a folder one that has not answered for long, while what this gives is held.
    #[cfg(test)]
    pub(crate) fn silence(&self, folder: &Path) -> [Operation; 2] {
        self.under_way.wait_in(folder, self.written_within)
    }

    /// Does `work`, which looks into `folder`, on the caller's time; refuses it where others have been waiting for that
    /// folder. What `work` hears of the folder meanwhile it tells its [`Operation`].
    pub(crate) fn ask<T>(&self, folder: &Path, work: impl FnOnce(&Operation) -> T) -> Result<T, Silent> {
        let operation = self.under_way.begin(folder).ok_or_else(|| Silent(folder.to_owned()))?;
        Ok(work(&operation))
    }
}

/// A folder that does not answer.
#[derive(Debug, thiserror::Error)]
#[error("{} does not answer; see whether its disk or server is there, or give another folder", .0.display())]
pub(crate) struct Silent(PathBuf);

impl Silent {
    /// As the error of `field`, which names the folder.
    pub(crate) fn in_field(&self, field: &str) -> Error {
        Error::new(Class::Busy, format!("{field}: {self}"))
    }
}

/// What to do where a file cannot be made.
pub(crate) fn advice(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{FileTooLarge, NotADirectory, NotFound, QuotaExceeded, StorageFull};
    match error.kind() {
        NotFound => "make it first",
        NotADirectory => "give a folder",
        StorageFull | QuotaExceeded | FileTooLarge => "make room",
        // Such as a folder of somebody else, or a disk that can only be read.
        _ => "give another folder",
    }
}
