//! The ZIP archive of PyTorch 1.6 and later: `data.pkl` in a folder, and a storage in each file of `data/` beside it.
//! Nothing is unpacked.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;

use zip::ZipArchive;

use super::pickle::{self, Budget};
use super::refusal::{CUT_OFF, Refusal};

/// Entries of an archive, each of which takes some hundred bytes. A checkpoint has some 1,200 to 3,000, with its training
/// state four times as many.
const MOST_ENTRIES: u64 = 1 << 16;

/// Bytes of the directory at its end, some 100 an entry.
const LARGEST_DIRECTORY: u64 = 16 << 20;

/// Pickles: each that could be taken for the right one is walked.
const MOST_PICKLES: usize = 4;

/// How much larger than the file its packed entries may be, and how much larger at least.
const PACKED: (u64, u64) = (8, 64 << 20);

/// The record at the end, its comment aside.
const END: usize = 22;

/// Where the record of a large archive is, before that.
const LOCATOR: usize = 20;

/// That record.
const LARGE_END: usize = 56;

/// Holds the archive's directory against the file, and walks its pickle.
pub(super) fn check(file: &File, length: u64) -> Result<(), Refusal> {
    check_directory(file, length)?;
    let wrong = |error: zip::result::ZipError| match error {
        zip::result::ZipError::Io(error) => Refusal::from(error),
        other => Refusal::File(super::refusal::unsound(&other)),
    };
    let mut archive = ZipArchive::new(BufReader::new(file.try_clone()?)).map_err(wrong)?;
    let mut pickles = vec![];
    let mut unpacked = 0u64;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(wrong)?;
        let name = entry.name().map_err(wrong)?;
        if name.starts_with(['/', '\\']) || name.split(['/', '\\']).any(|part| part == "..") {
            return Err("has names that lead out of it; it was not read".into());
        }
        if name == "data.pkl" || name.ends_with("/data.pkl") {
            if entry.size() > pickle::LARGEST as u64 {
                let (size, most) = (entry.size(), pickle::LARGEST);
                return Err(format!("its pickle has {size} bytes, {most} are allowed; it is no model").into());
            }
            pickles.push(index);
        }
        if entry.compressed_size() != entry.size() {
            unpacked = unpacked.saturating_add(entry.size());
        }
    }
    let (times, least) = PACKED;
    if unpacked > length.saturating_mul(times).saturating_add(least) {
        return Err(format!("has {length} bytes and would unpack to {unpacked}; it was not read").into());
    }
    if pickles.is_empty() {
        return Err(
            "is a zip archive without the data.pkl of a PyTorch file; unpack it if it is an archive of files"
                .into(),
        );
    }
    if pickles.len() > MOST_PICKLES {
        return Err("has many pickles of the same name; it was not read".into());
    }
    let mut budget = Budget::new();
    for index in pickles {
        let entry = archive.by_index(index).map_err(wrong)?;
        let mut bytes = vec![];
        entry.take(pickle::LARGEST as u64 + 1).read_to_end(&mut bytes)?;
        pickle::walk(&bytes, &mut budget)?;
    }
    Ok(())
}

/// The directory must be where torch and other writers put it, between the entries and the record at the very end, so
/// that all readers find the same one; and no larger than is believed.
fn check_directory(file: &File, length: u64) -> Result<(), Refusal> {
    let tail_length = (END + LOCATOR + LARGE_END).min(usize::try_from(length).unwrap_or(usize::MAX));
    let mut tail = vec![0; tail_length];
    let tail_start = length - tail_length as u64;
    file.read_exact_at(&mut tail, tail_start)?;
    let end = tail.len().checked_sub(END).ok_or(CUT_OFF)?;
    if !tail.get(end..).is_some_and(|end| end.starts_with(b"PK\x05\x06")) {
        return Err(
            "is a zip archive that is cut off or has something behind its end; copy or download it again"
                .into(),
        );
    }
    let number = |start: usize, count: usize| {
        let bytes = tail.get(start..start + count).unwrap_or_default();
        bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let small = (number(end + 10, 2), number(end + 12, 4), number(end + 16, 4));
    let locator =
        end.checked_sub(LOCATOR).filter(|at| tail.get(*at..).is_some_and(|at| at.starts_with(b"PK\x06\x07")));
    let ((entries, size, start), directory_end) = match locator {
        None => (small, tail_start + end as u64),
        Some(locator) => {
            let at = locator.checked_sub(LARGE_END).ok_or(CUT_OFF)?;
            let is_there = tail.get(at..).is_some_and(|at| at.starts_with(b"PK\x06\x06"));
            if !is_there || number(locator + 8, 8) != tail_start + at as u64 {
                return Err("is a zip archive whose end is damaged; copy or download it again".into());
            }
            let large = (number(at + 32, 8), number(at + 40, 8), number(at + 48, 8));
            let same = |small, large, unsaid| small == large || small == unsaid;
            let agree = same(small.0, large.0, 0xffff)
                && same(small.1, large.1, 0xffff_ffff)
                && same(small.2, large.2, 0xffff_ffff);
            if !agree {
                return Err("is a zip archive that says two things of its entries; it was not read".into());
            }
            (large, tail_start + at as u64)
        }
    };
    if entries > MOST_ENTRIES || size > LARGEST_DIRECTORY {
        return Err(format!(
            "is a zip archive of {entries} entries in a directory of {size} bytes; {MOST_ENTRIES} and \
             {LARGEST_DIRECTORY} are allowed; it is no model"
        )
        .into());
    }
    if start.checked_add(size) != Some(directory_end) {
        return Err(
            "is a zip archive whose directory is not where it should be; copy or download it again".into()
        );
    }
    let mut directory = vec![0; usize::try_from(size).unwrap_or_default()];
    file.read_exact_at(&mut directory, start)?;
    fits(&directory, entries)
}

/// Whether a directory has just so many entries.
fn fits(mut directory: &[u8], entries: u64) -> Result<(), Refusal> {
    const FIXED: usize = 46;
    for _ in 0..entries {
        let length = |at: usize| match directory.get(at..at + 2) {
            Some([low, high]) => usize::from(*low) + 256 * usize::from(*high),
            _ => 0,
        };
        let entry = FIXED + length(28) + length(30) + length(32);
        if !directory.starts_with(b"PK\x01\x02") || entry > directory.len() {
            return Err("is a zip archive whose directory is damaged; copy or download it again".into());
        }
        directory = directory.get(entry..).unwrap_or_default();
    }
    if directory.is_empty() {
        Ok(())
    } else {
        Err("is a zip archive whose directory is damaged; copy or download it again".into())
    }
}
