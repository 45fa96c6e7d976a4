//! The tar archive of PyTorch before 0.1.10, with four files: what the machine was, storages, tensors, and the object.
//! Storages and tensors are tables, with a small pickle and then numbers for each.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::pickle::{self, Budget};
use super::refusal::{CUT_OFF, Refusal};

const BLOCK: u64 = 512;

/// Files in the archive: the four, and folders.
const MOST_ENTRIES: usize = 64;

/// Storages or tensors.
const MOST_ROWS: u64 = 1 << 16;

/// All of it is held in memory. Those of 2016 have some 500 MB.
const LARGEST: u64 = 4 << 30;

/// What one of the files is, as the reader takes them.
const NAMES: [&str; 4] = ["sys_info", "storages", "tensors", "pickle"];

/// Walks the archive's headers, and each pickle in its files.
pub(super) fn check(file: &File, length: u64) -> Result<(), Refusal> {
    if length > LARGEST {
        return Err(
            format!("is a tar archive of {length} bytes, {LARGEST} are allowed; it is no model").into()
        );
    }
    let found = entries(file, length)?;
    let mut budget = Budget::new();
    for (name, (start, size)) in &found {
        let file = Part { file, start: *start, size: *size };
        match name.as_str() {
            "storages" => storages(&file, &mut budget)?,
            "tensors" => tensors(&file, &mut budget)?,
            _ => {
                file.walk(0, &mut budget)?;
            }
        }
    }
    if NAMES.iter().skip(1).all(|name| found.contains_key(*name)) {
        Ok(())
    } else {
        Err("is a tar archive, but none of PyTorch's; unpack it".into())
    }
}

/// Where in the archive its four files are: the last ones of those names.
fn entries(file: &File, length: u64) -> Result<BTreeMap<String, (u64, u64)>, Refusal> {
    let mut found = BTreeMap::new();
    let mut at = 0u64;
    for _ in 0..MOST_ENTRIES {
        if at + BLOCK > length {
            return Ok(found);
        }
        let mut header = [0u8; BLOCK as usize];
        file.read_exact_at(&mut header, at)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(found);
        }
        let start = at + BLOCK;
        let size = size(&header)?;
        let end = start.checked_add(size).filter(|end| *end <= length).ok_or(CUT_OFF)?;
        match header.get(156) {
            // Files and folders. Others could say something else of the next one's name and size, or have holes.
            Some(0 | b'0' | b'5') => {}
            _ => {
                return Err(
                    "is a tar archive with more than plain files in it, unlike PyTorch's; unpack it".into()
                );
            }
        }
        let name = header.get(..100).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        let name = name.trim_start_matches("./");
        if NAMES.contains(&name) && found.insert(name.to_owned(), (start, size)).is_some() {
            return Err("is a tar archive with two files of a name; it was not read".into());
        }
        at = end.next_multiple_of(BLOCK);
    }
    Err("is a tar archive of many files, and none of PyTorch's; unpack it".into())
}

/// Octal digits, as everything writes that is not larger than old checkpoints are.
fn size(header: &[u8]) -> Result<u64, Refusal> {
    let field = header.get(124..136).unwrap_or_default();
    let digits: Vec<u8> = field.iter().copied().take_while(u8::is_ascii_digit).collect();
    let rest = field.get(digits.len()..).unwrap_or_default();
    let text = String::from_utf8(digits).unwrap_or_default();
    let number = u64::from_str_radix(&text, 8).ok();
    number
        .filter(|_| rest.iter().all(|byte| matches!(byte, 0 | b' ')))
        .ok_or_else(|| "is a tar archive with a damaged header; copy or download it again".into())
}

/// One of the files.
struct Part<'a> {
    file: &'a File,
    start: u64,
    size: u64,
}

impl Part<'_> {
    /// So many bytes from `at` in it.
    fn bytes(&self, at: u64, count: u64) -> Result<Vec<u8>, Refusal> {
        let end = at.checked_add(count).filter(|end| *end <= self.size).ok_or(CUT_OFF)?;
        let mut bytes = vec![0; usize::try_from(end - at).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, self.start + at)?;
        Ok(bytes)
    }

    /// Walks the pickle at `at`; what it was, and what stands behind it.
    fn walk(&self, at: u64, budget: &mut Budget) -> Result<(pickle::Walked, u64), Refusal> {
        let left = self.size.saturating_sub(at);
        // Those in the tables have some 50 bytes, so that a first look should be a short one.
        for largest in [256, pickle::LARGEST as u64] {
            let bytes = self.bytes(at, left.min(largest))?;
            let before = budget.clone();
            match pickle::walk(&bytes, budget) {
                Err(pickle::Wrong::CutOff) if largest < left => *budget = before,
                walked => {
                    let walked = walked?;
                    let behind = at + walked.length as u64;
                    return Ok((walked, behind));
                }
            }
        }
        Err("its pickle is longer than any model's; it was not read".into())
    }

    fn count(&self, budget: &mut Budget) -> Result<(u64, u64), Refusal> {
        let (walked, behind) = self.walk(0, budget)?;
        let count = walked.number.filter(|count| *count <= MOST_ROWS);
        let count = count.ok_or("its tables are longer than any model's, or damaged; it was not read")?;
        Ok((count, behind))
    }

    fn number(&self, at: u64) -> Result<u64, Refusal> {
        let bytes = self.bytes(at, 8)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// A count; for each its key, place and class in a pickle, a count and its elements; then a pickle of the views.
fn storages(part: &Part<'_>, budget: &mut Budget) -> Result<(), Refusal> {
    let (count, mut at) = part.count(budget)?;
    for _ in 0..count {
        let (walked, behind) = part.walk(at, budget)?;
        let element = match walked.class.as_deref() {
            Some("DoubleStorage" | "LongStorage") => 8,
            Some("FloatStorage" | "IntStorage") => 4,
            Some("HalfStorage" | "BFloat16Storage" | "ShortStorage") => 2,
            Some("CharStorage" | "ByteStorage" | "BoolStorage") => 1,
            _ => {
                return Err(
                    "has storages of a kind that is not read; save it again with a newer PyTorch".into()
                );
            }
        };
        let bytes = part.number(behind)?.checked_mul(element).ok_or(CUT_OFF)?;
        at = behind
            .checked_add(8)
            .and_then(|at| at.checked_add(bytes))
            .filter(|at| *at <= part.size)
            .ok_or(CUT_OFF)?;
    }
    part.walk(at, budget)?;
    Ok(())
}

/// A count; for each a pickle, its rank in 4 bytes and 4 that mean nothing, sizes, strides and an offset.
fn tensors(part: &Part<'_>, budget: &mut Budget) -> Result<(), Refusal> {
    let (count, mut at) = part.count(budget)?;
    for _ in 0..count {
        let (_, behind) = part.walk(at, budget)?;
        let rank = part.number(behind)? & 0xffff_ffff;
        if rank > 64 {
            return Err("has tensors of more than 64 dimensions; it is no model".into());
        }
        at = behind + 8 + rank * 16 + 8;
    }
    Ok(())
}
