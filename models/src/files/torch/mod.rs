//! PyTorch's own files (`.ckpt`, `.pt`, `.pth`, `.bin`) of every age, read as data: the ZIP archive that it writes since
//! 1.6 ([`archive`]), the stream of pickles before that ([`stream`]), and the tar of 2016 ([`tar`]). Each says where the
//! storages lie in the file and what the pickle is; [`pickle`] reads that without calling or importing anything, [`rebuild`]
//! knows the few calls that stand for tensors, and [`names`] what they are called.
//!
//! Tensors are named by their path: `{"a": {"b": [t]}}` has `a.b.0`. So
//! - a checkpoint's tensors have their names without `state_dict.`, and what else it has is left out;
//! - a textual inversion as A1111 writes it has `string_to_param.*` (`*` is its name, whatever the file's), and in the
//!   metadata `name`, `step`, `sd_checkpoint`, `sd_checkpoint_name`, `string_to_token.*`;
//! - a hypernetwork has `320.0.linear.0.weight` for the keys and `320.1.linear.0.weight` for the values of width 320, and
//!   so on for each width, and in the metadata `layer_structure` ("[1, 2, 1]"), `activation_func`, `name`, `step`;
//! - a module that was saved whole has the names of its `state_dict()`.

mod archive;
mod cursor;
mod names;
mod object;
mod pickle;
mod rebuild;
mod refusal;
mod source;
mod stream;
mod tar;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use object::Tensor;
use pickle::Budget;
use refusal::Wrong;
use source::{Place, Source};

use super::allocate::room;
use super::bytes::FileBytes;
use super::container::{Container, ElementType, Entry};
use super::tensors::Tensors;
use crate::{Error, Result};

/// What a tensor may take beyond the file's length, in bytes: a view can repeat the few elements that its storage has.
const SLACK: usize = 64 << 20;

/// How often all packed storages may be unpacked until each tensor was read.
const MOST_UNPACKED: usize = 16;

/// The containers that torch has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// 1.6 and later.
    Zip,
    /// 0.1.10 to 1.5, and later ones when asked.
    Stream,
    /// Before.
    Tar,
}

/// Whether a file that begins so is torch's, or may be: other archives are ZIP and tar too.
pub(super) fn age(file: &[u8]) -> Option<Age> {
    if file.starts_with(b"PK\x03\x04") || file.starts_with(b"PK\x05\x06") {
        Some(Age::Zip)
    } else if file.get(257..262) == Some(b"ustar") {
        Some(Age::Tar)
    } else {
        stream::begins(file).then_some(Age::Stream)
    }
}

struct Torch {
    file: FileBytes,
    places: Vec<Lying>,
    metadata: BTreeMap<String, String>,
}

/// How a tensor lies in the file. All of it was held against the file's size.
struct Lying {
    storage: Place,
    dtype: ElementType,
    /// Bytes of an element.
    size: usize,
    /// Elements of the storage from the first to the last that is in the tensor.
    part: Range<usize>,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Reads what a file of this age says of its tensors.
pub(super) fn read(file: FileBytes, age: Age) -> Result<Tensors> {
    let read = parse(file.bytes(), age);
    // A file that was cut off meanwhile is not to blame for what it seemed to say.
    file.check()?;
    let (entries, places, metadata) = read.map_err(|wrong| wrong.of(file.path()))?;
    Ok(Tensors::new(Box::new(Torch { file, places, metadata }), entries))
}

type Parsed = (BTreeMap<String, Entry>, Vec<Lying>, BTreeMap<String, String>);

fn parse(file: &[u8], age: Age) -> std::result::Result<Parsed, Wrong> {
    let mut budget = Budget::new();
    let source = match age {
        Age::Zip => archive::open(file)?,
        Age::Stream => stream::open(file, &mut budget)?,
        Age::Tar => tar::open(file, &mut budget)?,
    };
    let pickle = pickle::read(&source.pickle, &mut Budget::new())?;
    let named = names::tensors(&pickle, &source.outside)?;
    if named.is_empty() {
        return Err("is a PyTorch file without named tensors; it is no model".into());
    }
    let mut entries = BTreeMap::new();
    let mut places: Vec<Lying> = vec![];
    for (name, tensor) in named {
        let tensor = tensor.map_err(|class| {
            format!(
                "holds tensor {name} as {class}, which is not read: sparse, quantised and complex ones are not; use a \
                 version in f32, f16 or bf16, or a .safetensors file"
            )
        })?;
        let lying = lying(tensor, &source, file.len()).map_err(|reason| format!("tensor {name} {reason}"))?;
        entries.insert(name, Entry { shape: tensor.shape.clone(), dtype: lying.dtype, place: places.len() });
        places.push(lying);
    }
    check_unpacking(&source, &places)?;
    Ok((entries, places, names::metadata(&pickle)))
}

/// Each tensor of a packed storage is unpacked from the storage's beginning. Of a few that is no harm; where thousands lie
/// in one it would never end.
fn check_unpacking(source: &Source<'_>, places: &[Lying]) -> std::result::Result<(), Wrong> {
    let packed = |place: &Place| matches!(place, Place::Packed(..));
    let all = |lengths: &mut dyn Iterator<Item = usize>| lengths.fold(0, usize::saturating_add);
    let once = all(&mut source.storages.values().filter(|place| packed(place)).map(Place::length));
    let each = all(&mut places.iter().filter(|lying| packed(&lying.storage)).map(|lying| lying.bytes().end));
    if each > once.saturating_mul(MOST_UNPACKED).saturating_add(SLACK) {
        let reason = "has many tensors in one packed storage, which would be unpacked anew for each; save it again with \
                      torch, which does not pack";
        return Err(reason.into());
    }
    Ok(())
}

/// Where a tensor is, or what is wrong with that.
fn lying(tensor: &Tensor<'_>, source: &Source<'_>, length: usize) -> std::result::Result<Lying, String> {
    let (shape, strides, size) = (&tensor.shape, &tensor.strides, tensor.kind.size);
    let storage = source.storages.get(tensor.storage.key.as_ref());
    let storage = storage.ok_or("has no storage in the file; copy or download it again")?;
    let outside = "lies outside its storage; copy or download the file again";
    let extent = rebuild::extent(shape, strides).ok_or(outside)?;
    let end = tensor.offset.checked_add(extent).ok_or(outside)?;
    if end.checked_mul(size).is_none_or(|bytes| bytes > storage.length()) {
        return Err(outside.to_owned());
    }
    let bytes = shape.iter().try_fold(size, |bytes, size| bytes.checked_mul(*size)).ok_or(outside)?;
    if bytes > length.saturating_add(SLACK) {
        return Err(format!("would take {bytes} bytes of a file of {length}; it is no model"));
    }
    Ok(Lying {
        storage: storage.clone(),
        dtype: tensor.kind.dtype.unwrap_or(ElementType::Other),
        size,
        part: tensor.offset..end,
        shape: shape.clone(),
        strides: strides.clone(),
    })
}

impl Lying {
    /// In bytes of the storage.
    fn bytes(&self) -> Range<usize> {
        self.part.start * self.size..self.part.end * self.size
    }

    /// Row by row without a gap. The stride of a dimension of one is never walked.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(size, stride)| {
            let fits = *size <= 1 || *stride == expected;
            expected *= size;
            fits
        })
    }

    /// The elements in the order of the shape, out of the part of the storage that has them, in the room for them.
    fn gathered(&self, part: &[u8], mut gathered: Vec<u8>) -> Option<Vec<u8>> {
        let count: usize = self.shape.iter().product();
        let mut index = vec![0; self.shape.len()];
        for _ in 0..count {
            let at: usize = index.iter().zip(&self.strides).map(|(index, stride)| index * stride).sum();
            gathered.extend_from_slice(part.get(at * self.size..)?.get(..self.size)?);
            for (index, size) in index.iter_mut().zip(&self.shape).rev() {
                *index += 1;
                if *index < *size {
                    break;
                }
                *index = 0;
            }
        }
        Some(gathered)
    }
}

impl Container for Torch {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> &'static str {
        "PyTorch"
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn read(&self, place: usize) -> Result<Cow<'_, [u8]>> {
        let outside = || Error::file(self.path(), "a tensor lies outside the file");
        let lying = self.places.get(place).ok_or_else(outside)?;
        if lying.part.is_empty() {
            return Ok(Cow::default());
        }
        let part = source::bytes(self.file.bytes(), &lying.storage, lying.bytes());
        let part = part.map_err(|wrong| self.check().err().unwrap_or_else(|| wrong.of(self.path())))?;
        let bytes = if lying.is_contiguous() {
            part
        } else {
            let count: usize = lying.shape.iter().product();
            Cow::Owned(lying.gathered(&part, room(count * lying.size)?).ok_or_else(outside)?)
        };
        // Any other byte would be true to one reader and nothing to another.
        if lying.dtype == ElementType::Bool && bytes.iter().any(|byte| *byte > 1) {
            return Ok(Cow::Owned(bytes.iter().map(|byte| u8::from(*byte != 0)).collect()));
        }
        Ok(bytes)
    }

    fn lying(&self, place: usize) -> Option<(&FileBytes, Range<usize>)> {
        let lying = self.places.get(place).filter(|lying| lying.is_contiguous())?;
        let Place::Plain(range) = &lying.storage else { return None };
        let part = lying.bytes();
        let part = range.start.checked_add(part.start)?..range.start.checked_add(part.end)?;
        (part.end <= range.end).then_some((&self.file, part))
    }

    fn let_go(&self, place: usize) {
        if let Some(Lying { storage: Place::Plain(range), .. }) = self.places.get(place) {
            self.file.let_go(range.clone());
        }
    }

    fn check(&self) -> Result<()> {
        self.file.check()
    }
}
