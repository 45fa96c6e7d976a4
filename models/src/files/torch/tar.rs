//! The tar archive of PyTorch before 0.1.10, with four files: what the machine was, storages, tensors, and the object.
//! Storages and tensors are tables, with a small pickle and then numbers for each.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::object::{Kind, Object, Pickle, Storage, Tensor, kind};
use super::pickle::{self, Budget};
use super::rebuild;
use super::refusal::{Wrong, unfit};
use super::source::{Place, Source};
use super::stream::check_order;

const BLOCK: usize = 512;

/// Files in the archive: the four, and folders.
const MOST_ENTRIES: usize = 64;

/// Storages or tensors.
const MOST_ROWS: usize = 1 << 16;

/// Where the pickle and the storages are, and the tensors that it names.
pub(super) fn open<'a>(file: &'a [u8], budget: &mut Budget) -> Result<Source<'a>, Wrong> {
    let found = entries(file)?;
    let entry = |name: &str| {
        let range = found.get(name).cloned();
        range.ok_or_else(|| Wrong::from("is a tar archive, but none of PyTorch's; unpack it"))
    };
    let bytes = |range: Range<usize>| file.get(range).unwrap_or_default();
    if let Some(range) = found.get("sys_info") {
        check_order(&pickle::read(bytes(range.clone()), budget)?)?;
    }
    let (storages, types) = storages(file, entry("storages")?, budget)?;
    let outside = tensors(bytes(entry("tensors")?), &types, budget)?;
    Ok(Source { pickle: Cow::Borrowed(bytes(entry("pickle")?)), storages, outside })
}

/// Where the archive's files are.
fn entries(file: &[u8]) -> Result<BTreeMap<String, Range<usize>>, Wrong> {
    let mut found = BTreeMap::new();
    let mut at = 0usize;
    for _ in 0..MOST_ENTRIES {
        let header = match file.get(at..at.saturating_add(BLOCK)) {
            Some(header) if header.iter().any(|byte| *byte != 0) => header,
            _ => return Ok(found),
        };
        let start = at + BLOCK;
        let end = size(header)?.checked_add(start).filter(|end| *end <= file.len()).ok_or(Wrong::CutOff)?;
        // Files and folders. Others could say something else of the next one's name and size, or have holes.
        if !matches!(header.get(156), Some(0 | b'0' | b'5')) {
            return Err(
                "is a tar archive with more than plain files in it, unlike PyTorch's; unpack it".into()
            );
        }
        let name =
            header.get(..100).and_then(|name| name.split(|byte| *byte == 0).next()).unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        if found.insert(name, start..end).is_some() {
            return Err("is a tar archive with two files of a name; it was not read".into());
        }
        at = end.next_multiple_of(BLOCK);
    }
    Err("is a tar archive of many files, and none of PyTorch's; unpack it".into())
}

/// Octal digits, as everything writes for files that are not larger than old checkpoints are.
fn size(header: &[u8]) -> Result<usize, Wrong> {
    let field = header.get(124..136).unwrap_or_default();
    let text = String::from_utf8_lossy(field);
    let digits = text.trim_matches([' ', '\0']);
    usize::from_str_radix(digits, 8)
        .map_err(|_| "is a tar archive with a damaged header; copy or download it again".into())
}

/// Reads through a table.
struct Table<'a, 'b> {
    bytes: &'a [u8],
    at: usize,
    budget: &'b mut Budget,
}

impl<'a> Table<'a, '_> {
    fn pickle(&mut self) -> Result<Pickle<'a>, Wrong> {
        let pickle = pickle::read(self.bytes.get(self.at..).unwrap_or_default(), self.budget)?;
        self.at += pickle.length;
        Ok(pickle)
    }

    fn rows(&mut self) -> Result<usize, Wrong> {
        let rows = self.pickle()?.root().count().filter(|rows| *rows <= MOST_ROWS);
        rows.ok_or_else(|| "has tables that are longer than any model's, or damaged; it was not read".into())
    }

    fn number(&mut self) -> Result<usize, Wrong> {
        let bytes =
            self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()).ok_or(Wrong::CutOff)?;
        self.at += 8;
        usize::try_from(u64::from_le_bytes(*bytes)).map_err(|_| Wrong::CutOff)
    }

    fn numbers(&mut self, count: usize) -> Result<Vec<usize>, Wrong> {
        (0..count).map(|_| self.number()).collect()
    }
}

/// What the tensors of a storage are, and how many elements it has.
type Types<'a> = HashMap<Vec<u8>, (Kind<'a>, usize)>;

/// A count; for each its key, place and class in a pickle, a count and its elements; then a pickle of the parts of
/// storages that are storages too.
fn storages<'a>(
    file: &'a [u8],
    range: Range<usize>,
    budget: &mut Budget,
) -> Result<(HashMap<Vec<u8>, Place>, Types<'a>), Wrong> {
    let start = range.start;
    let mut table = Table { bytes: file.get(range).unwrap_or_default(), at: 0, budget };
    let (mut places, mut types) = (HashMap::new(), Types::new());
    for _ in 0..table.rows()? {
        let row = table.pickle()?;
        let Some([key, _, class]) = row.fields(row.root()) else { return Err(unfit("a storage is none")) };
        let (Some(key), Some(class)) = (key.short_key(), class.class()) else {
            return Err(unfit("a storage is none"));
        };
        let kind = kind(class).ok_or_else(|| unfit("a storage has no type"))?;
        let length = table.number()?;
        let bytes = length.checked_mul(kind.size).ok_or(Wrong::CutOff)?;
        let end = table.at.checked_add(bytes).filter(|end| *end <= table.bytes.len()).ok_or(Wrong::CutOff)?;
        places.insert(key.to_vec(), Place::Plain(start + table.at..start + end));
        types.insert(key.into_owned(), (kind, length));
        table.at = end;
    }
    let views = table.pickle()?;
    let items = match views.root() {
        Object::Items(items) if items.len() <= MOST_ROWS => items,
        _ => return Err(unfit("the parts of storages are none")),
    };
    for view in items.iter().map(|id| views.get(*id)) {
        let part = || -> Option<_> {
            let [key, root, offset, length] = views.fields(view)?;
            let (key, root) = (key.short_key()?, root.short_key()?);
            let (offset, length) = (offset.count()?, length.count()?);
            let (kind, whole) = *types.get(root.as_ref())?;
            let Place::Plain(place) = places.get(root.as_ref())? else { return None };
            offset.checked_add(length).filter(|end| *end <= whole)?;
            let from = place.start + offset * kind.size;
            Some((key.into_owned(), Place::Plain(from..from + length * kind.size), (kind, length)))
        };
        let (key, place, of) = part().ok_or_else(|| unfit("a part of a storage is none"))?;
        places.insert(key.clone(), place);
        types.insert(key, of);
    }
    Ok((places, types))
}

/// A count; for each a pickle, its rank in 4 bytes and 4 that mean nothing, sizes, strides and an offset.
fn tensors<'a>(
    bytes: &'a [u8],
    types: &Types<'a>,
    budget: &mut Budget,
) -> Result<BTreeMap<Vec<u8>, Tensor<'a>>, Wrong> {
    const MOST_DIMENSIONS: usize = 64;
    let mut table = Table { bytes, at: 0, budget };
    let mut tensors = BTreeMap::new();
    for _ in 0..table.rows()? {
        let row = table.pickle()?;
        let Some([key, storage, _]) = row.fields(row.root()) else { return Err(unfit("a tensor is none")) };
        let (Some(key), Some(storage)) = (key.short_key(), storage.short_key()) else {
            return Err(unfit("a tensor is none"));
        };
        let rank = table.number()? & 0xffff_ffff;
        if rank > MOST_DIMENSIONS {
            return Err(unfit("a tensor has more dimensions than any"));
        }
        let (shape, strides) = (table.numbers(rank)?, table.numbers(rank)?);
        let offset = table.number()?;
        let Some((kind, length)) = types.get(storage.as_ref()).copied() else {
            return Err(unfit("a tensor has no storage"));
        };
        let storage = Storage { kind: Some(kind), key: storage, length, view: None };
        let tensor = Tensor { kind, storage, offset, shape, strides };
        rebuild::check(&tensor)?;
        tensors.insert(key.into_owned(), tensor);
    }
    Ok(tensors)
}
