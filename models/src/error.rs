//! What can go wrong between a file and a picture, with the operands that say where.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything this crate reports. Each variant is one class of answer a caller can give.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or is not what its name says.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file could not be read just now; another time it may.
    #[error("{}: {reason}", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The file is sound, but its tensors do not make a model.
    #[error("{}: {reason}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Which tensors are missing, extra or of the wrong shape.
        reason: String,
    },
    /// The request cannot be drawn as it stands.
    #[error("{0}")]
    Request(String),
    /// Sound, but not something this build or model can do.
    #[error("{0}")]
    Unsupported(String),
    /// The request needs more memory than the caller allows.
    #[error("needs about {needed_bytes} bytes of memory, {allowed_bytes} are allowed")]
    Memory {
        /// The estimate.
        needed_bytes: u64,
        /// The limit it was held against.
        allowed_bytes: u64,
    },
    /// The caller's [`crate::pipeline::Watch::cancelled`] said so.
    #[error("cancelled")]
    Cancelled,
    /// A stage refused or failed.
    #[error("{0}")]
    Stage(String),
    /// The numbers went wrong: a picture that is not finite, usually weights that overflow.
    #[error("{0}")]
    NotFinite(String),
    /// A device, or this machine, has no memory left for this.
    #[error("out of memory: {bytes} bytes cannot be had")]
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: u64,
    },
    /// A device failed.
    #[error("{0}")]
    Device(String),
    /// A tensor operation failed; a defect of this program.
    #[error("tensor operation failed: {0}")]
    Compute(String),
}

/// Returns an [`Error::Compute`] with a formatted text.
macro_rules! bail {
    ($($text:tt)*) => {
        return Err($crate::Error::Compute(format!($($text)*)))
    };
}
pub(crate) use bail;

impl Error {
    /// What a panic within a kernel means, where it is no defect: the system had no memory.
    pub fn of_panic(panic: &(dyn std::any::Any + Send)) -> Option<Self> {
        let error = panic.downcast_ref::<latentd_kernels::OutOfMemory>()?;
        Some(Self::OutOfMemory { bytes: error.bytes as u64 })
    }

    pub(crate) fn file(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::File { path: path.into(), reason: shortened(reason.into()) }
    }

    pub(crate) fn unread(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Unread { path: path.into(), reason: shortened(reason.into()) }
    }

    pub(crate) fn model(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Model { path: path.into(), reason: shortened(reason.into()) }
    }
}

/// Names and shapes in a file can be megabytes long; an error, which ends up in logs and on the wire, cannot.
fn shortened(mut reason: String) -> String {
    const LONGEST: usize = 2000;
    if reason.len() > LONGEST {
        reason.truncate(reason.floor_char_boundary(LONGEST));
        reason.push('…');
    }
    reason
}
