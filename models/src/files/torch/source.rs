//! Where a file's storages are: what each age of PyTorch says in its own way.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::ops::Range;

use flate2::read::DeflateDecoder;

use super::object::Tensor;
use super::refusal::Wrong;

/// A storage's bytes in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// As they are.
    Plain(Range<usize>),
    /// Deflated, and how many they become.
    Packed(Range<usize>, usize),
}

impl Place {
    /// In the file.
    pub(super) fn range(&self) -> &Range<usize> {
        match self {
            Self::Plain(range) | Self::Packed(range, _) => range,
        }
    }

    /// Bytes that a tensor may have.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Plain(range) => range.len(),
            Self::Packed(_, length) => *length,
        }
    }
}

/// What a file says, all of it held against its size.
pub(super) struct Source<'a> {
    /// The pickle of the object that was saved.
    pub pickle: Cow<'a, [u8]>,
    pub storages: HashMap<Vec<u8>, Place>,
    /// Tensors that the pickle names only.
    pub outside: BTreeMap<Vec<u8>, Tensor<'a>>,
}

/// So many bytes of a storage from `start`; an error if they are not there.
pub(super) fn bytes<'a>(file: &'a [u8], place: &Place, part: Range<usize>) -> Result<Cow<'a, [u8]>, Wrong> {
    match place {
        Place::Plain(range) => {
            let (start, end) = (range.start.checked_add(part.start), range.start.checked_add(part.end));
            let within = start.zip(end).filter(|(_, end)| *end <= range.end);
            let bytes = within.and_then(|(start, end)| file.get(start..end));
            bytes.map(Cow::Borrowed).ok_or(Wrong::CutOff)
        }
        Place::Packed(range, length) => {
            let packed = file.get(range.clone()).filter(|_| part.end <= *length).ok_or(Wrong::CutOff)?;
            unpacked(packed, part).map(Cow::Owned)
        }
    }
}

/// A part of what deflated bytes become.
pub(super) fn unpacked(packed: &[u8], part: Range<usize>) -> Result<Vec<u8>, Wrong> {
    let damaged = |_| Wrong::from("has damaged packed parts; copy or download it again");
    let mut unpacked = DeflateDecoder::new(packed);
    let before = std::io::copy(&mut unpacked.by_ref().take(part.start as u64), &mut std::io::sink());
    let mut bytes = vec![];
    let count =
        before.and_then(|_| unpacked.take(part.len() as u64).read_to_end(&mut bytes)).map_err(damaged)?;
    if count == part.len() { Ok(bytes) } else { Err(Wrong::CutOff) }
}
