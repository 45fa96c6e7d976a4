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

/// What a shell says of a command that Ctrl-C ended.
const CANCELLED: u8 = 130;

impl Failure {
    /// It went wrong.
    pub(super) fn new(text: impl Display) -> Self {
        Self { text: text.to_string(), code: 1 }
    }

    /// Whoever read what it prints has enough of it: nothing went wrong, and nothing more is to be printed.
    pub(super) fn reader_gone() -> Self {
        Self { text: String::new(), code: 0 }
    }

    /// Somebody ended it.
    pub(super) fn cancelled() -> Self {
        Self { text: "cancelled".into(), code: CANCELLED }
    }

    /// Whether somebody ended it.
    pub(super) fn is_cancelled(&self) -> bool {
        self.code == CANCELLED
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
            Some(ErrorName::Cancelled) => CANCELLED,
            _ => 1,
        };
        Self { text: error.to_string(), code }
    }
}
