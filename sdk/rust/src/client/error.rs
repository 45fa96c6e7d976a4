//! What can go wrong between a program and its daemon.

use std::io;
use std::path::PathBuf;

use crate::codec::CodecError;
use crate::protocol::WireError;

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No daemon listens there.
    #[error("cannot connect to {}: {error}; start a daemon with `latentd serve`", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// What listens there is not this user's, or may not be. Nothing was sent.
    #[error(
        "not connected to {}: {reason}; set XDG_RUNTIME_DIR, or give another socket (--socket, LATENTD_SOCKET)",
        path.display()
    )]
    Unsafe {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The daemon answered with an error, or gave one as its reason to end the connection.
    #[error("{0}")]
    Daemon(#[from] WireError),
    /// The connection ended before the answer came.
    #[error("the connection to the daemon ended: {0}")]
    Closed(String),
    /// The daemon sent something that is not the protocol.
    #[error("the daemon sent what is not the protocol: {0}")]
    Protocol(String),
    /// The request cannot be put on the wire.
    #[error("the request cannot be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// The runtime under the blocking client cannot be made.
    #[error("cannot start the client's runtime: {0}")]
    Runtime(io::Error),
}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl Error {
    /// The daemon's error, if it is one.
    pub fn wire(&self) -> Option<&WireError> {
        match self {
            Self::Daemon(error) => Some(error),
            _ => None,
        }
    }
}
