//! LoKr (LyCORIS): Δ = s · w1 ⊗ w2, Kronecker's product, each matrix whole or factored.

use super::change::{Delta, Sizes};
use super::loha::Factor;
use super::source::Stored;
use crate::Result;
use crate::files::Tensors;

/// One of both matrices.
pub(super) enum Side {
    Whole(Stored),
    Factored(Factor),
}

impl Side {
    fn check(&self, file: &Tensors) -> Result<()> {
        match self {
            Self::Whole(_) => Ok(()),
            Self::Factored(factor) => factor.check(file),
        }
    }

    /// Rows, and numbers of each.
    fn sizes(&self) -> (usize, usize) {
        match self {
            Self::Whole(tensor) => tensor.matrix(),
            Self::Factored(factor) => factor.sizes(),
        }
    }

    fn read(&self, file: &Tensors) -> Result<Vec<f32>> {
        match self {
            Self::Whole(tensor) => tensor.read(file),
            Self::Factored(factor) => factor.rebuilt(file),
        }
    }

    /// What its scale is divided by; none for a whole one.
    pub(super) fn rank(&self) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Factored(factor) => Some(factor.rank()),
        }
    }
}

pub(super) struct Lokr {
    /// `(a, b)`.
    first: Side,
    /// `(c, d, taps)`.
    second: Side,
    scale: f32,
}

impl Lokr {
    pub(super) fn new(file: &Tensors, first: Side, second: Side, scale: f32) -> Result<Self> {
        first.check(file)?;
        second.check(file)?;
        Ok(Self { first, second, scale })
    }
}

impl Delta for Lokr {
    fn fits(&self, sizes: Sizes) -> bool {
        let ((a, b), (c, d)) = (self.first.sizes(), self.second.sizes());
        let products = (a.checked_mul(c), b.checked_mul(d));
        products == (Some(sizes.outputs), Some(sizes.columns())) && d.is_multiple_of(sizes.taps.max(1))
    }

    fn told(&self) -> String {
        let ((a, b), (c, d)) = (self.first.sizes(), self.second.sizes());
        format!("[{a}, {b}] ⊗ [{c}, {d}]")
    }

    fn add(&self, file: &Tensors, sizes: Sizes, factor: f32, sums: &mut [f32]) -> Result<()> {
        let (_, b) = self.first.sizes();
        let (c, d) = self.second.sizes();
        let (first, second) = (self.first.read(file)?, self.second.read(file)?);
        let factor = factor * self.scale;
        // Row i · c + k of the product is row i of the first, each number times all of row k of the second.
        for (row, sums) in sums.chunks_exact_mut(sizes.columns().max(1)).enumerate() {
            let (i, k) = (row / c, row % c);
            let (Some(first), Some(second)) = (first.get(i * b..(i + 1) * b), second.get(k * d..(k + 1) * d))
            else {
                continue;
            };
            for (first, sums) in first.iter().zip(sums.chunks_exact_mut(d.max(1))) {
                let factor = factor * first;
                sums.iter_mut().zip(second).for_each(|(sum, second)| *sum += factor * second);
            }
        }
        Ok(())
    }
}
