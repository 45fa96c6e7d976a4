//! Noise, sigmas and samplers.

mod denoise;
mod image_noise;
mod named;
mod noise;
mod sampler;
mod samplers;
mod schedule;

pub use denoise::Denoise;
pub use image_noise::{ImageNoise, Variation};
pub use noise::{NoiseGenerator, NoiseSource, philox_4x32_10};
pub use sampler::{SamplerInfo, StepNoise, levels, sample};
pub use samplers::Sampler;
pub use schedule::{ModelSigmas, Schedule, Sigmas};
