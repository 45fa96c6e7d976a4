//! The stages of a picture at which a caller can look, change, or stop.

use candle_core::Tensor;

use crate::Result;
use crate::image::RgbImage;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Prompts become conditioning.
    Conditioning,
    /// The sampler's loop.
    Denoising,
    /// Latents become pixels.
    Decoding,
}

/// One report of progress. Steps count over the whole request: `n_iter` passes of `steps` each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What has just been done.
    pub stage: Stage,
    /// Sampler steps finished, over all passes.
    pub step: usize,
    /// Sampler steps in all, over all passes.
    pub steps: usize,
}

/// What a caller sees and may change. Every method has a default that does nothing, so an implementation
/// names only what it uses. An error from any of them ends the request.
///
/// Latents are `(batch, 4, height / 8, width / 8)` f32, in the model's own scale.
pub trait Hooks: Send {
    /// Polled before each model call and between decoded images; `true` ends the request with
    /// [`crate::Error::Cancelled`].
    fn cancelled(&self) -> bool {
        false
    }

    /// A step or stage is done.
    fn progress(&mut self, _progress: Progress) {}

    /// Whether the latents after this step (counted from 1 within the pass) are wanted as a picture.
    fn wants_preview(&self, _step: usize) -> bool {
        false
    }

    /// A cheap picture of the denoised latents, one per image of the batch, at 1/8 of the size.
    fn preview(&mut self, _step: usize, _images: Vec<RgbImage>) {}

    /// The prompts of one pass before they are parsed.
    fn prompt_rewrite(&mut self, _prompt: &mut String, _negative: &mut String) -> Result<()> {
        Ok(())
    }

    /// Conditioning `(1, tokens, width)`, positive and negative; they may differ in length.
    fn conditioning(&mut self, _cond: &mut Tensor, _uncond: &mut Tensor) -> Result<()> {
        Ok(())
    }

    /// Pass `index` of `n_iter` begins; `seeds` has one entry per image.
    fn pass_begin(&mut self, _index: usize, _seeds: &[u64]) -> Result<()> {
        Ok(())
    }

    /// The initial noise, unit variance, before it is scaled by the first sigma.
    fn noise_init(&mut self, _noise: &mut Tensor) -> Result<()> {
        Ok(())
    }

    /// The latents `x` at `sigma`, before the model sees them.
    fn denoise_before(&mut self, _x: &mut Tensor, _sigma: f64) -> Result<()> {
        Ok(())
    }

    /// Residuals to add in the UNet, as a ControlNet makes them: one per skip connection, then the middle
    /// block's, each `(2 · batch, channels, height, width)`. `x` is scaled as the UNet sees it, all conditional
    /// samples, then all unconditional ones.
    fn control_residuals(&mut self, _x: &Tensor, _timesteps: &[f32]) -> Result<Option<Vec<Tensor>>> {
        Ok(None)
    }

    /// Both predictions of the noise-free latents, before guidance joins them.
    fn denoise_pre_cfg(&mut self, _cond: &mut Tensor, _uncond: &mut Tensor, _sigma: f64) -> Result<()> {
        Ok(())
    }

    /// The guided prediction of the noise-free latents.
    fn denoise_post_cfg(&mut self, _denoised: &mut Tensor, _sigma: f64) -> Result<()> {
        Ok(())
    }

    /// The latents the sampler ended with.
    fn latent_final(&mut self, _latents: &mut Tensor) -> Result<()> {
        Ok(())
    }

    /// One finished image; `index` counts over the whole request.
    fn image_post(&mut self, _index: usize, _image: &mut RgbImage) -> Result<()> {
        Ok(())
    }

    /// All images of one pass.
    fn batch_post(&mut self, _images: &mut Vec<RgbImage>) -> Result<()> {
        Ok(())
    }
}

/// Watches nothing, changes nothing.
pub struct NoHooks;

impl Hooks for NoHooks {}
