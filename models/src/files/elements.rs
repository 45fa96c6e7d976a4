//! Parts of a tensor's elements, as numbers.

use std::borrow::Cow;

use latentd_kernels::{WeightDtype, Weights};

use super::mapped::MappedFile;
use crate::Result;
use crate::error::bail;

/// Bytes that are read at once: what they become is made while they are in a first or second-level cache.
const TOGETHER: usize = 16 << 10;

/// The elements of one tensor.
pub(crate) struct Elements<'a> {
    pub(super) dtype: WeightDtype,
    pub(super) source: Source<'a>,
}

/// Where they are.
pub(super) enum Source<'a> {
    /// In a file from this byte on. Read, not mapped: a page that is touched once costs more to map than to copy.
    File(&'a MappedFile, usize),
    Bytes(Cow<'a, [u8]>),
}

impl Elements<'_> {
    /// Those from `first` on, as many as there is room for.
    pub(crate) fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let (dtype, size) = (self.dtype, self.dtype.size());
        match &self.source {
            Source::File(file, start) => {
                let mut buffer = [0; TOGETHER];
                let mut from = start + first * size;
                for out in out.chunks_mut(TOGETHER / size) {
                    let bytes = buffer.get_mut(..out.len() * size).unwrap_or_default();
                    file.read_at(from, bytes)?;
                    Weights { dtype, bytes }.widen(out);
                    from += bytes.len();
                }
            }
            Source::Bytes(bytes) => {
                let part = bytes.get(first * size..).and_then(|bytes| bytes.get(..out.len() * size));
                let Some(bytes) = part else {
                    bail!("{} elements from {first} on, which a tensor has not", out.len())
                };
                Weights { dtype, bytes }.widen(out);
            }
        }
        Ok(())
    }
}
