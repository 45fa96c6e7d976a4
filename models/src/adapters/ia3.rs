//! IA3 (Liu et al. 2022; LyCORIS): W' = W + W ∘ w, along inputs or outputs.

use super::change::{Change, Sizes};
use super::source::Stored;
use crate::Result;
use crate::files::Tensors;

pub(super) struct Ia3 {
    /// A factor for each input or output.
    pub factors: Stored,
    pub on_input: bool,
}

impl Change for Ia3 {
    fn fits(&self, sizes: Sizes) -> bool {
        self.factors.count() == if self.on_input { sizes.inputs } else { sizes.outputs }
    }

    fn told(&self) -> String {
        let side = if self.on_input { "inputs" } else { "outputs" };
        format!("{} {side}", self.factors.count())
    }

    fn apply(&self, file: &Tensors, sizes: Sizes, strength: f32, weights: &mut [f32]) -> Result<()> {
        let factors = self.factors.read(file)?;
        for (output, row) in weights.chunks_exact_mut(sizes.columns().max(1)).enumerate() {
            for (input, weights) in row.chunks_exact_mut(sizes.taps.max(1)).enumerate() {
                let place = if self.on_input { input } else { output };
                let factor = 1.0 + strength * factors.get(place).copied().unwrap_or_default();
                for weight in weights {
                    *weight *= factor;
                }
            }
        }
        Ok(())
    }
}
