//! From bytes as they are received to whole values.

use rmpv::Value;

use super::limits::{CodecError, Limits};
use super::scanner::Scanner;

/// Capacity above which an emptied buffer is given back.
const KEEP_CAPACITY: usize = 256 << 10;

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

    /// Where bytes can be received without being copied: they are to be added at the end, for which there is room for
    /// `bytes` more.
    pub fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.buffer.reserve(bytes);
        &mut self.buffer
    }

    /// Bytes that belong to no message that was given out.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.consumed
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
