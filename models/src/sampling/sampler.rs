//! All that is known of a sampler, in one row.

use super::denoise::Denoise;
use super::model_sigmas::{ModelSigmas, Sigmas};
use super::options::SamplerOptions;
use super::schedules::{Rounding, Schedule};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The noise that a sampler draws while it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepNoise {
    /// None: the initial noise decides all.
    None,
    /// The next of each image's generator, before steps, if `s_churn` asks for some.
    Churned,
    /// The next of each image's generator, whatever the levels.
    Fresh,
    /// The increments of a Brownian motion, one per image.
    Brownian,
}

/// Where a sampler's levels come from.
#[derive(Clone, Copy)]
pub enum Levels {
    /// A schedule over the model's levels.
    Schedule,
    /// A schedule over levels made of the model's.
    ScheduleOver(fn(&ModelSigmas) -> ModelSigmas),
    /// The sampler itself, by timesteps: those that A1111 has for so many steps, or the lowest few of them.
    Timesteps(fn(&ModelSigmas, &Timesteps, &SamplerOptions) -> Sigmas),
    /// The sampler itself, between a lowest and a highest level, for so many steps.
    Own(fn((f32, f32), usize) -> Vec<f32>),
}

/// Which timesteps a sampler that goes by them visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timesteps {
    /// For so many steps.
    pub steps: usize,
    /// So many of those, the lowest; all if `None`.
    pub lowest: Option<usize>,
}

impl Timesteps {
    /// They themselves, rising.
    pub fn of(&self, model: &ModelSigmas) -> Vec<usize> {
        let mut all = model.ddim_timesteps(self.steps);
        all.truncate(self.lowest.unwrap_or(all.len()));
        all
    }
}

/// A sampler.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct SamplerInfo {
    /// A1111's name.
    pub name: &'static str,
    /// Other names that A1111 takes for it.
    pub aliases: &'static [&'static str],
    /// What "Automatic" means.
    pub default_schedule: Schedule,
    /// Where its levels come from.
    pub levels: Levels,
    /// Model calls along these levels; `None` if it decides that on its way.
    pub calls: fn(&[f32]) -> Option<usize>,
    /// The noise it draws.
    pub noise: StepNoise,
    /// `eta` if the request has none; `None` if it does not use that.
    pub eta: Option<f64>,
    /// Whether it uses `s_noise`; with [`StepNoise::Churned`] it does so only with `s_churn`.
    pub s_noise: bool,
    /// Whether A1111 counts two model calls a step, as it does where a share of the calls is meant.
    pub second_order: bool,
    /// Whether one step more is planned, and the level before the last left out.
    pub discard_next_to_last_sigma: bool,
    /// What the guidance scale is multiplied by.
    pub guidance_factor: f64,
    /// Whether it looks at what is steered away from on its own, so that this cannot be left out at scale 1.
    pub uses_uncond: bool,
    /// Whether it uses what is said of UniPC.
    pub takes_uni_pc_options: bool,
    /// Whether each image goes its own way, so that it must be sampled alone.
    pub goes_alone: bool,
    /// Takes the first state along a path.
    pub run: fn(Tensor, &Path, &mut dyn Denoise) -> Result<Tensor>,
}

/// What a sampler goes along.
pub struct Path<'a> {
    /// Levels from the first to the last: one more than there are steps.
    pub levels: &'a [f32],
    /// How much of the noise that a step takes away is drawn anew.
    pub eta: f64,
    /// What else was asked for.
    pub options: &'a SamplerOptions,
    /// The model's levels, as the sampler sees them.
    pub model: &'a ModelSigmas,
}

impl SamplerInfo {
    /// A row for what most samplers have: a level per step from a schedule, one model call a step, no noise. Name and
    /// function are to be given.
    pub(super) const PLAIN: Self = Self {
        name: "",
        aliases: &[],
        default_schedule: Schedule::Uniform,
        levels: Levels::Schedule,
        calls: |levels| Some(levels.len().saturating_sub(1)),
        noise: StepNoise::None,
        eta: None,
        s_noise: false,
        second_order: false,
        discard_next_to_last_sigma: false,
        guidance_factor: 1.0,
        uses_uncond: false,
        takes_uni_pc_options: false,
        goes_alone: false,
        run: |x, _, _| Ok(x),
    };

    /// `eta` for a request; 0 for a sampler that has none.
    pub fn eta(&self, options: &SamplerOptions) -> f64 {
        self.eta.map_or(0.0, |default| options.eta.unwrap_or(default))
    }

    /// Whether noise drawn from the images' generators on the way has an effect.
    pub fn draws_fresh(&self, options: &SamplerOptions) -> bool {
        match self.noise {
            StepNoise::None | StepNoise::Brownian => false,
            StepNoise::Churned => options.s_churn > 0.0,
            StepNoise::Fresh => self.eta.is_none() || self.eta(options) != 0.0,
        }
    }

    /// Whether `s_noise` has an effect.
    pub fn uses_s_noise(&self, options: &SamplerOptions) -> bool {
        match self.noise {
            StepNoise::Churned => options.s_churn > 0.0,
            StepNoise::Brownian => self.eta(options) != 0.0,
            StepNoise::None | StepNoise::Fresh => self.s_noise && self.draws_fresh(options),
        }
    }

    /// Whether it goes by timesteps, which are then what A1111 calls its sigmas.
    pub fn goes_by_timesteps(&self) -> bool {
        matches!(self.levels, Levels::Timesteps(_))
    }

    /// The schedule that is meant; `None` if it has levels of its own, whatever is asked for.
    pub fn schedule(&self, wanted: Schedule) -> Option<Schedule> {
        match self.levels {
            Levels::Schedule | Levels::ScheduleOver(_) if wanted == Schedule::Automatic => {
                Some(self.default_schedule)
            }
            Levels::Schedule | Levels::ScheduleOver(_) => Some(wanted),
            Levels::Timesteps(_) | Levels::Own(_) => None,
        }
    }

    /// The model's levels as the sampler sees them.
    fn seen(&self, model: &ModelSigmas) -> ModelSigmas {
        match self.levels {
            Levels::ScheduleOver(of) => of(model),
            Levels::Schedule | Levels::Timesteps(_) | Levels::Own(_) => model.clone(),
        }
    }
}

/// Model calls of a sampler that makes two a step, and one for a step to 0.
pub(super) fn two_a_step(levels: &[f32]) -> usize {
    levels.iter().skip(1).map(|next| if *next > 0.0 { 2 } else { 1 }).sum()
}

impl SamplerInfo {
    /// Model calls that A1111 foresees for so many steps, in which the numbers of a prompt that changes count.
    pub fn foreseen_calls(&self, steps: usize) -> usize {
        if self.second_order { steps * 2 } else { steps }
    }
}

/// The levels that a sampler visits in at least one step.
pub fn levels(
    sampler: &SamplerInfo,
    model: &ModelSigmas,
    schedule: Schedule,
    steps: usize,
    options: &SamplerOptions,
) -> Result<Sigmas> {
    if steps == 0 {
        return Err(Error::Request("steps is 0; at least 1 is needed".to_owned()));
    }
    let always = options.always_discard_next_to_last_sigma;
    let levels = match sampler.levels {
        Levels::Timesteps(own) => {
            return Ok(own(model, &Timesteps { steps: steps + usize::from(always), lowest: None }, options));
        }
        Levels::Own(own) => own((model.min(), model.max()), steps),
        Levels::Schedule | Levels::ScheduleOver(_) => scheduled(sampler, model, schedule, steps, options)?,
    };
    let first = f64::from(levels.first().copied().unwrap_or_default());
    let initial_scale = if options.sgm_noise_multiplier { first.hypot(1.0) } else { first };
    Ok(Sigmas { levels, initial_scale, final_scale: 1.0 })
}

/// Levels by a schedule, also for a sampler that has its own when it starts from noise.
pub(super) fn scheduled(
    sampler: &SamplerInfo,
    model: &ModelSigmas,
    schedule: Schedule,
    steps: usize,
    options: &SamplerOptions,
) -> Result<Vec<f32>> {
    let schedule = if schedule == Schedule::Automatic { sampler.default_schedule } else { schedule };
    let discards = options.always_discard_next_to_last_sigma || sampler.discard_next_to_last_sigma;
    // A Brownian tree tells levels apart that are the same for all else.
    let brownian = sampler.noise == StepNoise::Brownian;
    let rounding = if brownian { Rounding::Torch } else { Rounding::Once };
    let mut levels =
        schedule.levels(steps + usize::from(discards), &sampler.seen(model), options, rounding)?;
    if discards && levels.len() > 2 {
        levels.remove(levels.len() - 2);
    }
    Ok(levels)
}

/// Takes unit noise `(batch, channels, height, width)`, or whatever is the first state once it is multiplied by the initial
/// scale, through all levels to latents.
pub fn sample(
    sampler: &SamplerInfo,
    noise: &Tensor,
    sigmas: &Sigmas,
    model: &ModelSigmas,
    options: &SamplerOptions,
    denoise: &mut dyn Denoise,
) -> Result<Tensor> {
    let model = &sampler.seen(model);
    let path = Path { levels: &sigmas.levels, eta: sampler.eta(options), options, model };
    let mut x = noise.scaled(sigmas.initial_scale);
    // From latents there may be no step left.
    if sigmas.levels.len() > 1 {
        x = (sampler.run)(x, &path, denoise)?;
    }
    Ok(x.scaled(sigmas.final_scale))
}
