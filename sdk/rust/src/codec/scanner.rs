//! Finds where one MessagePack value ends, without building it.

use super::limits::{CodecError, Limits};

/// The place reached in one value. Between calls it keeps how far it came, so bytes are looked at once however
/// they are cut; arrays and maps are counted on a small stack instead of by recursion.
#[derive(Clone, Debug)]
pub struct Scanner {
    limits: Limits,
    /// Offset of the next header. May lie behind the bytes seen so far: payloads are stepped over.
    position: u64,
    elements: u64,
    /// Values still to come in each open array or map, outermost first.
    open: Vec<u64>,
    /// A value has begun; with `open` empty it is complete.
    begun: bool,
}

/// One header: its own length, the payload's, and how many values follow inside.
struct Header {
    length: u64,
    payload: u64,
    children: u64,
    container: bool,
}

impl Scanner {
    /// At the start of a value.
    pub fn new(limits: Limits) -> Self {
        Self { limits, position: 0, elements: 0, open: Vec::new(), begun: false }
    }

    /// Looks at all bytes of the value received so far (the same ones as before, and more) and gives its
    /// length once it is complete.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, CodecError> {
        loop {
            if self.begun && self.open.is_empty() {
                let end = usize::try_from(self.position).unwrap_or(usize::MAX);
                return Ok((end <= bytes.len()).then_some(end));
            }
            let rest = usize::try_from(self.position).ok().and_then(|start| bytes.get(start..));
            let Some(header) = rest.map(|rest| self.header(rest)).transpose()?.flatten() else {
                return Ok(None);
            };
            self.enter(&header)?;
        }
    }

    /// Steps over a header and its payload, and opens or closes the arrays and maps around it.
    fn enter(&mut self, header: &Header) -> Result<(), CodecError> {
        self.begun = true;
        self.position += header.length + header.payload;
        self.elements += 1;
        if let Some(left) = self.open.last_mut() {
            *left -= 1;
        }
        if header.container && header.children > 0 {
            if self.open.len() >= self.limits.depth {
                return Err(CodecError::TooDeep { limit: self.limits.depth });
            }
            self.open.push(header.children);
        }
        while self.open.last() == Some(&0) {
            self.open.pop();
        }
        // Each value still owed takes at least one byte: a claim is refused before its bytes come.
        let owed = self.open.iter().fold(0u64, |sum, left| sum.saturating_add(*left));
        let needed = self.elements.saturating_add(owed);
        if needed > self.limits.elements {
            return Err(CodecError::TooMany { needed, limit: self.limits.elements });
        }
        let needed = self.position.saturating_add(owed);
        if needed > self.limits.bytes as u64 {
            return Err(CodecError::TooLong { needed, limit: self.limits.bytes });
        }
        Ok(())
    }

    /// Reads the header at the start of `bytes`; `None` when it is not all there.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, CodecError> {
        let Some((&marker, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let scalar = |payload: u64| Header { length: 1, payload, children: 0, container: false };
        let container = |children: u64| Header { length: 1, payload: 0, children, container: true };
        let header = match marker {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => scalar(0),
            0x80..=0x8f => container(u64::from(marker & 0x0f) * 2),
            0x90..=0x9f => container(u64::from(marker & 0x0f)),
            0xa0..=0xbf => scalar(u64::from(marker & 0x1f)),
            0xc1 => {
                return Err(CodecError::Reserved {
                    offset: usize::try_from(self.position).unwrap_or(usize::MAX),
                });
            }
            0xcc | 0xd0 => scalar(1),
            0xcd | 0xd1 => scalar(2),
            0xca | 0xce | 0xd2 => scalar(4),
            0xcb | 0xcf | 0xd3 => scalar(8),
            // fixext: a type byte and 1, 2, 4, 8 or 16 bytes
            0xd4..=0xd8 => scalar(1 + (1 << (marker - 0xd4))),
            // bin, ext and str with a length of 1, 2 or 4 bytes; ext has a type byte more
            0xc4..=0xc6 => return Ok(sized(rest, 1 << (marker - 0xc4), 0)),
            0xc7..=0xc9 => return Ok(sized(rest, 1 << (marker - 0xc7), 1)),
            0xd9..=0xdb => return Ok(sized(rest, 1 << (marker - 0xd9), 0)),
            0xdc | 0xdd => return Ok(counted(rest, 2 << (marker - 0xdc), 1)),
            0xde | 0xdf => return Ok(counted(rest, 2 << (marker - 0xde), 2)),
        };
        Ok(Some(header))
    }
}

/// A scalar whose payload length stands in the next `width` bytes, `extra` bytes longer.
fn sized(rest: &[u8], width: usize, extra: u64) -> Option<Header> {
    let payload = big_endian(rest.get(..width)?) + extra;
    Some(Header { length: 1 + width as u64, payload, children: 0, container: false })
}

/// An array or map whose count stands in the next `width` bytes, `each` values per entry.
fn counted(rest: &[u8], width: usize, each: u64) -> Option<Header> {
    let children = big_endian(rest.get(..width)?) * each;
    Some(Header { length: 1 + width as u64, payload: 0, children, container: true })
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
