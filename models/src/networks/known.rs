//! The networks that stand alone in a file and are known here, told by what is in the file.

use std::sync::Arc;

use super::standalone::{Described, Entry, Standalone, StandaloneKind};
use super::taesd::TaesdKind;
use crate::error::Result;
use crate::files::Tensors;
use crate::nn::{Device, Precision};

/// All of them. The first that takes a file has it.
const KINDS: [&dyn StandaloneKind; 1] = [&TaesdKind];

/// A file's network.
#[derive(Clone)]
pub struct KnownNetwork {
    kind: &'static dyn StandaloneKind,
    described: Described,
}

impl KnownNetwork {
    /// That of a file, if there is one that is known.
    pub fn of(file: &Tensors) -> Option<Self> {
        KINDS.iter().find_map(|kind| Some(Self { kind: *kind, described: kind.describe(file)? }))
    }

    /// What it is.
    pub fn described(&self) -> &Described {
        &self.described
    }

    /// Bytes that running a part takes with inputs of these sizes, in the part's order.
    pub fn activation_bytes(&self, entry: &Entry, inputs: &[Vec<usize>]) -> u64 {
        self.kind.activation_bytes(entry, inputs)
    }

    /// Reads it from the same file.
    ///
    /// # Errors
    /// The file's tensors are not those of the network.
    pub fn open(&self, file: &Tensors, device: &Device, precision: Precision) -> Result<Arc<dyn Standalone>> {
        self.kind.open(file, device, precision)
    }
}
