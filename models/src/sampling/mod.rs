//! Noise, sigmas and samplers.

mod brownian;
mod denoise;
mod from_latents;
mod image_noise;
mod model_sigmas;
mod named;
mod noise;
mod options;
pub(crate) mod pcg64;
mod sampler;
mod samplers;
mod schedules;
mod seed_sequence;

pub use brownian::BrownianTree;
pub use denoise::{Denoise, Denoised};
pub use from_latents::{Beginning, PartOfSteps, levels_from_latents};
pub use image_noise::{ImageNoise, Variation};
pub use model_sigmas::{ModelSigmas, Sigmas};
pub use noise::{NoiseGenerator, NoiseSource, philox_4x32_10};
pub use options::{SamplerOptions, UniPcOptions, UniPcSkipType, UniPcVariant};
pub use sampler::{Levels, Path, SamplerInfo, StepNoise, Timesteps, levels, sample};
pub use samplers::Sampler;
pub use schedules::Schedule;
