//! Why a file is not read.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::pickle::Wrong;
use crate::Error;

/// Because of what is in it, or because the system did not let it be read; in words that follow its name.
pub(super) enum Refusal {
    File(String),
    Unread(String),
}

pub(super) const CUT_OFF: &str = "is cut off; copy or download it again";

impl Refusal {
    pub(super) fn of(self, path: &Path) -> Error {
        match self {
            Self::File(reason) => Error::file(path, reason),
            Self::Unread(reason) => Error::unread(path, reason),
        }
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::File(reason)
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self::File(reason.to_owned())
    }
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Self {
        Self::File(wrong.into())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::File(CUT_OFF.to_owned()),
            ErrorKind::InvalidData | ErrorKind::InvalidInput => Self::File(unsound(&error)),
            _ => Self::Unread(error.to_string()),
        }
    }
}

/// What a reader says, with what to do.
pub(super) fn unsound(error: &dyn Display) -> String {
    format!("is no sound PyTorch file: {error}; copy or download it again")
}
