//! What can go wrong in the daemon: a class, and a text that says what is wrong and what to do.
//!
//! Everything but `rpc` works with this type; on the wire it becomes the protocol's [`WireError`].

use std::fmt;

use latentd_client::protocol::{ErrorName, WireError};

/// A result of the daemon.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Classes of errors: what somebody can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A defect of the daemon, or the machine failed it (disk full).
    Internal,
    /// The request is wrong; sending it again will not help.
    InvalidParams,
    /// No such method, job, model or file.
    NotFound,
    /// A limit is reached; later it may work.
    Busy,
    /// Somebody cancelled the job.
    Cancelled,
    /// A model file is broken, or is not what its place says.
    Model,
    /// It does not fit into the memory budget.
    Memory,
    /// A plugin failed.
    Plugin,
    /// Understood, but this build or model cannot do it.
    Unsupported,
}

impl Class {
    /// Its number, as it is stored and sent.
    pub(crate) fn code(self) -> i64 {
        ErrorName::from(self).code()
    }

    /// The one with this number; one of a newer daemon reads as [`Self::Internal`].
    pub(crate) fn from_code(code: i64) -> Self {
        match ErrorName::from_code(code) {
            ErrorName::Internal => Self::Internal,
            ErrorName::InvalidParams => Self::InvalidParams,
            ErrorName::NotFound => Self::NotFound,
            ErrorName::Busy => Self::Busy,
            ErrorName::Cancelled => Self::Cancelled,
            ErrorName::Model => Self::Model,
            ErrorName::Memory => Self::Memory,
            ErrorName::Plugin => Self::Plugin,
            ErrorName::Unsupported => Self::Unsupported,
        }
    }
}

/// An error of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    pub class: Class,
    /// What is wrong and what to do; lower case, no full stop.
    pub text: String,
}

impl Error {
    pub(crate) fn new(class: Class, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }

    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(Class::Internal, text)
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(Class::InvalidParams, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(Class::NotFound, text)
    }

    /// As it goes over the wire.
    pub(crate) fn to_wire(&self) -> WireError {
        WireError::new(self.class.into(), self.text.clone())
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", ErrorName::from(self.class).name(), self.text)
    }
}

impl From<Class> for ErrorName {
    fn from(class: Class) -> Self {
        match class {
            Class::Internal => Self::Internal,
            Class::InvalidParams => Self::InvalidParams,
            Class::NotFound => Self::NotFound,
            Class::Busy => Self::Busy,
            Class::Cancelled => Self::Cancelled,
            Class::Model => Self::Model,
            Class::Memory => Self::Memory,
            Class::Plugin => Self::Plugin,
            Class::Unsupported => Self::Unsupported,
        }
    }
}

impl From<latentd_models::Error> for Error {
    fn from(error: latentd_models::Error) -> Self {
        use latentd_models::Error as Models;
        let class = match error {
            Models::File { .. } | Models::Unread { .. } | Models::Model { .. } | Models::NotFinite(_) => {
                Class::Model
            }
            Models::Request(_) => Class::InvalidParams,
            Models::Unsupported(_) => Class::Unsupported,
            Models::Memory { .. } | Models::OutOfMemory { .. } => Class::Memory,
            Models::Cancelled => Class::Cancelled,
            Models::Stage(_) => Class::Plugin,
            Models::Compute(_) | Models::Device(_) => Class::Internal,
        };
        let advice = match class {
            Class::Memory => "; draw smaller or fewer pictures at once, or raise memory_bytes",
            Class::Cancelled => " while it was drawn",
            _ => "",
        };
        Self::new(class, format!("{error}{advice}"))
    }
}
