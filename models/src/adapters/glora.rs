//! GLoRA (Chavan et al. 2023): W' = W + W · A + B, where A and B are products of two matrices. LyCORIS wrote it in two
//! ways: B is b2 · b1 without a scale at first, and b1 · b2 times alpha / rank now; A likewise.

use super::change::{Change, Sizes, at_odds, scale, without_rank};
use super::math::{add_product, product, transposed};
use super::source::Stored;
use crate::Result;
use crate::files::Tensors;

pub(super) struct Glora {
    /// A: `(inputs, rank) · (rank, inputs)`.
    a: (Stored, Stored),
    /// B: `(outputs, rank) · (rank, inputs · taps)`.
    b: (Stored, Stored),
    scale: f32,
}

impl Glora {
    /// `alpha` tells the newer form where the shapes do not.
    pub(super) fn new(
        file: &Tensors,
        [a1, a2, b1, b2]: [Stored; 4],
        alpha: Option<f32>,
        outputs: usize,
    ) -> Result<Self> {
        // In the newer form the first of each pair has the rank in its second dimension.
        let is_new = |first: &Stored, second: &Stored| first.matrix().1 == second.size(0);
        let newer = is_new(&b1, &b2) && b1.size(0) == outputs;
        let older = is_new(&b2, &b1) && b2.size(0) == outputs;
        let is_newer = newer && (!older || alpha.is_some());
        let (a, b) = if is_newer { ((a1, a2), (b1, b2)) } else { ((a2, a1), (b2, b1)) };
        for (first, second) in [&a, &b] {
            if second.size(0) == 0 {
                return Err(without_rank(file, second));
            }
            if first.matrix().1 != second.size(0) {
                return Err(at_odds(file, first, second));
            }
        }
        let scale = if is_newer { scale(None, alpha, b.1.size(0)) } else { 1.0 };
        Ok(Self { a, b, scale })
    }
}

impl Change for Glora {
    fn fits(&self, sizes: Sizes) -> bool {
        let Self { a, b, .. } = self;
        (a.0.size(0), a.1.matrix().1) == (sizes.inputs, sizes.inputs)
            && (b.0.size(0), b.1.matrix().1) == (sizes.outputs, sizes.columns())
    }

    fn told(&self) -> String {
        format!("[{}, {}]", self.b.0.size(0), self.b.1.matrix().1)
    }

    fn apply(&self, file: &Tensors, sizes: Sizes, strength: f32, weights: &mut [f32]) -> Result<()> {
        let Self { a, b, .. } = self;
        let factor = strength * self.scale;
        let (first, second) = (a.0.read(file)?, a.1.read(file)?);
        let taps = sizes.taps.max(1);
        // A is over the inputs: they come last where a kernel stands behind them.
        let turned: Vec<f32> = if taps == 1 {
            weights.to_vec()
        } else {
            let rows = weights.chunks_exact(sizes.columns().max(1));
            rows.flat_map(|row| transposed(row, sizes.inputs)).collect()
        };
        let narrow = product(&turned, &first, sizes.inputs)?;
        let wide = product(&narrow, &second, second.len() / sizes.inputs.max(1))?;
        for (weights, wide) in
            weights.chunks_exact_mut(sizes.columns().max(1)).zip(wide.chunks_exact(sizes.columns().max(1)))
        {
            let wide = if taps == 1 { wide.to_vec() } else { transposed(wide, taps) };
            weights.iter_mut().zip(wide).for_each(|(weight, change)| *weight += factor * change);
        }
        let (first, second) = (b.0.read(file)?, b.1.read(file)?);
        add_product(factor, &first, &second, weights, b.1.size(0))
    }
}
