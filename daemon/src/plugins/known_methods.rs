//! The kinds of methods, without a look at any file: for threads that must not wait.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::manifest::Manifest;
use super::method_rows::MethodKind;

/// What kinds the methods have that were there as plugins were looked for last.
#[derive(Default)]
pub(super) struct Known(Mutex<BTreeMap<String, MethodKind>>);

impl Known {
    /// Those of these manifests.
    pub(super) fn note<'a>(&self, manifests: impl Iterator<Item = &'a Manifest>) {
        let of = |manifest: &'a Manifest| {
            manifest.methods.iter().map(|row| (format!("{}.{}", manifest.name, row.name), row.kind))
        };
        let kinds = manifests.flat_map(of).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kinds;
    }

    pub(super) fn kind(&self, name: &str) -> Option<MethodKind> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }
}
