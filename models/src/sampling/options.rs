//! What a request may say of sampling beside the sampler, the schedule and the steps. Names, meaning and defaults are
//! A1111's (`modules/sd_samplers_common.py`, `modules/sd_schedulers.py`, `modules/models/diffusion/uni_pc`); what the numbers
//! do is k-diffusion's and the papers', which each sampler names.
//!
//! Levels are standard deviations of the noise, where latents have about 1: Stable Diffusion's go from 0.0292 to 14.6.

use super::named::named;

/// Numbers and switches for samplers and schedules. Each goes by its own default where it is not set, and each is without
/// effect on samplers and schedules that do not use it.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// How much of the noise that a step takes away it draws anew, a share of 0 or more, 1 for all; the sampler's own if `None`.
    pub eta: Option<f64>,
    /// How much noise is added before steps, over all of them: each level is raised by this over the number of steps, up to
    /// √2 − 1 times itself (Karras et al. 2022: S_churn). 0 or more.
    pub s_churn: f64,
    /// The lowest level at which noise is added, 0 or more.
    pub s_tmin: f64,
    /// The highest level at which noise is added; infinite for all.
    pub s_tmax: f64,
    /// What noise drawn on the way is multiplied by, 0 or more.
    pub s_noise: f64,
    /// What is added to each seed for the noise drawn on the way.
    pub eta_noise_seed_delta: i64,
    /// The schedule's lowest level, above 0; the model's if `None`.
    pub sigma_min: Option<f64>,
    /// The schedule's highest level, above the lowest; the model's if `None`.
    pub sigma_max: Option<f64>,
    /// The exponent of the schedules that have one, above 0; the schedule's own if `None`.
    pub rho: Option<f64>,
    /// The first parameter of the schedule "Beta", α, above 0.
    pub beta_dist_alpha: f64,
    /// The second parameter of the schedule "Beta", β, above 0.
    pub beta_dist_beta: f64,
    /// Whether one step more is planned, and the level before the last left out, whatever the sampler.
    pub always_discard_next_to_last_sigma: bool,
    /// Whether the initial noise is multiplied by √(1 + σ²) instead of σ.
    pub sgm_noise_multiplier: bool,
    /// For UniPC.
    pub uni_pc: UniPcOptions,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            eta: None,
            s_churn: 0.0,
            s_tmin: 0.0,
            s_tmax: f64::INFINITY,
            s_noise: 1.0,
            eta_noise_seed_delta: 0,
            sigma_min: None,
            sigma_max: None,
            rho: None,
            beta_dist_alpha: 0.6,
            beta_dist_beta: 0.6,
            always_discard_next_to_last_sigma: false,
            sgm_noise_multiplier: false,
            uni_pc: UniPcOptions::default(),
        }
    }
}

/// For UniPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniPcOptions {
    /// The function of the step by which coefficients are divided.
    pub variant: UniPcVariant,
    /// What its steps are alike in.
    pub skip_type: UniPcSkipType,
    /// Predictions that a step goes by, 1 or more; never more than there are steps.
    pub order: usize,
    /// Whether the last steps go by fewer.
    pub lower_order_final: bool,
}

impl Default for UniPcOptions {
    fn default() -> Self {
        Self {
            variant: UniPcVariant::Bh1,
            skip_type: UniPcSkipType::TimeUniform,
            order: 3,
            lower_order_final: true,
        }
    }
}

/// The function of the step by which UniPC's coefficients are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniPcVariant {
    /// B(h) = h.
    Bh1,
    /// B(h) = eʰ − 1.
    Bh2,
    /// None: coefficients by the inverse of a matrix of the steps.
    VaryCoeff,
}

impl UniPcVariant {
    /// All of them with A1111's names.
    pub const ALL: &[(Self, &'static str)] =
        &[(Self::Bh1, "bh1"), (Self::Bh2, "bh2"), (Self::VaryCoeff, "vary_coeff")];
}

named!(UniPcVariant);

/// What UniPC's steps are alike in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniPcSkipType {
    /// Time.
    TimeUniform,
    /// The root of time.
    TimeQuadratic,
    /// The logarithm of the ratio of signal to noise.
    LogSnr,
}

impl UniPcSkipType {
    /// All of them with A1111's names.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::TimeUniform, "time_uniform"),
        (Self::TimeQuadratic, "time_quadratic"),
        (Self::LogSnr, "logSNR"),
    ];
}

named!(UniPcSkipType);
