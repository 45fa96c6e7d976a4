//! Why a command did not do what it was asked to, and the exit code for it.

use std::fmt::Display;

use latentd_client::Error;
use latentd_client::protocol::ErrorName;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(super) struct Failure {
    /// What is said of it; nothing if empty.
    pub text: String,
    pub code: u8,
}

impl Failure {
    /// It went wrong.
    pub(super) fn new(text: impl Display) -> Self {
        Self { text: text.to_string(), code: 1 }
    }

    /// Whoever read what it prints has enough of it: nothing went wrong, and nothing more is to be printed.
    pub(super) fn reader_gone() -> Self {
        Self { text: String::new(), code: 0 }
    }

    /// It was asked wrongly.
    pub(super) fn usage(text: impl Display) -> Self {
        Self { text: text.to_string(), code: 2 }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.wire().map(|error| error.name) {
            Some(ErrorName::InvalidParams) => 2,
            Some(ErrorName::Cancelled) => 130,
            _ => 1,
        };
        Self { text: error.to_string(), code }
    }
}
