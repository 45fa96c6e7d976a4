//! What a pass draws.

use crate::Result;
use crate::sampling::{NoiseGenerator, NoiseSource, Sampler, Sigmas};
use crate::tensor::Tensor;

/// A batch of images and how they are sampled.
pub(super) struct PassPlan<'a> {
    /// Which of its kind.
    pub index: usize,
    /// Images before it in the request.
    pub first_image: usize,
    /// One per image.
    pub seeds: Vec<u64>,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Channels of its latents.
    pub channels: usize,
    /// The sampler.
    pub sampler: Sampler,
    /// Levels for it.
    pub sigmas: &'a Sigmas,
    /// The guidance scale.
    pub cfg_scale: f64,
    /// Where noise comes from.
    pub rng: NoiseSource,
    /// Latents that go through the UNet together. Kernels give each the same bits whatever stands beside it, so this
    /// never shows in the picture.
    pub samples_at_once: usize,
}

impl PassPlan<'_> {
    /// Each image's next noise from its own generator, stacked.
    pub(super) fn draw(&self, generators: &mut [NoiseGenerator]) -> Result<Tensor> {
        let (rows, columns) = (self.height / 8, self.width / 8);
        let count = self.channels * rows * columns;
        let values = generators.iter_mut().flat_map(|generator| generator.normal(count)).collect();
        Tensor::new(values, [generators.len(), self.channels, rows, columns])
    }
}
