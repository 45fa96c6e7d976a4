//! DoRA (Liu et al. 2024): W' = magnitude · (W + Δ) / ‖W + Δ‖, per output, or per input as LyCORIS wrote it first.

use super::change::{Change, Delta, Sizes};
use super::source::Stored;
use crate::Result;
use crate::files::Tensors;

/// Whose norms they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Outputs,
    Inputs,
}

pub(super) struct Dora {
    pub delta: Box<dyn Delta>,
    pub magnitude: Stored,
    pub axis: Axis,
}

/// Keeps a row of zeros what it is.
const SMALLEST_NORM: f64 = f32::EPSILON as f64;

impl Axis {
    /// Of LyCORIS' magnitudes: `(1, inputs, …)` or `(outputs, 1, …)`.
    pub(super) fn of_lycoris(magnitude: &Stored) -> Self {
        if magnitude.size(0) == 1 && magnitude.size(1) > 1 { Self::Inputs } else { Self::Outputs }
    }
}

impl Change for Dora {
    fn fits(&self, sizes: Sizes) -> bool {
        let count = match self.axis {
            Axis::Outputs => sizes.outputs,
            Axis::Inputs => sizes.inputs,
        };
        self.delta.fits(sizes) && self.magnitude.count() == count
    }

    fn told(&self) -> String {
        format!("{} with {} magnitudes", self.delta.told(), self.magnitude.count())
    }

    fn apply(&self, file: &Tensors, sizes: Sizes, strength: f32, weights: &mut [f32]) -> Result<()> {
        let magnitudes = self.magnitude.read(file)?;
        let mut changed = weights.to_vec();
        self.delta.add(file, sizes, 1.0, &mut changed)?;
        let (columns, taps) = (sizes.columns().max(1), sizes.taps.max(1));
        let mut squares = vec![0f64; magnitudes.len()];
        for (output, row) in changed.chunks_exact(columns).enumerate() {
            for (input, values) in row.chunks_exact(taps).enumerate() {
                let place = if self.axis == Axis::Outputs { output } else { input };
                if let Some(square) = squares.get_mut(place) {
                    *square += values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
                }
            }
        }
        let factors: Vec<f32> = magnitudes
            .iter()
            .zip(&squares)
            .map(|(magnitude, square)| (f64::from(*magnitude) / (square.sqrt() + SMALLEST_NORM)) as f32)
            .collect();
        let rows = weights.chunks_exact_mut(columns).zip(changed.chunks_exact(columns)).enumerate();
        for (output, (weights, changed)) in rows {
            let both = weights.chunks_exact_mut(taps).zip(changed.chunks_exact(taps)).enumerate();
            for (input, (weights, changed)) in both {
                let place = if self.axis == Axis::Outputs { output } else { input };
                let factor = factors.get(place).copied().unwrap_or(1.0);
                for (weight, changed) in weights.iter_mut().zip(changed) {
                    *weight += strength * (factor * changed - *weight);
                }
            }
        }
        Ok(())
    }
}
