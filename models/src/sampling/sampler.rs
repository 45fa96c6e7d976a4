//! All that is known of a sampler, in one row.

use super::denoise::Denoise;
use super::schedule::{ModelSigmas, Schedule, Sigmas};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The noise that a sampler draws while it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepNoise {
    /// None: the initial noise decides all.
    None,
    /// The next of each image's generator, whatever the levels.
    Fresh,
}

/// A sampler.
pub struct SamplerInfo {
    /// A1111's name.
    pub name: &'static str,
    /// Other names that A1111 takes for it.
    pub aliases: &'static [&'static str],
    /// What "Automatic" means.
    pub default_schedule: Schedule,
    /// Model calls for this many steps down to level 0.
    pub calls: fn(usize) -> usize,
    /// The noise it draws.
    pub noise: StepNoise,
    /// Levels of its own, whatever the schedule: for those that go by timesteps.
    pub levels: Option<fn(&ModelSigmas, usize) -> Sigmas>,
    /// Takes the first state through all levels.
    pub run: fn(Tensor, &[f32], &mut dyn Denoise) -> Result<Tensor>,
}

/// The levels that a sampler visits in at least one step.
pub fn levels(
    sampler: &SamplerInfo,
    model: &ModelSigmas,
    schedule: Schedule,
    steps: usize,
) -> Result<Sigmas> {
    if steps == 0 {
        return Err(Error::Request("steps is 0; at least 1 is needed".to_owned()));
    }
    if let Some(own) = sampler.levels {
        return Ok(own(model, steps));
    }
    let schedule = if schedule == Schedule::Automatic { sampler.default_schedule } else { schedule };
    Ok(model.schedule(schedule, steps))
}

/// Takes unit noise `(batch, channels, height, width)`, or whatever is the first state once it is multiplied by the initial
/// scale, through all levels to latents.
pub fn sample(
    sampler: &SamplerInfo,
    noise: &Tensor,
    sigmas: &Sigmas,
    model: &mut dyn Denoise,
) -> Result<Tensor> {
    let x = (sampler.run)(noise.scaled(sigmas.initial_scale), &sigmas.levels, model)?;
    Ok(x.scaled(sigmas.final_scale))
}
