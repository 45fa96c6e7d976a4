//! OFT (Qiu et al. 2023): blocks of outputs are turned by orthogonal matrices, R = (I + Q)(I − Q)⁻¹ with Q = B − Bᵀ, whose
//! size a constraint may bound. LyCORIS wrote R itself at first (`oft_diag`).

use super::change::{Change, Sizes};
use super::math::{add_product, inverse};
use super::source::Stored;
use crate::files::Tensors;
use crate::{Error, Result};

pub(super) struct Oft {
    /// `(blocks, n, n)`: B of each, or R.
    pub blocks: Stored,
    /// Whether it is R.
    pub is_rotation: bool,
    /// What Q's norm is bounded by, for each output; not if `None` or 0.
    pub constraint: Option<f32>,
    /// A factor for each output, behind the rotation.
    pub rescale: Option<Stored>,
}

/// R of all blocks, `(blocks, n, n)`, of B: `blocks` is `(…, n, n)`, and the constraint is for the norm over all of them.
pub(super) fn rotations(file: &Tensors, blocks: &Stored, constraint: f64) -> Result<Vec<f64>> {
    let n = blocks.shape.last().copied().unwrap_or_default();
    let values = blocks.read(file)?;
    let size = (n * n).max(1);
    let mut skew: Vec<f64> = vec![];
    for block in values.chunks_exact(size) {
        let at = |row: usize, column: usize| f64::from(block[row * n + column]);
        skew.extend((0..n * n).map(|place| at(place / n, place % n) - at(place % n, place / n)));
    }
    let norm = skew.iter().map(|value| value * value).sum::<f64>().sqrt();
    if constraint > 0.0 && norm > constraint {
        for value in &mut skew {
            *value *= constraint / norm;
        }
    }
    let mut all = Vec::with_capacity(skew.len());
    for block in skew.chunks_exact(size) {
        let with_one = |sign: f64| {
            let one = |place: usize| if place / n == place % n { 1.0 } else { 0.0 };
            block.iter().enumerate().map(|(place, value)| one(place) + sign * value).collect::<Vec<_>>()
        };
        let inverse = inverse(&with_one(-1.0), n).ok_or_else(|| {
            Error::model(file.path(), format!("tensor {} makes no rotation; use another file", blocks.name))
        })?;
        // (I + Q) · (I − Q)⁻¹, both of which commute.
        let plus = with_one(1.0);
        for row in plus.chunks_exact(n) {
            let mut sums = vec![0.0; n];
            for (factor, inverse) in row.iter().zip(inverse.chunks_exact(n)) {
                sums.iter_mut().zip(inverse).for_each(|(sum, value)| *sum += factor * value);
            }
            all.extend(sums);
        }
    }
    Ok(all)
}

/// Puts `strength` of what `changed` is, each output times its factor, in the place of weights.
pub(super) fn put(
    file: &Tensors,
    rescale: Option<&Stored>,
    (sizes, strength): (Sizes, f32),
    changed: &[f32],
    weights: &mut [f32],
) -> Result<()> {
    let factors = rescale.map(|rescale| rescale.read(file)).transpose()?;
    let columns = sizes.columns().max(1);
    for (output, (weights, changed)) in
        weights.chunks_exact_mut(columns).zip(changed.chunks_exact(columns)).enumerate()
    {
        let factor = factors.as_ref().and_then(|factors| factors.get(output)).copied().unwrap_or(1.0);
        for (weight, changed) in weights.iter_mut().zip(changed) {
            *weight += strength * (factor * changed - *weight);
        }
    }
    Ok(())
}

/// What Q's norm may be: alpha for each output.
pub(super) fn most(constraint: Option<f32>, outputs: usize) -> f64 {
    f64::from(constraint.unwrap_or_default()) * outputs as f64
}

pub(super) fn rescale_fits(rescale: Option<&Stored>, sizes: Sizes) -> bool {
    rescale.is_none_or(|rescale| rescale.count() == sizes.outputs)
}

impl Change for Oft {
    fn fits(&self, sizes: Sizes) -> bool {
        let [blocks, rows, columns] = self.blocks.shape[..] else { return false };
        rows == columns
            && blocks.checked_mul(rows) == Some(sizes.outputs)
            && rescale_fits(self.rescale.as_ref(), sizes)
    }

    fn told(&self) -> String {
        format!("blocks {:?}", self.blocks.shape)
    }

    fn apply(&self, file: &Tensors, sizes: Sizes, strength: f32, weights: &mut [f32]) -> Result<()> {
        let n = self.blocks.size(1);
        let rotations: Vec<f64> = if self.is_rotation {
            self.blocks.read(file)?.into_iter().map(f64::from).collect()
        } else {
            rotations(file, &self.blocks, most(self.constraint, sizes.outputs))?
        };
        let mut changed = vec![0.0; weights.len()];
        let rows = (n * sizes.columns()).max(1);
        let blocks = rotations.chunks_exact((n * n).max(1));
        for ((block, weights), changed) in
            blocks.zip(weights.chunks_exact(rows)).zip(changed.chunks_exact_mut(rows))
        {
            // Rᵀ W.
            let turned: Vec<f32> = (0..n * n).map(|place| block[place % n * n + place / n] as f32).collect();
            add_product(1.0, &turned, weights, changed, n)?;
        }
        put(file, self.rescale.as_ref(), (sizes, strength), &changed, weights)
    }
}
