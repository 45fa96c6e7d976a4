//! A file in which each tensor's elements lie as they are, one behind the other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::bytes::FileBytes;
use super::container::Container;
use crate::{Error, Result};

/// Its bytes, and what its header says, all of it held against the file's size.
pub(super) struct Slices {
    /// How the format is called, for a sentence.
    pub format: &'static str,
    pub file: FileBytes,
    /// Where each tensor's elements are.
    pub places: Vec<Range<usize>>,
    pub metadata: BTreeMap<String, String>,
}

impl Container for Slices {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn read(&self, place: usize) -> Result<Cow<'_, [u8]>> {
        let bytes = self.places.get(place).and_then(|place| self.file.bytes().get(place.clone()));
        let outside = || Error::file(self.path(), "a tensor lies outside the file");
        bytes.map(Cow::Borrowed).ok_or_else(outside)
    }

    fn lying(&self, place: usize) -> Option<(&FileBytes, Range<usize>)> {
        Some((&self.file, self.places.get(place)?.clone()))
    }

    fn let_go(&self, place: usize) {
        if let Some(place) = self.places.get(place) {
            self.file.let_go(place.clone());
        }
    }

    fn check(&self) -> Result<()> {
        self.file.check()
    }
}
