//! Flags of `generate` that are about sampling, beside the sampler, the schedule and the steps.

use clap::Args;
use latentd_client::protocol::{NoiseSchedule, Txt2ImgParams, UniPcSkipType, UniPcVariant};

/// Fields of the request as flags. What is left out has the daemon's default.
#[derive(Debug, Args)]
pub(super) struct SamplingArgs {
    /// How much of the noise that a step takes away is drawn anew, from 0 to 1 [default: the sampler's own]
    #[arg(long, value_name = "X")]
    eta: Option<f64>,
    /// How much noise Euler, Heun and DPM2 add before their steps [default: 0]
    #[arg(long, value_name = "X")]
    s_churn: Option<f64>,
    /// The lowest level at which they add it [default: 0]
    #[arg(long, value_name = "SIGMA")]
    s_tmin: Option<f64>,
    /// The highest level at which they add it; 0 for all [default: 0]
    #[arg(long, value_name = "SIGMA")]
    s_tmax: Option<f64>,
    /// What noise drawn on the way is multiplied by [default: 1]
    #[arg(long, value_name = "X")]
    s_noise: Option<f64>,
    /// What is added to the seed for noise drawn on the way: ENSD [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    eta_noise_seed_delta: Option<i64>,
    /// The schedule's lowest level; 0 for the model's [default: 0]
    #[arg(long, value_name = "SIGMA")]
    sigma_min: Option<f64>,
    /// The schedule's highest level; 0 for the model's [default: 0]
    #[arg(long, value_name = "SIGMA")]
    sigma_max: Option<f64>,
    /// The exponent of Karras and Polyexponential; 0 for their own [default: 0]
    #[arg(long, value_name = "X")]
    rho: Option<f64>,
    /// The first parameter of the schedule Beta [default: 0.6]
    #[arg(long, value_name = "X")]
    beta_dist_alpha: Option<f64>,
    /// The second parameter of the schedule Beta [default: 0.6]
    #[arg(long, value_name = "X")]
    beta_dist_beta: Option<f64>,
    /// Plan one step more and leave out the level before the last
    #[arg(long)]
    always_discard_next_to_last_sigma: bool,
    /// Multiply the initial noise by √(1 + σ²) instead of σ
    #[arg(long)]
    sgm_noise_multiplier: bool,
    /// What UniPC divides its coefficients by [default: bh1]
    #[arg(long, value_parser = uni_pc_variant, value_name = "bh1|bh2|vary_coeff")]
    uni_pc_variant: Option<UniPcVariant>,
    /// What UniPC's steps are alike in [default: time_uniform]
    #[arg(long, value_parser = uni_pc_skip_type, value_name = "time_uniform|time_quadratic|logSNR")]
    uni_pc_skip_type: Option<UniPcSkipType>,
    /// Predictions that a step of UniPC goes by [default: 3]
    #[arg(long, value_name = "N")]
    uni_pc_order: Option<u32>,
    /// Whether UniPC's last steps go by fewer [default: true]
    #[arg(long, value_name = "BOOL")]
    uni_pc_lower_order_final: Option<bool>,
    /// Leave out the negative prompt at each second model call below this level; 0 for never [default: 0]
    #[arg(long, value_name = "SIGMA")]
    s_min_uncond: Option<f64>,
    /// Leave it out at each model call below that level
    #[arg(long)]
    s_min_uncond_all: bool,
    /// Leave out the negative prompt at this share of the model calls, from the first on [default: 0]
    #[arg(long, value_name = "X")]
    skip_early_cond: Option<f64>,
    /// The model's noise levels [default: Default]
    #[arg(long, value_parser = noise_schedule, value_name = "Default|Zero Terminal SNR")]
    sd_noise_schedule: Option<NoiseSchedule>,
}

impl SamplingArgs {
    /// The request with what was given.
    pub(super) fn over(&self, request: Txt2ImgParams) -> Txt2ImgParams {
        Txt2ImgParams {
            eta: self.eta.or(request.eta),
            s_churn: self.s_churn.unwrap_or(request.s_churn),
            s_tmin: self.s_tmin.unwrap_or(request.s_tmin),
            s_tmax: self.s_tmax.unwrap_or(request.s_tmax),
            s_noise: self.s_noise.unwrap_or(request.s_noise),
            eta_noise_seed_delta: self.eta_noise_seed_delta.unwrap_or(request.eta_noise_seed_delta),
            sigma_min: self.sigma_min.unwrap_or(request.sigma_min),
            sigma_max: self.sigma_max.unwrap_or(request.sigma_max),
            rho: self.rho.unwrap_or(request.rho),
            beta_dist_alpha: self.beta_dist_alpha.unwrap_or(request.beta_dist_alpha),
            beta_dist_beta: self.beta_dist_beta.unwrap_or(request.beta_dist_beta),
            always_discard_next_to_last_sigma: self.always_discard_next_to_last_sigma
                || request.always_discard_next_to_last_sigma,
            sgm_noise_multiplier: self.sgm_noise_multiplier || request.sgm_noise_multiplier,
            uni_pc_variant: self.uni_pc_variant.unwrap_or(request.uni_pc_variant),
            uni_pc_skip_type: self.uni_pc_skip_type.unwrap_or(request.uni_pc_skip_type),
            uni_pc_order: self.uni_pc_order.unwrap_or(request.uni_pc_order),
            uni_pc_lower_order_final: self
                .uni_pc_lower_order_final
                .unwrap_or(request.uni_pc_lower_order_final),
            s_min_uncond: self.s_min_uncond.unwrap_or(request.s_min_uncond),
            s_min_uncond_all: self.s_min_uncond_all || request.s_min_uncond_all,
            skip_early_cond: self.skip_early_cond.unwrap_or(request.skip_early_cond),
            sd_noise_schedule: self.sd_noise_schedule.unwrap_or(request.sd_noise_schedule),
            ..request
        }
    }
}

/// The one of these names that is given, whatever its letter case.
fn one_of<T: Copy>(given: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().find(|each| name(**each).eq_ignore_ascii_case(given));
    let names = || all.iter().map(|each| name(*each)).collect::<Vec<_>>().join(", ");
    found.copied().ok_or_else(|| format!("give one of {}", names()))
}

fn uni_pc_variant(given: &str) -> Result<UniPcVariant, String> {
    one_of(given, &UniPcVariant::ALL, UniPcVariant::name)
}

fn uni_pc_skip_type(given: &str) -> Result<UniPcSkipType, String> {
    one_of(given, &UniPcSkipType::ALL, UniPcSkipType::name)
}

fn noise_schedule(given: &str) -> Result<NoiseSchedule, String> {
    one_of(given, &NoiseSchedule::ALL, NoiseSchedule::name)
}
