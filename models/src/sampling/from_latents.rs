//! Sampling from latents instead of from noise alone: how much noise is added to them, and which levels remain.

use super::model_sigmas::{ModelSigmas, Sigmas};
use super::options::SamplerOptions;
use super::sampler::{Levels, SamplerInfo, Timesteps, scheduled};
use super::schedules::Schedule;
use crate::{Error, Result};

/// How far latents are drawn anew; A1111's `setup_img2img_steps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartOfSteps {
    /// Steps that levels are made for.
    pub steps: usize,
    /// Of them so many remain, and one more.
    pub kept: usize,
}

/// What sampling from latents begins with. The first state is (latents + `noise` · unit noise) times the initial scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Beginning {
    /// Levels that remain; where there is only one, or none, nothing is drawn.
    pub sigmas: Sigmas,
    /// The level of the noise that is added.
    pub noise: f64,
}

impl PartOfSteps {
    /// Levels of a schedule are not made for more steps.
    const MOST: f64 = 10_000.0;

    /// Of `steps` at a strength from 0, nothing, to 1, all: as many of them as that is a share of, or, if `is_fixed`, a share of
    /// more so that they all remain.
    ///
    /// # Errors
    /// If that would be more steps than can be.
    pub fn new(steps: usize, strength: f64, is_fixed: bool) -> Result<Self> {
        let share = strength.min(0.999);
        if !is_fixed {
            return Ok(Self { steps, kept: (share * steps as f64) as usize });
        }
        let all = steps as f64 / share;
        if !(1.0..=Self::MOST).contains(&all) {
            return Err(Error::Request(format!(
                "denoising_strength is {strength}; {steps} steps of it are too many of all: give more strength or fewer \
                 steps, or leave img2img_fix_steps out"
            )));
        }
        Ok(Self { steps: all as usize, kept: steps.saturating_sub(1) })
    }
}

/// How a sampler begins from latents.
pub fn levels_from_latents(
    sampler: &SamplerInfo,
    model: &ModelSigmas,
    schedule: Schedule,
    part: PartOfSteps,
    options: &SamplerOptions,
) -> Result<Beginning> {
    if let Levels::Timesteps(own) = sampler.levels {
        let steps = part.steps + usize::from(options.always_discard_next_to_last_sigma);
        let all = Timesteps { steps, lowest: None }.of(model);
        let Some(noised) = all.get(part.kept).and_then(|timestep| model.sigmas().get(*timestep)) else {
            return Err(Error::Request(format!(
                "{} of {} steps cannot be drawn by timesteps, of which there are {}; give fewer steps, or another sampler",
                part.kept,
                part.steps,
                all.len()
            )));
        };
        let mut sigmas = own(model, &Timesteps { steps, lowest: Some(part.kept) }, options);
        let noise = f64::from(*noised);
        // The state is one of constant variance at the level of its noise, which is one above the first that is visited.
        sigmas.initial_scale /= noise.hypot(1.0);
        return Ok(Beginning { sigmas, noise });
    }
    let all = scheduled(sampler, model, schedule, part.steps, options)?;
    let first = part.steps.saturating_sub(part.kept + 1);
    let Some([first, rest @ ..]) = all.get(first..) else {
        return Err(Error::Request(format!(
            "the schedule has {} levels for {} steps, of which {} cannot be left; give more steps, or another schedule",
            all.len(),
            part.steps,
            part.kept + 1
        )));
    };
    let left = match sampler.levels {
        Levels::Own(own) => {
            let Some(lowest) = rest.iter().rev().nth(1) else {
                return Err(Error::Request(format!(
                    "{} has no way to go in the one step that is left of {}; give more denoising_strength, more steps, or \
                     another sampler",
                    sampler.name, part.steps
                )));
            };
            own((*lowest, *first), rest.len())
        }
        _ => [&[*first], rest].concat(),
    };
    let sigmas = Sigmas { levels: left, initial_scale: 1.0, final_scale: 1.0 };
    Ok(Beginning { sigmas, noise: f64::from(*first) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Sampler;

    #[test]
    fn strength_is_a_share_of_the_steps() {
        for (steps, strength, is_fixed, expected) in [
            (20, 0.75, false, (20, 15)),
            (20, 1.0, false, (20, 19)),
            (20, 0.0, false, (20, 0)),
            (1, 1.0, false, (1, 0)),
            (20, 0.75, true, (26, 19)),
            (20, 1.0, true, (20, 19)),
            (1, 0.5, true, (2, 0)),
        ] {
            let part = PartOfSteps::new(steps, strength, is_fixed).expect("steps");
            assert_eq!((part.steps, part.kept), expected, "{steps}, {strength}, {is_fixed}");
        }
        assert!(PartOfSteps::new(20, 0.0, true).is_err() && PartOfSteps::new(20, 1e-9, true).is_err());
    }

    #[test]
    fn every_sampler_begins_anywhere() {
        let (model, options) = (ModelSigmas::default(), SamplerOptions::default());
        for sampler in Sampler::all() {
            for steps in [1, 2, 3, 7, 20, 999] {
                for strength in [0.0, 0.01, 0.3, 0.5, 0.75, 1.0] {
                    let part = PartOfSteps::new(steps, strength, false).expect("steps");
                    let begin = levels_from_latents(&sampler, &model, Schedule::Automatic, part, &options);
                    if part.kept == 0 && matches!(sampler.levels, Levels::Own(_)) {
                        assert!(begin.expect_err("refused").to_string().contains("no way to go"));
                        continue;
                    }
                    let begin =
                        begin.unwrap_or_else(|error| panic!("{sampler}, {steps}, {strength}: {error}"));
                    assert!(begin.noise.is_finite() && begin.noise > 0.0);
                    let levels = &begin.sigmas.levels;
                    assert!(levels.iter().all(|level| level.is_finite()), "{sampler}, {steps}, {strength}");
                    assert!(
                        levels.windows(2).all(|pair| pair[0] >= pair[1]),
                        "{sampler}, {steps}, {strength}"
                    );
                    assert!(levels.len() <= part.kept + 2, "{sampler}, {steps}, {strength}");
                }
            }
        }
    }
}
