//! An adapter at its strength, as a patch of one network.

use std::sync::Arc;

use super::adapter::{Adapter, Matched};
use super::targets::Network;
use crate::nn::{LowRank, Patch};
use crate::{Error, Result};

/// An adapter at its strength, for one network of a model.
pub struct AdapterPatch {
    adapter: Arc<Adapter>,
    network: Network,
    strength: f32,
    digest: [u8; 32],
}

impl Adapter {
    /// What it does to a network at a strength; `None` if that is nothing. `digest` must be equal for equal files at equal
    /// strengths, and for no others.
    pub fn patch(
        self: &Arc<Self>,
        network: Network,
        strength: f32,
        digest: [u8; 32],
    ) -> Option<AdapterPatch> {
        let does = strength != 0.0 && self.changes(network);
        does.then(|| AdapterPatch { adapter: Arc::clone(self), network, strength, digest })
    }
}

impl AdapterPatch {
    fn matched(&self, name: &str) -> Option<&Matched> {
        self.adapter.changes.get(name).filter(|matched| matched.network == self.network)
    }
}

impl Patch for AdapterPatch {
    fn digest(&self) -> [u8; 32] {
        self.digest
    }

    fn touches(&self, name: &str) -> bool {
        self.matched(name).is_some()
    }

    fn apply(&self, name: &str, _shape: &[usize], weights: &mut [f32]) -> Result<()> {
        let Some(Matched { change, sizes, .. }) = self.matched(name) else { return Ok(()) };
        let file = &self.adapter.file;
        let (columns, outputs) = (sizes.columns(), sizes.outputs.max(1));
        let all = weights.len() / outputs;
        if all == columns {
            change.apply(file, *sizes, self.strength, weights)?;
        } else {
            // The first channels of more than it knows.
            let rows = weights.chunks_exact(all.max(1));
            let mut part: Vec<f32> = rows.flat_map(|row| row.iter().take(columns)).copied().collect();
            change.apply(file, *sizes, self.strength, &mut part)?;
            for (row, part) in weights.chunks_exact_mut(all.max(1)).zip(part.chunks_exact(columns.max(1))) {
                row.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            }
        }
        Ok(())
    }

    fn rank(&self, name: &str) -> Option<usize> {
        self.matched(name).filter(|matched| matched.whole)?.change.rank()
    }

    fn product(&self, name: &str) -> Result<Option<LowRank>> {
        let Some(Matched { change, sizes, whole, .. }) = self.matched(name) else { return Ok(None) };
        if !whole {
            return Ok(None);
        }
        change.product(&self.adapter.file, *sizes, self.strength)
    }

    fn not_finite(&self, name: &str) -> Error {
        let reason = format!(
            "makes {name} infinite at a strength of {}; use a smaller one, or another file",
            self.strength
        );
        Error::model(self.adapter.file.path(), reason)
    }

    fn check_intact(&self) -> Result<()> {
        self.adapter.file.check_intact()
    }
}
