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
    scales: Scales,
    digest: [u8; 32],
}

/// How many times its strength an adapter has in tensors whose names begin so; of several the longest counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scales(Vec<(String, f32)>);

impl Scales {
    /// Of prefixes of names in LDM's layout; of one that comes twice the first counts.
    pub fn new(mut scales: Vec<(String, f32)>) -> Self {
        scales.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self(scales)
    }

    fn of(&self, name: &str) -> f32 {
        self.0.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(1.0, |(_, factor)| *factor)
    }
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
        self.patch_scaled(network, strength, &Scales::default(), digest)
    }

    /// The same, with other strengths in some tensors; `digest` tells them, too.
    pub fn patch_scaled(
        self: &Arc<Self>,
        network: Network,
        strength: f32,
        scales: &Scales,
        digest: [u8; 32],
    ) -> Option<AdapterPatch> {
        let (adapter, scales) = (Arc::clone(self), scales.clone());
        let patch = AdapterPatch { adapter, network, strength, scales, digest };
        let does = strength != 0.0 && self.changes.keys().any(|name| patch.matched(name).is_some());
        does.then_some(patch)
    }
}

impl AdapterPatch {
    fn matched(&self, name: &str) -> Option<&Matched> {
        let matched = self.adapter.changes.get(name).filter(|matched| matched.network == self.network);
        matched.filter(|_| self.scales.of(name) != 0.0)
    }

    fn strength(&self, name: &str) -> f32 {
        self.strength * self.scales.of(name)
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
        let (file, strength) = (&self.adapter.file, self.strength(name));
        let (columns, outputs) = (sizes.columns(), sizes.outputs.max(1));
        let all = weights.len() / outputs;
        if all == columns {
            change.apply(file, *sizes, strength, weights)?;
        } else {
            // The first channels of more than it knows.
            let rows = weights.chunks_exact(all.max(1));
            let mut part: Vec<f32> = rows.flat_map(|row| row.iter().take(columns)).copied().collect();
            change.apply(file, *sizes, strength, &mut part)?;
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
        change.product(&self.adapter.file, *sizes, self.strength(name))
    }

    fn not_finite(&self, name: &str) -> Error {
        let reason = format!(
            "makes {name} infinite at a strength of {}; use a smaller one, or another file",
            self.strength(name)
        );
        Error::model(self.adapter.file.path(), reason)
    }

    fn check_intact(&self) -> Result<()> {
        self.adapter.file.check_intact()
    }
}
