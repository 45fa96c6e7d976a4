//! A `.gguf` file as stable-diffusion.cpp, `gguf` and others write it: header checked against the file's size, tensors as
//! slices of its bytes. What the bytes of quantised ones mean is told in `quantised`.
//!
//! The format: `docs/gguf.md` of ggml. Sizes stand there with the fastest first, and are turned round here.

use std::collections::BTreeMap;
use std::ops::Range;

use super::bytes::FileBytes;
use super::container::{ElementType, Entry};
use super::header::{LARGEST_HEADER, MOST_TENSORS, MOST_TEXTS};
use super::slices::Slices;
use super::tensors::Tensors;
use crate::{Error, Result};

/// What every such file begins with.
const MAGIC: &[u8] = b"GGUF";

/// The versions that are read; they differ in the byte order of machines that nobody has.
const VERSIONS: [u32; 2] = [2, 3];

/// The key of what tensors' places are multiples of, and what they are where it is missing.
const ALIGNMENT: &str = "general.alignment";
const USUAL_ALIGNMENT: usize = 32;

/// As ggml has it.
const MOST_DIMENSIONS: u32 = 4;

/// Begins the keys of the shapes that tensors had before ComfyUI-GGUF gave them rows of whole blocks; the name follows.
const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";

/// Sizes in one of those.
const MOST_ORIGINAL: u64 = 8;

/// Whether a file that begins so is one.
pub(super) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Checks the header: counts and lengths within the file, types that are known, no tensor outside the file or over another.
pub(super) fn read(file: FileBytes) -> Result<Tensors> {
    let read = Header { bytes: file.bytes(), position: 0 }.read();
    // Zeros may have been read where there was something.
    file.check()?;
    let Contents { entries, places, metadata } = read.map_err(|reason| Error::file(file.path(), reason))?;
    Ok(Tensors::new(Box::new(Slices { format: "GGUF", file, places, metadata }), entries))
}

/// What a header says.
struct Contents {
    entries: BTreeMap<String, Entry>,
    places: Vec<Range<usize>>,
    metadata: BTreeMap<String, String>,
}

/// A tensor, before it is known where the tensors begin.
struct Info {
    name: String,
    shape: Vec<usize>,
    dtype: ElementType,
    size: usize,
    offset: u64,
}

/// Reads a header from its beginning; errors are reasons without the file's name.
struct Header<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Header<'_> {
    fn read(mut self) -> Result<Contents, String> {
        self.take(MAGIC.len())?;
        let version = self.u32()?;
        if VERSIONS.contains(&version.swap_bytes()) {
            return Err(
                "is GGUF of a machine whose byte order is the other way round; convert it again without \
                        --bigendian"
                    .to_owned(),
            );
        }
        if !VERSIONS.contains(&version) {
            return Err(format!(
                "is GGUF version {version}; versions 2 and 3 are read: convert the model again with a newer program"
            ));
        }
        let tensors = self.count("tensors", MOST_TENSORS)?;
        let pairs = self.count("key-values", MOST_TEXTS)?;

        let (mut metadata, mut originals) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..pairs {
            let key = self.text()?.to_owned();
            let wrong = |reason| format!("key {key}: {reason}");
            let value = if let Some(name) = key.strip_prefix(ORIGINAL_SHAPE) {
                originals.insert(name.to_owned(), self.original_shape().map_err(wrong)?);
                None
            } else {
                self.value().map_err(wrong)?
            };
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("is not sound GGUF: it has key {key} twice"));
            }
        }
        let alignment = alignment(metadata.get(ALIGNMENT).and_then(Option::as_ref))?;
        let infos: Vec<Info> = (0..tensors).map(|_| self.info()).collect::<Result<_, _>>()?;

        let start = self.position.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
        let mut entries = BTreeMap::new();
        let mut places = vec![];
        for Info { name, shape, dtype, size, offset } in infos {
            if !offset.is_multiple_of(alignment as u64) {
                return Err(format!("tensor {name} begins at {offset}, which is no multiple of {alignment}"));
            }
            let begin = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(start));
            let place = begin.and_then(|begin| Some(begin..begin.checked_add(size)?));
            let Some(place) = place.filter(|place| place.end <= self.bytes.len()) else {
                return Err(format!(
                    "is cut off: tensor {name} of {size} bytes begins at {offset} of what follows the header, file \
                     {} bytes; copy or download it again",
                    self.bytes.len()
                ));
            };
            if entries.contains_key(&name) {
                return Err(format!("is not sound GGUF: it has tensor {name} twice"));
            }
            let shape = match originals.remove(&name) {
                Some(original) if elements(&original) == elements(&shape) => original,
                Some(original) => {
                    return Err(format!(
                        "tensor {name} is {shape:?}, and was {original:?} by {ORIGINAL_SHAPE}{name}, which is of another \
                         number of elements"
                    ));
                }
                None => shape,
            };
            entries.insert(name, Entry { shape, dtype, place: places.len() });
            places.push(place);
        }
        check_overlap(&entries, &places)?;
        let metadata = metadata.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Ok(Contents { entries, places, metadata })
    }

    /// A tensor's name, sizes, type and place.
    fn info(&mut self) -> Result<Info, String> {
        let name = self.text()?.to_owned();
        let dimensions = self.u32()?;
        if dimensions > MOST_DIMENSIONS {
            return Err(format!("tensor {name} has {dimensions} dimensions, {MOST_DIMENSIONS} are the most"));
        }
        let sizes: Vec<u64> = (0..dimensions).map(|_| self.u64()).collect::<Result<_, _>>()?;
        let (code, offset) = (self.u32()?, self.u64()?);
        let dtype = element_type(code).map_err(|named| {
            format!(
                "tensor {name} is of type {named}, which is not read; use a version of the file in f16 or q8_0, or one \
                 of q2_k to q6_k"
            )
        })?;
        let Some((block, bytes)) = dtype.block() else {
            return Err(format!("tensor {name} is of a type without a size"));
        };
        let row = sizes.first().copied().unwrap_or(1);
        if !row.is_multiple_of(block as u64) {
            return Err(format!(
                "tensor {name} has rows of {row} elements, which are no whole blocks of {}: {block} each",
                dtype.name()
            ));
        }
        let shape: Option<Vec<usize>> = sizes.iter().rev().map(|size| usize::try_from(*size).ok()).collect();
        let shape = shape.filter(|shape| !shape.contains(&0));
        let all = shape.as_deref().and_then(elements);
        let size = all.and_then(|all| (all / block).checked_mul(bytes));
        let (Some(shape), Some(size)) = (shape, size) else {
            return Err(format!("tensor {name} has sizes {sizes:?}, which no tensor has"));
        };
        Ok(Info { name, shape, dtype, size, offset })
    }

    /// A value as a text; nothing for a list, which is passed over.
    fn value(&mut self) -> Result<Option<String>, String> {
        const TEXT: u32 = 8;
        const LIST: u32 = 9;
        let kind = self.u32()?;
        if kind != LIST {
            return self.scalar(kind).map(Some);
        }
        let kind = self.u32()?;
        let count = self.u64()?;
        if kind == TEXT {
            // Each takes 8 bytes at least, so the file's end ends this.
            for _ in 0..count {
                self.text()?;
            }
            return Ok(None);
        }
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            LIST => return Err("is a list of lists, which GGUF does not have".to_owned()),
            _ => return Err(unknown_kind(kind)),
        };
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
        self.take(bytes.unwrap_or(usize::MAX))?;
        Ok(None)
    }

    /// A list of sizes, the slowest first.
    fn original_shape(&mut self) -> Result<Vec<usize>, String> {
        const LIST: u32 = 9;
        const INT32: u32 = 5;
        let (kind, of, count) = (self.u32()?, self.u32()?, self.u64()?);
        if (kind, of) != (LIST, INT32) || count > MOST_ORIGINAL {
            return Err(format!("is no shape, which is a list of up to {MOST_ORIGINAL} int32"));
        }
        let size = |header: &mut Self| {
            let size = i32::from_le_bytes(header.array()?);
            usize::try_from(size).map_err(|_| format!("is no shape: it has a size of {size}"))
        };
        (0..count).map(|_| size(self)).collect()
    }

    fn scalar(&mut self, kind: u32) -> Result<String, String> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).to_string(),
            1 => i8::from_le_bytes(self.array()?).to_string(),
            2 => u16::from_le_bytes(self.array()?).to_string(),
            3 => i16::from_le_bytes(self.array()?).to_string(),
            4 => self.u32()?.to_string(),
            5 => i32::from_le_bytes(self.array()?).to_string(),
            6 => f32::from_le_bytes(self.array()?).to_string(),
            7 => (self.array()? != [0u8]).to_string(),
            8 => self.text()?.to_owned(),
            10 => self.u64()?.to_string(),
            11 => i64::from_le_bytes(self.array()?).to_string(),
            12 => f64::from_le_bytes(self.array()?).to_string(),
            _ => return Err(unknown_kind(kind)),
        })
    }

    /// A number of things, each of which takes more than a byte.
    fn count(&mut self, what: &str, most: usize) -> Result<usize, String> {
        let count = self.u64()?;
        usize::try_from(count).ok().filter(|count| *count <= most).ok_or_else(|| {
            format!("its header has {count} {what}, {most} are believed; it is no model, or damaged")
        })
    }

    fn text(&mut self) -> Result<&str, String> {
        let length = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        let at = self.position;
        std::str::from_utf8(self.take(length)?)
            .map_err(|_| format!("is not sound GGUF: what stands at byte {at} is no UTF-8 text"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.first_chunk().copied().ok_or_else(|| "is cut off".to_owned())
    }

    fn take(&mut self, length: usize) -> Result<&[u8], String> {
        let at = self.position;
        let end = at.checked_add(length);
        let taken = end.and_then(|end| Some((end, self.bytes.get(at..end)?)));
        let Some((end, taken)) = taken else {
            return Err(format!(
                "is cut off or damaged: its header wants {length} bytes at byte {at}, file {} bytes; copy or download \
                 it again",
                self.bytes.len()
            ));
        };
        if end > LARGEST_HEADER {
            return Err(format!("its header is longer than the {LARGEST_HEADER} bytes that are allowed"));
        }
        self.position = end;
        Ok(taken)
    }
}

/// What tensors' places are multiples of.
fn alignment(told: Option<&String>) -> Result<usize, String> {
    let Some(told) = told else { return Ok(USUAL_ALIGNMENT) };
    let alignment = told.parse::<u32>().ok().filter(|told| told.is_power_of_two());
    let refused = || format!("is not sound GGUF: {ALIGNMENT} is {told:?}, no power of 2");
    alignment.map(|told| told as usize).ok_or_else(refused)
}

/// The number of a tensor's elements; `None` beyond all numbers.
fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size))
}

fn check_overlap(entries: &BTreeMap<String, Entry>, places: &[Range<usize>]) -> Result<(), String> {
    let mut sorted: Vec<_> =
        entries.iter().filter_map(|(name, entry)| Some((places.get(entry.place)?, name))).collect();
    sorted.sort_unstable_by_key(|(place, _)| place.start);
    for pair in sorted.windows(2) {
        if let [(first, one), (second, other)] = pair
            && second.start < first.end
        {
            return Err(format!("is not sound GGUF: tensors {one} and {other} overlap"));
        }
    }
    Ok(())
}

fn unknown_kind(kind: u32) -> String {
    format!("is of value type {kind}, which GGUF does not have; the file is damaged or of a later version")
}

/// The type by its number in a file; else its name, or its number where it has none here.
fn element_type(code: u32) -> Result<ElementType, String> {
    let unread = match code {
        0 => return Ok(ElementType::F32),
        1 => return Ok(ElementType::F16),
        2 => return Ok(ElementType::Q4_0),
        3 => return Ok(ElementType::Q4_1),
        6 => return Ok(ElementType::Q5_0),
        7 => return Ok(ElementType::Q5_1),
        8 => return Ok(ElementType::Q8_0),
        10 => return Ok(ElementType::Q2K),
        11 => return Ok(ElementType::Q3K),
        12 => return Ok(ElementType::Q4K),
        13 => return Ok(ElementType::Q5K),
        14 => return Ok(ElementType::Q6K),
        15 => return Ok(ElementType::Q8K),
        24 => return Ok(ElementType::I8),
        25 => return Ok(ElementType::I16),
        26 => return Ok(ElementType::I32),
        27 => return Ok(ElementType::I64),
        28 => return Ok(ElementType::F64),
        30 => return Ok(ElementType::Bf16),
        4 => "q4_2",
        5 => "q4_3",
        9 => "q8_1",
        16 => "iq2_xxs",
        17 => "iq2_xs",
        18 => "iq3_xxs",
        19 => "iq1_s",
        20 => "iq4_nl",
        21 => "iq3_s",
        22 => "iq2_s",
        23 => "iq4_xs",
        29 => "iq1_m",
        31 => "q4_0_4_4",
        32 => "q4_0_4_8",
        33 => "q4_0_8_8",
        34 => "tq1_0",
        35 => "tq2_0",
        36 => "iq4_nl_4_4",
        37 => "iq4_nl_4_8",
        38 => "iq4_nl_8_8",
        39 => "mxfp4",
        40 => "nvfp4",
        _ => return Err(format!("number {code}")),
    };
    Err(unread.to_owned())
}
