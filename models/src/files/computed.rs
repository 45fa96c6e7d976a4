//! A file whose tensors are computed from those of others as they are asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::bytes::FileBytes;
use super::container::{Container, ElementType, Entry};
use super::tensors::{Pieces, Tensors};
use crate::{Error, Result};

/// Makes tensors.
pub(crate) trait Compute: Send + Sync {
    /// All elements of a tensor, row-major.
    ///
    /// # Errors
    /// What it is made of cannot be had.
    fn values(&self, name: &str) -> Result<Vec<f32>>;

    /// Those that it was made of will not be needed again soon.
    fn let_go(&self, _name: &str) {}

    /// An error if anything read so far was no longer there.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

struct Computed {
    path: PathBuf,
    metadata: BTreeMap<String, String>,
    /// By their places.
    names: Vec<String>,
    compute: Box<dyn Compute>,
}

/// One view over tensors of these names and shapes, all f32; errors call it `path`.
pub(crate) fn computed(
    path: &Path,
    shapes: BTreeMap<String, Vec<usize>>,
    compute: Box<dyn Compute>,
) -> Tensors {
    let names = shapes.keys().cloned().collect();
    let entry = |(place, (name, shape))| (name, Entry { shape, dtype: ElementType::F32, place });
    let entries = shapes.into_iter().enumerate().map(entry).collect();
    let container = Computed { path: path.to_owned(), metadata: BTreeMap::new(), names, compute };
    Tensors::of_pieces(Pieces { container: Box::new(container), entries })
}

impl Container for Computed {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        "computed"
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn read(&self, place: usize) -> Result<Cow<'_, [u8]>> {
        let outside = || Error::model(&self.path, "has no such tensor");
        let values = self.compute.values(self.names.get(place).ok_or_else(outside)?)?;
        Ok(Cow::Owned(values.into_iter().flat_map(f32::to_le_bytes).collect()))
    }

    fn lying(&self, _place: usize) -> Option<(&FileBytes, Range<usize>)> {
        None
    }

    fn let_go(&self, place: usize) {
        if let Some(name) = self.names.get(place) {
            self.compute.let_go(name);
        }
    }

    fn check(&self) -> Result<()> {
        self.compute.check()
    }
}
