//! The bytes of a pickle, one after the other.

use std::str::FromStr;

use super::refusal::{Wrong, beyond};

/// Bytes of one pickle. That of SD 1.5 with its training state has 1 MB.
pub(super) const LARGEST: usize = 32 << 20;

pub(super) struct Cursor<'a> {
    pub rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Wrong> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Wrong::CutOff)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Wrong::CutOff)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A whole number of so many bytes, little-endian.
    pub(super) fn number(&mut self, bytes: usize) -> Result<u64, Wrong> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A text or bytes behind a length of so many bytes.
    pub(super) fn counted(&mut self, bytes: usize) -> Result<&'a [u8], Wrong> {
        let length = self.number(bytes)?;
        match usize::try_from(length) {
            Ok(length) if length <= LARGEST => self.take(length),
            _ => Err(beyond(&format!("has a text or number of {length} bytes"))),
        }
    }

    /// Up to the end of the line, which goes.
    pub(super) fn line(&mut self) -> Result<&'a [u8], Wrong> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or(Wrong::CutOff)?;
        let line = self.take(end)?;
        self.take(1)?;
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }

    pub(super) fn line_number<T: FromStr>(&mut self) -> Result<Option<T>, Wrong> {
        let line = self.line()?;
        Ok(std::str::from_utf8(line).ok().and_then(|line| line.trim_end_matches('L').parse().ok()))
    }
}
