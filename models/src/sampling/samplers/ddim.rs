//! DDIM (Song et al. 2021) with eta 0, which is Euler's method on a state of constant variance, x / √(1 + σ²).

use super::euler::euler;
use crate::sampling::sampler::{SamplerInfo, StepNoise};
use crate::sampling::schedule::{ModelSigmas, Schedule, Sigmas};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DDIM",
    aliases: &[],
    default_schedule: Schedule::Uniform,
    calls: |steps| steps,
    noise: StepNoise::None,
    levels: Some(levels),
    run: euler,
};

/// It starts from noise itself, and ends at its smallest timestep, not at 0.
fn levels(model: &ModelSigmas, steps: usize) -> Sigmas {
    let timesteps = model.ddim_timesteps(steps);
    let levels: Vec<f32> = timesteps.iter().rev().map(|t| model.sigmas()[*t]).collect();
    let scale = |level: Option<&f32>| (1.0 + level.map_or(0.0, |sigma| f64::from(*sigma).powi(2))).sqrt();
    let (initial_scale, final_scale) = (scale(levels.first()), 1.0 / scale(levels.last()));
    Sigmas { levels, initial_scale, final_scale }
}
