//! MessagePack-RPC messages out of a stream of bytes.
//!
//! MessagePack has no frame length, so a [`Decoder`] first finds where a value ends ([`scanner`]) and only
//! then builds it. The scan takes no memory for what a length claims, keeps its place between reads, and holds
//! a message against [`Limits`] as soon as its headers are seen.

mod message;
mod scanner;
mod typed;

use rmpv::Value;

pub use message::{Message, MessageError, encode_notification, encode_request, encode_response};
pub use scanner::Scanner;
pub use typed::decode_value;

/// Capacity above which an emptied buffer is given back.
const KEEP_CAPACITY: usize = 256 << 10;

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

/// Collects bytes and gives the values that are complete. Memory grows with the bytes received, never with
/// what a header claims.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` which belong to messages already given out.
    consumed: usize,
    scanner: Scanner,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: Vec::new(), consumed: 0, scanner: Scanner::new(limits) }
    }

    /// Adds bytes as they were received.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next complete value; `None` asks for more bytes. After an error the stream is lost.
    pub fn next_value(&mut self) -> Result<Option<Value>, CodecError> {
        let pending = self.buffer.get(self.consumed..).unwrap_or_default();
        let Some(length) = self.scanner.scan(pending)? else {
            self.compact();
            return Ok(None);
        };
        let mut frame = pending.get(..length).unwrap_or_default();
        // The scan has bounded the depth; rmpv counts two and a bit for each of our levels.
        let value = rmpv::decode::read_value_with_max_depth(&mut frame, 2 * self.limits.depth + 4)
            .map_err(|error| CodecError::Malformed(error.to_string()))?;
        self.consumed += length;
        self.scanner = Scanner::new(self.limits);
        Ok(Some(value))
    }

    /// Drops consumed bytes. Done only when no complete message is left, so that many small messages in one
    /// read do not move the rest each time.
    fn compact(&mut self) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        if self.buffer.len() < KEEP_CAPACITY && self.buffer.capacity() > KEEP_CAPACITY * 2 {
            self.buffer.shrink_to(KEEP_CAPACITY);
        }
    }
}
