//! What the sampler's loop begins with.

use std::sync::Arc;

use super::guidance::masked;
use crate::error::{Result, bail};
use crate::sampling::Sigmas;
use crate::tensor::Tensor;

/// What the loop begins with.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// Noise alone.
    #[default]
    Noise,
    /// Latents, with noise of a level added.
    Latents {
        /// `(batch, channels, height, width)` in the model's scale: one per image, or one for all.
        latents: Tensor,
        /// Where to draw, `(height, width)`: 1 for anew, 0 for what `latents` have there to the end. Everywhere if
        /// `None`.
        mask: Option<Arc<Tensor>>,
        /// Which of the sampler's levels it begins at; levels before it are left out.
        first_level: usize,
    },
}

impl Start {
    /// The levels that remain. At least one step does.
    pub(super) fn levels(&self, sigmas: Sigmas) -> Result<Sigmas> {
        let Self::Latents { first_level, .. } = self else { return Ok(sigmas) };
        if first_level + 1 >= sigmas.levels.len() {
            bail!("a start at level {first_level} of {} leaves no step", sigmas.levels.len());
        }
        let levels = sigmas.levels[*first_level..].to_vec();
        let begin = |levels: &[f32]| levels.first().copied().map_or(1.0, f64::from);
        // What unit noise is multiplied by follows the level: σ itself, or √(1 + σ²) on a state of constant variance.
        let own = (sigmas.initial_scale - begin(&sigmas.levels)).abs() < f64::EPSILON;
        let initial_scale = if own { begin(&levels) } else { begin(&levels).hypot(1.0) };
        Ok(Sigmas { levels, initial_scale, ..sigmas })
    }

    /// Unit noise such that, times the initial scale, it is the state to begin with.
    pub(super) fn state(&self, noise: Tensor, sigmas: &Sigmas) -> Result<Tensor> {
        let Self::Latents { latents, .. } = self else { return Ok(noise) };
        let sigma = sigmas.levels.first().copied().unwrap_or_default();
        let scale = sigmas.initial_scale as f32;
        each(&noise, latents, |noise, latents| noise.zip(latents, |noise, x| (x + noise * sigma) / scale))
    }

    /// What is known of the picture beside what was predicted of it: outside of the mask that of `latents`.
    pub(super) fn keep(&self, predicted: Tensor) -> Result<Tensor> {
        let Self::Latents { latents, mask: Some(mask), .. } = self else { return Ok(predicted) };
        each(&predicted, latents, |predicted, latents| {
            let outside = mask.map(|value| 1.0 - value);
            masked(predicted.clone(), mask)?.plus(&masked(latents.clone(), &outside)?)
        })
    }
}

/// A function of each image of a batch and the latents that it begins with.
fn each(batch: &Tensor, latents: &Tensor, f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let images = batch.dim(0);
    if latents.dims().get(1..) != batch.dims().get(1..) || (latents.dim(0) != 1 && latents.dim(0) != images) {
        bail!("latents {:?} for a batch {:?}", latents.dims(), batch.dims());
    }
    let made: Vec<Tensor> = (0..images)
        .map(|index| f(&batch.narrow(0, index, 1)?, &latents.narrow(0, index % latents.dim(0), 1)?))
        .collect::<Result<_>>()?;
    Tensor::cat(&made.iter().collect::<Vec<_>>(), 0)
}
