//! The packed tensors of a network, by name: what a patched network shares with the one it was made beside.

use std::collections::BTreeMap;
use std::sync::Arc;

use latentd_kernels::WeightDtype;

use super::backend::{Matrix, Vector};

/// A table of vectors on the host, kept in the type it is stored in: little-endian bytes.
pub struct Table {
    /// The type of each number.
    pub dtype: WeightDtype,
    /// The numbers, row after row; none where nothing is computed.
    pub bytes: Vec<u8>,
    /// Bytes that they take, there or not.
    pub size: usize,
    /// Vectors, and numbers of each.
    pub shape: [usize; 2],
}

/// One tensor of a network.
#[derive(Clone)]
pub enum Part {
    /// A matrix on the device.
    Matrix(Matrix),
    /// A vector on the device.
    Vector(Vector),
    /// A table on the host.
    Table(Arc<Table>),
}

impl Part {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Matrix(matrix) => matrix.bytes,
            Self::Vector(vector) => vector.bytes(),
            Self::Table(table) => table.size,
        }
    }

    /// The shape that a file has it in.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Matrix(matrix) => matrix.layout.shape(),
            Self::Vector(vector) => vec![vector.length],
            Self::Table(table) => table.shape.to_vec(),
        }
    }

    /// Where it is: equal for those that share one.
    pub fn address(&self) -> usize {
        match self {
            Self::Matrix(matrix) => matrix.address(),
            Self::Vector(vector) => vector.address(),
            Self::Table(table) => Arc::as_ptr(table).addr(),
        }
    }
}

/// All tensors of a network.
#[derive(Clone, Default)]
pub struct Parts {
    all: BTreeMap<String, Part>,
    /// Digests of the patches that made what it is of a tensor, in order, by its name; of those that any touched.
    patches: BTreeMap<String, Vec<[u8; 32]>>,
}

impl Parts {
    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Part> {
        self.all.get(name)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Part)> {
        self.all.iter().map(|(name, part)| (name.as_str(), part))
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.all.values().map(|part| part.bytes() as u64).sum()
    }

    /// The tensor of this name, if these patches, in order, and no others made it.
    pub(super) fn made_by(&self, name: &str, patches: &[[u8; 32]]) -> Option<&Part> {
        let made_by = self.patches.get(name).map(Vec::as_slice).unwrap_or_default();
        self.get(name).filter(|_| made_by == patches)
    }

    /// Bytes of those that `base` does not have: what a patched network takes beside it.
    pub fn bytes_beside(&self, base: &Self) -> u64 {
        let own = self
            .iter()
            .filter(|(name, part)| base.get(name).is_none_or(|other| other.address() != part.address()));
        own.map(|(_, part)| part.bytes() as u64).sum()
    }

    /// Takes in a tensor, and the patches that made it.
    pub(super) fn insert(&mut self, name: &str, part: Part, patches: Vec<[u8; 32]>) {
        self.all.insert(name.to_owned(), part);
        if !patches.is_empty() {
            self.patches.insert(name.to_owned(), patches);
        }
    }
}
