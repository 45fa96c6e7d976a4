//! The model's noise levels, and which of them a sampler visits.
//!
//! f32 where A1111 has f32, f64 where it has Python floats.

use super::named::named;

/// Which sigmas the loop goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// The sampler's own.
    Automatic,
    /// Uniform in t.
    Uniform,
    /// Karras et al.
    Karras,
    /// Exponential in sigma.
    Exponential,
}

impl Schedule {
    /// All of them with A1111's names.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Automatic, "Automatic"),
        (Self::Uniform, "Uniform"),
        (Self::Karras, "Karras"),
        (Self::Exponential, "Exponential"),
    ];
}

named!(Schedule);

/// What a model was trained on: noise levels of 1000 timesteps, from scaled-linear betas 0.00085 to 0.012.
pub struct ModelSigmas {
    alphas_cumprod: Vec<f32>,
    sigmas: Vec<f32>,
    log_sigmas: Vec<f32>,
}

/// The levels a sampler visits, falling, and how its state relates to unit noise.
#[derive(Clone, Debug, PartialEq)]
pub struct Sigmas {
    /// One more than there are steps; the last is mostly 0.
    pub levels: Vec<f32>,
    /// What unit noise is multiplied by at the start.
    pub initial_scale: f64,
    /// What the last state is multiplied by.
    pub final_scale: f64,
}

impl Default for ModelSigmas {
    fn default() -> Self {
        let (first, last) = (0.00085f64.sqrt(), 0.012f64.sqrt());
        let mut product = 1.0;
        let alphas_cumprod: Vec<f32> = (0..1000)
            .map(|step| {
                let beta = first + (last - first) * f64::from(step) / 999.0;
                product *= 1.0 - beta * beta;
                product as f32
            })
            .collect();
        let sigmas: Vec<f32> = alphas_cumprod.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect();
        let log_sigmas = sigmas.iter().map(|sigma| sigma.ln()).collect();
        Self { alphas_cumprod, sigmas, log_sigmas }
    }
}

impl ModelSigmas {
    /// Products of 1 − beta, one per timestep.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// Noise levels, rising, one per timestep.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The noise level at a fractional timestep, by interpolation of logarithms; timesteps outside are clamped.
    pub fn t_to_sigma(&self, t: f64) -> f32 {
        let t = t.clamp(0.0, (self.log_sigmas.len() - 1) as f64);
        let (low, high) = (t.floor() as usize, t.ceil() as usize);
        let weight = (t - t.floor()) as f32;
        ((1.0 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[high]).exp()
    }

    /// The fractional timestep of a noise level; levels outside are clamped.
    pub fn sigma_to_t(&self, sigma: f64) -> f32 {
        let log_sigma = (sigma as f32).ln();
        let above = self.log_sigmas.partition_point(|each| *each <= log_sigma);
        let low = above.saturating_sub(1).min(self.log_sigmas.len() - 2);
        let (from, to) = (self.log_sigmas[low], self.log_sigmas[low + 1]);
        let weight = ((from - log_sigma) / (from - to)).clamp(0.0, 1.0);
        (1.0 - weight) * low as f32 + weight * (low + 1) as f32
    }

    /// The timesteps DDIM visits, rising: every `1000 / steps`-th, rounded down, plus 1. There can be more than
    /// `steps`; the first is only the last one's target.
    pub fn ddim_timesteps(&self, steps: usize) -> Vec<usize> {
        let stride = (1000 / steps.max(1)).max(1);
        (0..1000).step_by(stride).map(|t| (t + 1).min(999)).collect()
    }

    /// The levels of a schedule in at least one step; "Automatic" is uniform.
    pub fn schedule(&self, schedule: Schedule, steps: usize) -> Sigmas {
        let (min, max) = (f64::from(self.sigmas[0]), f64::from(self.sigmas[self.sigmas.len() - 1]));
        let ramp = |step: usize| {
            if steps == 1 { 0.0 } else { step as f64 / (steps - 1) as f64 }
        };
        let mut levels: Vec<f32> = (0..steps)
            .map(|step| match schedule {
                Schedule::Karras => {
                    let rho = 7.0;
                    let (min, max) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
                    (max + ramp(step) * (min - max)).powf(rho) as f32
                }
                Schedule::Exponential => (max.ln() + ramp(step) * (min.ln() - max.ln())).exp() as f32,
                Schedule::Uniform | Schedule::Automatic => self.t_to_sigma((1.0 - ramp(step)) * 999.0),
            })
            .collect();
        levels.push(0.0);
        let initial_scale = f64::from(levels[0]);
        Sigmas { levels, initial_scale, final_scale: 1.0 }
    }
}
