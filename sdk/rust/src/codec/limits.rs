//! What one message may cost, and how it is said that it costs more.

/// What one message may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one encoded message.
    pub bytes: usize,
    /// Values in one message: each array, map, key and scalar counts as one.
    pub elements: u64,
    /// Arrays and maps inside each other.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 256 << 20, elements: 1 << 20, depth: 64 }
    }
}

/// Why a stream of bytes cannot be read further. There is no way to find the next message after any of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The one byte MessagePack never uses.
    #[error("byte 0xc1 at offset {offset} of the message is not MessagePack")]
    Reserved {
        /// Where, from the start of the message.
        offset: usize,
    },
    /// The message is, or says it will be, too long.
    #[error("message needs at least {needed} bytes, {limit} are allowed")]
    TooLong {
        /// What its headers claim so far.
        needed: u64,
        /// [`Limits::bytes`].
        limit: usize,
    },
    /// The message has, or says it will have, too many values.
    #[error("message has at least {needed} values, {limit} are allowed")]
    TooMany {
        /// What its headers claim so far.
        needed: u64,
        /// [`Limits::elements`].
        limit: u64,
    },
    /// Arrays or maps lie too deep in each other.
    #[error("message is nested deeper than {limit}")]
    TooDeep {
        /// [`Limits::depth`].
        limit: usize,
    },
    /// The bytes end as a value should, but do not make one.
    #[error("message cannot be decoded: {0}")]
    Malformed(String),
}
