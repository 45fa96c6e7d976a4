//! What a pass draws.

use super::evaluation::PassKind;
use super::sampling_options::SamplingOptions;
use crate::Result;
use crate::sampling::{BrownianTree, ImageNoise, NoiseGenerator, Sampler, Sigmas, StepNoise};
use crate::tensor::Tensor;

/// A batch of images and how they are sampled.
pub(super) struct PassPlan<'a> {
    /// What it is for.
    pub kind: PassKind,
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
    /// What else was asked for.
    pub sampling: &'a SamplingOptions,
    /// Model calls as A1111 counts them, which shares of them are shares of.
    pub calls: usize,
    /// The guidance scale.
    pub cfg_scale: f64,
    /// Latents that go through the UNet together. Kernels give each the same bits whatever stands beside it, so this
    /// never shows in the picture.
    pub samples_at_once: usize,
    /// How deep the request lies within others.
    pub depth: u32,
}

impl PassPlan<'_> {
    /// Rows and columns of its latents.
    pub(super) fn latents(&self) -> (usize, usize) {
        (self.height / 8, self.width / 8)
    }

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

    /// The generators that noise is drawn from on the way, given those that the initial noise was drawn from.
    pub(super) fn generators_on_the_way(&self, initial: Vec<NoiseGenerator>) -> Vec<NoiseGenerator> {
        match self.sampling.sampler.eta_noise_seed_delta {
            0 => initial,
            delta => {
                let of = |noise: &ImageNoise| {
                    NoiseGenerator::new(noise.source, noise.seed.wrapping_add_signed(delta))
                };
                self.noises.iter().map(of).collect()
            }
        }
    }

    /// The same for one of its images.
    pub(super) fn of_image(&self, image: usize) -> Self {
        let seeds = self.seeds.get(image).copied().into_iter().collect();
        let noises = self.noises.get(image).copied().into_iter().collect();
        Self { first_image: self.first_image + image, seeds, noises, ..*self }
    }

    /// One motion per image over all levels, whichever of them this pass begins at; none if the sampler has no use for
    /// them.
    pub(super) fn trees(&self) -> Vec<BrownianTree> {
        if self.sampler.noise != StepNoise::Brownian {
            return vec![];
        }
        let levels = self.sigmas.levels.iter().copied().filter(|level| *level > 0.0);
        let (low, high) =
            levels.fold((f32::INFINITY, 0.0), |(low, high), level| (level.min(low), level.max(high)));
        let range = (f64::from(low), f64::from(high));
        let count = self.shape().iter().product();
        let tree = |noise: &ImageNoise| BrownianTree::new(noise.source, noise.seed, range, count);
        self.noises.iter().map(tree).collect()
    }

    /// Each image's noise from its own motion, stacked.
    pub(super) fn increments(&self, trees: &mut [BrownianTree], from: f64, to: f64) -> Result<Tensor> {
        self.stacked(trees.iter_mut().flat_map(|tree| tree.noise(from, to)).collect())
    }

    /// Channels, rows and columns of an image's latents.
    fn shape(&self) -> [usize; 3] {
        let (rows, columns) = self.latents();
        [self.channels, rows, columns]
    }

    fn stacked(&self, values: Vec<f32>) -> Result<Tensor> {
        let [channels, rows, columns] = self.shape();
        Tensor::new(values, [self.noises.len(), channels, rows, columns])
    }
}
