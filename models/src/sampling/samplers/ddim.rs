//! DDIM (Song et al. 2021), which is Euler's method, ancestral with eta, on a state of constant variance, x / √(1 + σ²).

use super::euler_ancestral::euler_ancestral;
use crate::sampling::model_sigmas::{ModelSigmas, Sigmas};
use crate::sampling::options::SamplerOptions;
use crate::sampling::sampler::{Levels, SamplerInfo, StepNoise, Timesteps};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DDIM",
    levels: Levels::Timesteps(levels),
    noise: StepNoise::Fresh,
    eta: Some(0.0),
    run: euler_ancestral,
    ..SamplerInfo::PLAIN
};

/// It starts from noise itself, and ends at its smallest timestep, not at 0.
pub(super) fn levels(model: &ModelSigmas, timesteps: &Timesteps, _options: &SamplerOptions) -> Sigmas {
    let timesteps = timesteps.of(model);
    of_constant_variance(timesteps.iter().rev().map(|t| model.sigmas()[*t]).collect())
}

/// Levels for a state that begins and ends divided by √(1 + σ²).
pub(super) fn of_constant_variance(levels: Vec<f32>) -> Sigmas {
    let scale = |level: Option<&f32>| (1.0 + level.map_or(0.0, |sigma| f64::from(*sigma).powi(2))).sqrt();
    let (initial_scale, final_scale) = (scale(levels.first()), 1.0 / scale(levels.last()));
    Sigmas { levels, initial_scale, final_scale }
}
