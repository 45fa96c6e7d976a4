//! What a pass draws.

use crate::Result;
use crate::sampling::{ImageNoise, NoiseGenerator, Sampler, Sigmas};
use crate::tensor::Tensor;

/// A batch of images and how they are sampled.
pub(super) struct PassPlan<'a> {
    /// Which of its kind.
    pub index: usize,
    /// Images before it in the request.
    pub first_image: usize,
    /// One per image.
    pub seeds: Vec<u64>,
    /// What each begins with.
    pub noises: Vec<ImageNoise>,
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
    /// Latents that go through the UNet together. Kernels give each the same bits whatever stands beside it, so this
    /// never shows in the picture.
    pub samples_at_once: usize,
}

impl PassPlan<'_> {
    /// The noise that each image begins with, stacked, and its generator of step noise.
    pub(super) fn begin(&self) -> Result<(Tensor, Vec<NoiseGenerator>)> {
        let (first, generators): (Vec<_>, Vec<_>) =
            self.noises.iter().map(|noise| noise.begin(self.shape())).unzip();
        Ok((self.stacked(first.concat())?, generators))
    }

    /// Each image's next noise from its own generator, stacked.
    pub(super) fn draw(&self, generators: &mut [NoiseGenerator]) -> Result<Tensor> {
        let count = self.shape().iter().product();
        self.stacked(generators.iter_mut().flat_map(|generator| generator.normal(count)).collect())
    }

    /// Channels, rows and columns of an image's latents.
    fn shape(&self) -> [usize; 3] {
        [self.channels, self.height / 8, self.width / 8]
    }

    fn stacked(&self, values: Vec<f32>) -> Result<Tensor> {
        let [channels, rows, columns] = self.shape();
        Tensor::new(values, [self.noises.len(), channels, rows, columns])
    }
}
