//! Several weight files as one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::bytes::FileBytes;
use super::container::{Container, Entry};
use super::tensors::{Pieces, Tensors};
use crate::{Error, Result};

/// Files that are read together, and the folder they are in.
struct Joined {
    path: PathBuf,
    metadata: BTreeMap<String, String>,
    files: Vec<Box<dyn Container>>,
    /// Which file a tensor is in, and where that file finds it.
    places: Vec<(usize, usize)>,
}

/// One view over the files of a folder: each file's tensors are called by its prefix and their own names. An error names
/// a tensor that two of them have.
pub(super) fn join(
    path: &Path,
    metadata: BTreeMap<String, String>,
    files: Vec<(String, Tensors)>,
) -> Result<Tensors> {
    let mut joined = Joined { path: path.to_owned(), metadata, files: vec![], places: vec![] };
    let mut entries = BTreeMap::new();
    for (prefix, file) in files {
        let Pieces { container, entries: own_entries } = file.into_pieces();
        let own = joined.files.len();
        joined.files.push(container);
        for (name, entry) in own_entries {
            let place = joined.places.len();
            joined.places.push((own, entry.place));
            match entries.entry(format!("{prefix}{name}")) {
                btree_map::Entry::Vacant(vacant) => vacant.insert(Entry { place, ..entry }),
                btree_map::Entry::Occupied(first) => return Err(twice(&joined, first.key(), first.get())),
            };
        }
    }
    Ok(Tensors::of_pieces(Pieces { container: Box::new(joined), entries }))
}

/// A tensor that the last file has, and one before it.
fn twice(joined: &Joined, name: &str, first: &Entry) -> Error {
    let file = |index: Option<usize>| {
        let container = index.and_then(|index| joined.files.get(index));
        let path = container.map(|container| container.path());
        let path = path.map(|path| path.strip_prefix(&joined.path).unwrap_or(path));
        path.map(|path| path.display().to_string()).unwrap_or_default()
    };
    let before = file(joined.places.get(first.place).map(|(file, _)| *file));
    let last = file(joined.files.len().checked_sub(1));
    Error::file(&joined.path, format!("tensor {name} is in {before} and in {last} too; one of them must go"))
}

impl Joined {
    fn file(&self, place: usize) -> Option<(&dyn Container, usize)> {
        let (file, place) = self.places.get(place)?;
        Some((self.files.get(*file)?.as_ref(), *place))
    }
}

impl Container for Joined {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        "folder"
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn read(&self, place: usize) -> Result<Cow<'_, [u8]>> {
        let outside = || Error::file(&self.path, "a tensor lies in none of the files");
        let (file, place) = self.file(place).ok_or_else(outside)?;
        file.read(place)
    }

    fn lying(&self, place: usize) -> Option<(&FileBytes, Range<usize>)> {
        let (file, place) = self.file(place)?;
        file.lying(place)
    }

    fn let_go(&self, place: usize) {
        if let Some((file, place)) = self.file(place) {
            file.let_go(place);
        }
    }

    fn check(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| file.check())
    }
}
