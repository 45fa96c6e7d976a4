//! LoHa (FedPara, Hyeon-Woo et al. 2021; LyCORIS): Δ = s · (w1a · w1b) ∘ (w2a · w2b); with kernels in matrices of their own
//! each factor is rebuilt from three.

use super::change::{Delta, Sizes, at_odds, without_rank};
use super::math::{product, transposed};
use super::source::Stored;
use crate::Result;
use crate::files::Tensors;

pub(super) struct Loha {
    factors: [Factor; 2],
    scale: f32,
}

/// Without `t`: `a (outputs, rank) · b (rank, inputs · taps)`. With `t (rank, rank, taps…)`: `a (rank, outputs)`,
/// `b (rank, inputs)`.
pub(super) struct Factor {
    pub a: Stored,
    pub b: Stored,
    pub t: Option<Stored>,
}

impl Factor {
    /// An error if its tensors do not go together.
    pub(super) fn check(&self, file: &Tensors) -> Result<()> {
        let Self { a, b, t } = self;
        let rank = b.size(0);
        if rank == 0 {
            return Err(without_rank(file, b));
        }
        let of_a = if t.is_some() { a.size(0) } else { a.size(1) };
        if of_a != rank || a.count() != a.size(0) * a.size(1) {
            return Err(at_odds(file, a, b));
        }
        match t {
            Some(t) if (t.size(0), t.size(1)) != (rank, rank) => Err(at_odds(file, t, b)),
            _ => Ok(()),
        }
    }

    pub(super) fn rank(&self) -> usize {
        self.b.size(0)
    }

    /// Outputs, and numbers of each.
    pub(super) fn sizes(&self) -> (usize, usize) {
        match &self.t {
            Some(t) => (self.a.size(1), self.b.size(1) * t.shape.iter().skip(2).product::<usize>()),
            None => (self.a.size(0), self.b.matrix().1),
        }
    }

    /// The factor itself, row-major.
    pub(super) fn rebuilt(&self, file: &Tensors) -> Result<Vec<f32>> {
        let (a, b, rank) = (self.a.read(file)?, self.b.read(file)?, self.rank());
        let Some(t) = &self.t else {
            return product(&a, &b, rank);
        };
        // Σ over both ranks of t[i, j, taps] · b[j, inputs] · a[i, outputs].
        let taps: usize = t.shape.iter().skip(2).product();
        let inputs = transposed(&b, rank);
        let mut between = Vec::with_capacity(rank * self.b.size(1) * taps);
        for t in t.read(file)?.chunks_exact((rank * taps).max(1)) {
            between.extend(product(&inputs, t, rank)?);
        }
        product(&transposed(&a, rank), &between, rank)
    }
}

impl Loha {
    pub(super) fn new(file: &Tensors, factors: [Factor; 2], scale: f32) -> Result<Self> {
        for factor in &factors {
            factor.check(file)?;
        }
        let [first, second] = &factors;
        if first.sizes() != second.sizes() {
            return Err(at_odds(file, &first.a, &second.a));
        }
        Ok(Self { factors, scale })
    }
}

impl Delta for Loha {
    fn fits(&self, sizes: Sizes) -> bool {
        self.factors[0].sizes() == (sizes.outputs, sizes.columns())
    }

    fn told(&self) -> String {
        let (outputs, columns) = self.factors[0].sizes();
        format!("[{outputs}, {columns}]")
    }

    fn add(&self, file: &Tensors, _sizes: Sizes, factor: f32, sums: &mut [f32]) -> Result<()> {
        let [first, second] = &self.factors;
        let (first, second) = (first.rebuilt(file)?, second.rebuilt(file)?);
        let factor = factor * self.scale;
        sums.iter_mut().zip(first.iter().zip(&second)).for_each(|(sum, (a, b))| *sum += factor * (a * b));
        Ok(())
    }
}
