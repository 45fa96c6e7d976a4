//! What a plugin's functions fail with.

use crate::abi::{
    LATENTD_CANCELLED, LATENTD_FAILED, LATENTD_INVALID, LATENTD_MODEL, LATENTD_UNSUPPORTED, latentd_status,
};

/// A result of a plugin's function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a function fails: a code and a text for whoever asked for the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// One of the ABI's codes.
    pub status: latentd_status,
    /// What is wrong, and what to do; lower case, no full stop. Empty if the host knows it: a service said so.
    pub text: String,
}

impl Error {
    /// With one of the ABI's codes.
    pub fn new(status: latentd_status, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// Something went wrong in the plugin.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(LATENTD_FAILED, text)
    }

    /// What the user sent is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(LATENTD_INVALID, text)
    }

    /// This host or model cannot do it.
    pub fn unsupported(text: impl Into<String>) -> Self {
        Self::new(LATENTD_UNSUPPORTED, text)
    }

    /// A file is not what it should be.
    pub fn model(text: impl Into<String>) -> Self {
        Self::new(LATENTD_MODEL, text)
    }

    /// The job was cancelled.
    pub fn cancelled() -> Self {
        Self::new(LATENTD_CANCELLED, "")
    }

    /// What a service answered, unless it is success. Its text is with the host.
    pub(crate) fn of_service(status: latentd_status) -> Result<()> {
        if status == 0 { Ok(()) } else { Err(Self::new(status, "")) }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.text.is_empty() { write!(f, "status {}", self.status) } else { f.write_str(&self.text) }
    }
}

impl std::error::Error for Error {}
