//! Text to image.

use super::{Hooks, Model};
use crate::Result;
use crate::image::RgbImage;
use crate::sampling::{NoiseSource, Sampler, Schedule};

/// A request to draw from text. Fields have A1111's meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Txt2Img {
    /// What to draw, in A1111's grammar.
    pub prompt: String,
    /// What to steer away from.
    pub negative_prompt: String,
    /// Seed of the first image; image `i` of the whole request has `seed + i`.
    pub seed: u64,
    /// Sampler steps, 1 or more.
    pub steps: usize,
    /// Guidance scale, finite; at 1 the unconditional half is not computed.
    pub cfg_scale: f64,
    /// Pixels, a multiple of 8.
    pub width: usize,
    /// Pixels, a multiple of 8.
    pub height: usize,
    /// The sampler.
    pub sampler: Sampler,
    /// The schedule of sigmas.
    pub schedule: Schedule,
    /// Images of one pass.
    pub batch_size: usize,
    /// Passes.
    pub n_iter: usize,
    /// Which hidden state of the text encoder conditions: 1 the last, 2 the one before it.
    pub clip_skip: usize,
    /// Where noise comes from.
    pub rng: NoiseSource,
    /// Memory that activations may take; above it guidance runs its halves one after the other, and if that
    /// is not enough the request fails. `None` does not check. Never changes the picture.
    pub memory_limit: Option<u64>,
}

/// One finished picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The pixels.
    pub image: RgbImage,
    /// The seed that draws it alone.
    pub seed: u64,
    /// A1111's `parameters` text without the model's name and hash, which the caller knows.
    pub infotext: crate::image::Infotext,
}

/// Draws `n_iter * batch_size` images. The result depends on the request and the model only.
pub fn txt2img(_model: &Model, request: &Txt2Img, _hooks: &mut dyn Hooks) -> Result<Vec<Output>> {
    Err(crate::Error::Unsupported(format!("not built yet: {}", request.prompt)))
}
