//! BOFT (Liu et al. 2023; LyCORIS): OFT in stages, between which the outputs change places like a butterfly's wings, so
//! that small blocks reach all of them.

use super::change::{Change, Sizes};
use super::math::add_product;
use super::oft::{most, put, rescale_fits, rotations};
use super::source::Stored;
use crate::Result;
use crate::files::Tensors;

pub(super) struct Boft {
    /// `(stages, blocks, n, n)`: B of each.
    pub blocks: Stored,
    /// As for OFT.
    pub constraint: Option<f32>,
    /// As for OFT.
    pub rescale: Option<Stored>,
}

/// Where the rows of a stage come from: groups of `2 · half` rows, in which those of even place come before the others'
/// partners. Of row `i` in the new order, the old one.
fn order(rows: usize, half: usize) -> Vec<usize> {
    let of = |row: usize| {
        let (group, within) = (row / (2 * half), row % (2 * half));
        // (group, k, side) becomes (group, side, k).
        group * 2 * half + within % 2 * half + within / 2
    };
    (0..rows).map(of).collect()
}

impl Change for Boft {
    fn fits(&self, sizes: Sizes) -> bool {
        let [stages, blocks, rows, columns] = self.blocks.shape[..] else { return false };
        let reach = u32::try_from(stages.saturating_sub(1)).ok().and_then(|stage| 1usize.checked_shl(stage));
        let widest = reach.and_then(|reach| reach.checked_mul(rows));
        rows == columns
            && rows.is_multiple_of(2)
            && blocks.checked_mul(rows) == Some(sizes.outputs)
            && widest.is_some_and(|widest| widest > 0 && sizes.outputs.is_multiple_of(widest))
            && rescale_fits(self.rescale.as_ref(), sizes)
    }

    fn told(&self) -> String {
        format!("stages {:?}", self.blocks.shape)
    }

    fn apply(&self, file: &Tensors, sizes: Sizes, strength: f32, weights: &mut [f32]) -> Result<()> {
        let (n, columns) = (self.blocks.size(2), sizes.columns().max(1));
        let rotations = rotations(file, &self.blocks, most(self.constraint, sizes.outputs))?;
        let mut changed = weights.to_vec();
        for (stage, rotations) in rotations.chunks_exact((sizes.outputs * n).max(1)).enumerate() {
            let order = order(sizes.outputs, (1 << stage) * n / 2);
            let row = |from: usize| changed.get(from * columns..(from + 1) * columns).unwrap_or_default();
            let shuffled: Vec<f32> = order.iter().flat_map(|from| row(*from)).copied().collect();
            let mut turned = vec![0.0; shuffled.len()];
            let blocks = rotations.chunks_exact((n * n).max(1));
            let rows = (n * columns).max(1);
            for ((block, from), to) in
                blocks.zip(shuffled.chunks_exact(rows)).zip(turned.chunks_exact_mut(rows))
            {
                let block: Vec<f32> = block.iter().map(|value| *value as f32).collect();
                add_product(1.0, &block, from, to, n)?;
            }
            for (to, from) in order.iter().zip(turned.chunks_exact(columns)) {
                if let Some(row) = changed.get_mut(to * columns..(to + 1) * columns) {
                    row.copy_from_slice(from);
                }
            }
        }
        put(file, self.rescale.as_ref(), (sizes, strength), &changed, weights)
    }
}
