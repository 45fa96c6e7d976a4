//! The ZIP archive of PyTorch 1.6 and later: `data.pkl` in a folder, and a storage in each file of `data/` beside it.
//! Nothing is unpacked to disk.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use flate2::Crc;

use super::cursor::LARGEST;
use super::refusal::Wrong;
use super::source::{self, Place, Source};

/// Entries of an archive. A checkpoint has some 1,200 to 3,000, with its training state four times as many.
const MOST_ENTRIES: u64 = 1 << 16;

/// How much larger than the file its deflated entries may be, and how much larger at least.
const PACKED: (usize, usize) = (8, 64 << 20);

/// Bytes of the text that says in which order bytes are.
const LONGEST_TEXT: usize = 64;

/// The record at the end, its comment aside; where that of a large archive is, before it; and that one.
const END: usize = 22;
const LOCATOR: usize = 20;
const LARGE_END: usize = 56;

/// An entry of the directory, and what stands before an entry's bytes, both without names.
const ENTRY: usize = 46;
const LOCAL: usize = 30;

struct Entry<'a> {
    name: &'a [u8],
    place: Place,
    /// 0 where the writer made none.
    checksum: u32,
}

/// Where the pickle and the storages are.
pub(super) fn open(file: &[u8]) -> Result<Source<'_>, Wrong> {
    let entries = entries(file)?;
    let root_of = |entry: &Entry<'_>| {
        let root = entry.name.strip_suffix(b"data.pkl")?;
        (root.is_empty() || root.ends_with(b"/")).then(|| root.to_vec())
    };
    let Some(root) = entries.iter().filter_map(root_of).min_by_key(Vec::len) else {
        return Err("is a zip archive without the data.pkl of a PyTorch file; if it is an archive of files, unpack it".into());
    };
    let mut storages = HashMap::new();
    let mut pickle = None;
    for entry in entries {
        let Some(name) = entry.name.strip_prefix(root.as_slice()) else { continue };
        match name {
            b"data.pkl" => pickle = Some(pickled(file, &entry)?),
            b"byteorder" => {
                let length = entry.place.length();
                let order = if length > LONGEST_TEXT {
                    Cow::default()
                } else {
                    source::bytes(file, &entry.place, 0..length)?
                };
                if !order.trim_ascii().eq_ignore_ascii_case(b"little") {
                    return Err(BIG_ENDIAN.into());
                }
            }
            _ => {
                if let Some(key) = name.strip_prefix(b"data/") {
                    storages.insert(key.to_vec(), entry.place);
                }
            }
        }
    }
    let pickle = pickle.ok_or(Wrong::CutOff)?;
    Ok(Source { pickle, storages, outside: BTreeMap::new() })
}

pub(super) const BIG_ENDIAN: &str =
    "was written on a big-endian machine, which is not read; save it again on another one";

fn pickled<'a>(file: &'a [u8], entry: &Entry<'_>) -> Result<Cow<'a, [u8]>, Wrong> {
    let length = entry.place.length();
    if length > LARGEST {
        let most = LARGEST;
        return Err(format!("its pickle has {length} bytes, {most} are allowed; it is no model").into());
    }
    let bytes = source::bytes(file, &entry.place, 0..length)?;
    let mut checksum = Crc::new();
    checksum.update(&bytes);
    // Storages are not held against theirs: that would read each twice.
    if entry.checksum != 0 && checksum.sum() != entry.checksum {
        return Err("its pickle is damaged (its checksum differs); copy or download it again".into());
    }
    Ok(bytes)
}

/// A whole number in little-endian; 0 beyond the end, which fits nothing.
fn number(bytes: &[u8], start: usize, count: usize) -> u64 {
    let bytes = bytes.get(start..start + count).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn damaged(what: &str) -> Wrong {
    format!("is a zip archive {what}; copy or download it again").into()
}

/// The directory's bytes and how many entries it has. It must be where torch and others put it, between the entries and
/// the record at the very end: then all readers find the same one.
fn directory(file: &[u8]) -> Result<(&[u8], u64), Wrong> {
    let end = file.len().checked_sub(END).ok_or(Wrong::CutOff)?;
    let record = file.get(end..).unwrap_or_default();
    if !record.starts_with(b"PK\x05\x06") {
        return Err(damaged("that is cut off or has something behind its end"));
    }
    let small = (number(record, 10, 2), number(record, 12, 4), number(record, 16, 4));
    let locator =
        end.checked_sub(LOCATOR).and_then(|at| file.get(at..end)).filter(|at| at.starts_with(b"PK\x06\x07"));
    let ((entries, size, start), directory_end) = match locator {
        None => (small, end),
        Some(locator) => {
            let at = end.checked_sub(LOCATOR + LARGE_END).ok_or(Wrong::CutOff)?;
            let record = file.get(at..).unwrap_or_default();
            if !record.starts_with(b"PK\x06\x06") || number(locator, 8, 8) != at as u64 {
                return Err(damaged("whose end is damaged"));
            }
            let large = (number(record, 32, 8), number(record, 40, 8), number(record, 48, 8));
            let same = |small, large, unsaid| small == large || small == unsaid;
            let agree = same(small.0, large.0, 0xffff)
                && same(small.1, large.1, 0xffff_ffff)
                && same(small.2, large.2, 0xffff_ffff);
            if !agree {
                return Err(damaged("that says two things of its entries"));
            }
            (large, at)
        }
    };
    if entries > MOST_ENTRIES {
        let reason =
            format!("is a zip archive of {entries} entries, {MOST_ENTRIES} are allowed; it is no model");
        return Err(reason.into());
    }
    let ends = start.checked_add(size) == Some(directory_end as u64);
    let bytes = usize::try_from(start).ok().filter(|_| ends).and_then(|start| file.get(start..directory_end));
    Ok((bytes.ok_or_else(|| damaged("whose directory is not where it should be"))?, entries))
}

fn entries(file: &[u8]) -> Result<Vec<Entry<'_>>, Wrong> {
    let (mut rest, count) = directory(file)?;
    let mut entries = vec![];
    let mut unpacked = 0usize;
    for _ in 0..count {
        let header = rest.get(..ENTRY).filter(|header| header.starts_with(b"PK\x01\x02"));
        let header = header.ok_or_else(|| damaged("whose directory is damaged"))?;
        let [name, extra, comment] = [28, 30, 32].map(|at| number(header, at, 2) as usize);
        let length = ENTRY + name + extra + comment;
        let body = rest.get(ENTRY..length).ok_or_else(|| damaged("whose directory is damaged"))?;
        rest = rest.get(length..).unwrap_or_default();
        let (name, body) = body.split_at(name);
        if name.starts_with(b"/") || name.split(|byte| matches!(byte, b'/' | b'\\')).any(|part| part == b"..")
        {
            return Err("has names that lead out of it; it was not read".into());
        }
        let place = place(file, header, body.get(..extra).unwrap_or_default())?;
        if let Place::Packed(_, length) = &place {
            unpacked = unpacked.saturating_add(*length);
        }
        entries.push(Entry { name, place, checksum: number(header, 16, 4) as u32 });
    }
    if !rest.is_empty() {
        return Err(damaged("whose directory is damaged"));
    }
    check_overlap(&entries)?;
    let (times, least) = PACKED;
    if unpacked > file.len().saturating_mul(times).saturating_add(least) {
        let length = file.len();
        return Err(format!("has {length} bytes and would unpack to {unpacked}; it was not read").into());
    }
    Ok(entries)
}

/// A small file could say the same bytes to be many entries.
fn check_overlap(entries: &[Entry<'_>]) -> Result<(), Wrong> {
    let mut ranges: Vec<_> = entries.iter().map(|entry| entry.place.range()).collect();
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    if ranges.iter().zip(ranges.iter().skip(1)).any(|(first, next)| first.end > next.start) {
        return Err("is a zip archive whose entries overlap; it was not read".into());
    }
    Ok(())
}

/// Where an entry's bytes are.
fn place(file: &[u8], header: &[u8], extra: &[u8]) -> Result<Place, Wrong> {
    if number(header, 8, 2) & 1 != 0 {
        return Err("is an encrypted zip archive; unpack it with its password".into());
    }
    // What does not fit into the header stands behind it, in this order.
    let mut large = large(extra);
    let mut value = |at: usize| match number(header, at, 4) {
        0xffff_ffff => {
            let value = number(large, 0, 8);
            large = large.get(8..).unwrap_or_default();
            value
        }
        value => value,
    };
    let [length, stored, local] =
        [24, 20, 42].map(&mut value).map(|value| usize::try_from(value).unwrap_or(usize::MAX));
    let before = file.get(local..).filter(|local| local.starts_with(b"PK\x03\x04"));
    let before = before.ok_or_else(|| damaged("with entries that are not there"))?;
    let names = (number(before, 26, 2) + number(before, 28, 2)) as usize;
    let start = local.checked_add(LOCAL + names);
    let end = start.and_then(|start| start.checked_add(stored)).filter(|end| *end <= file.len());
    let range = start.zip(end).map(|(start, end)| start..end);
    let range = range.ok_or_else(|| damaged("with entries that are not there"))?;
    match number(header, 10, 2) {
        0 if stored == length => Ok(Place::Plain(range)),
        8 => Ok(Place::Packed(range, length)),
        0 => Err(damaged("with entries of two lengths")),
        method => Err(format!(
            "is a zip archive packed by method {method}, which is not read; unpack it and pack it again"
        )
        .into()),
    }
}

/// The sizes of a large entry among what stands behind its name.
fn large(mut extra: &[u8]) -> &[u8] {
    while extra.len() >= 4 {
        let length = number(extra, 2, 2) as usize;
        let field = extra.get(4..4 + length).unwrap_or_default();
        if number(extra, 0, 2) == 1 {
            return field;
        }
        extra = extra.get(4 + length..).unwrap_or_default();
    }
    &[]
}
