//! The stream of PyTorch 0.1.10 to 1.5: five pickles one behind the other (a magic number, the version, what the machine
//! was, the object, the storages' keys), then each storage behind the number of its elements.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::archive::BIG_ENDIAN;
use super::object::{Object, Pickle};
use super::pickle::{self, Budget};
use super::refusal::Wrong;
use super::source::{Place, Source};

/// The magic number in a pickle of protocol 2 and later.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The same in those of protocols 0 and 1.
const MAGIC_TEXT: &[u8] = b"119547037146038801333356";

/// It stands within so many bytes, whatever the protocol puts before it.
const BEFORE: usize = 64;

const VERSION: usize = 1001;

pub(super) fn begins(head: &[u8]) -> bool {
    let head = head.get(..BEFORE).unwrap_or(head);
    [&MAGIC[..], MAGIC_TEXT].iter().any(|magic| head.windows(magic.len()).any(|found| found == *magic))
}

/// Where the pickle and the storages are.
pub(super) fn open<'a>(file: &'a [u8], budget: &mut Budget) -> Result<Source<'a>, Wrong> {
    let mut at = 0;
    let mut next = || -> Result<(Pickle<'a>, usize), Wrong> {
        let start = at;
        let pickle = pickle::read(file.get(start..).unwrap_or_default(), budget)?;
        at += pickle.length;
        Ok((pickle, start))
    };
    next()?;
    let (version, _) = next()?;
    if version.root().count() != Some(VERSION) {
        return Err(
            "was written in a version of PyTorch's format that nobody knows; copy or download it again"
                .into(),
        );
    }
    let (machine, _) = next()?;
    check_order(&machine)?;
    let (object, start) = next()?;
    let (keys, _) = next()?;
    let storages = storages(file, &object, &keys, at)?;
    let bytes = file.get(start..start + object.length).unwrap_or_default();
    Ok(Source { pickle: Cow::Borrowed(bytes), storages, outside: BTreeMap::new() })
}

/// An error if the bytes of numbers are in the other order.
pub(super) fn check_order(machine: &Pickle<'_>) -> Result<(), Wrong> {
    match machine.value(machine.root(), "little_endian") {
        Some(Object::Bool(true)) => Ok(()),
        Some(Object::Bool(false)) => Err(BIG_ENDIAN.into()),
        _ => Err("does not say what machine wrote it; copy or download it again".into()),
    }
}

/// Storages stand one behind the other in the order of their keys; how long each is the object says.
fn storages(
    file: &[u8],
    object: &Pickle<'_>,
    keys: &Pickle<'_>,
    mut at: usize,
) -> Result<HashMap<Vec<u8>, Place>, Wrong> {
    let mut sizes = HashMap::new();
    for storage in &object.objects {
        if let Object::Storage(storage) = storage {
            let size = (storage.length, storage.kind.map_or(1, |kind| kind.size));
            if sizes.insert(&storage.key, size).is_some_and(|before| before != size) {
                return Err("has a storage of two sizes; copy or download it again".into());
            }
        }
    }
    let Object::Items(items) = keys.root() else {
        return Err("has no list of its storages; copy or download it again".into());
    };
    let mut places = HashMap::new();
    for key in items.iter().map(|key| keys.get(*key)) {
        let (Some(key), Some(count)) =
            (key.short_key(), file.get(at..).and_then(|rest| rest.first_chunk::<8>()))
        else {
            return Err(Wrong::CutOff);
        };
        let Some((length, size)) = sizes.get(&key) else {
            return Err("has a storage of which it says nothing; copy or download it again".into());
        };
        let start = at + 8;
        let end = length.checked_mul(*size).and_then(|bytes| bytes.checked_add(start));
        let end = end.filter(|end| *end <= file.len()).ok_or(Wrong::CutOff)?;
        if usize::try_from(u64::from_le_bytes(*count)).ok() != Some(*length) {
            return Err("has a storage of two lengths; copy or download it again".into());
        }
        places.insert(key.into_owned(), Place::Plain(start..end));
        at = end;
    }
    Ok(places)
}
