//! What a caller sees of a request that runs. None of it can fail or change the picture.

use super::evaluation::PassKind;
use crate::image::RgbImage;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Prompts become conditioning.
    Conditioning,
    /// The sampler's loop.
    Denoising,
    /// Latents become pixels.
    Decoding,
}

/// One report of progress. Steps count over the whole request: `n_iter` passes of `steps` each, and of those of second passes
/// if there are any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What has just been done.
    pub phase: Phase,
    /// What the pass is for.
    pub pass: PassKind,
    /// Sampler steps finished, over all passes.
    pub step: usize,
    /// Sampler steps in all, over all passes.
    pub steps: usize,
}

/// Who looks on. Every method has a default that does nothing, so an implementation names only what it uses.
pub trait Watch: Send + Sync {
    /// Polled at the begin of each section of a network and between decoded images; `true` ends the request with
    /// [`crate::Error::Cancelled`].
    fn cancelled(&self) -> bool {
        false
    }

    /// A step or phase is done.
    fn progress(&mut self, _progress: Progress) {}

    /// Of a picture that is made larger on the way, so many parts are done.
    fn upscaled(&mut self, _part: usize, _parts: usize) {}

    /// The faces of one more picture are restored.
    fn restored(&mut self) {}

    /// Something that whoever asked for the picture should know.
    fn notice(&mut self, _text: &str) {}

    /// Whether the latents after this step (counted from 1 within the pass) are wanted as a picture.
    fn wants_preview(&self, _step: usize) -> bool {
        false
    }

    /// A cheap picture of the denoised latents, one per image of the batch: at 1/8 of the size, or of the picture's where
    /// TAESD makes it.
    fn preview(&mut self, _step: usize, _images: Vec<RgbImage>) {}
}

/// Looks at nothing.
pub struct NoWatch;

impl Watch for NoWatch {}
