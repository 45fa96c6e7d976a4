//! What a request says of sampling: for the pipeline, and what of it is told in a picture.

use latentd_client::protocol::{self, NoiseSchedule, Txt2ImgParams};
use latentd_models::pipeline::{SamplingOptions, SkipOptions, Skipped};
use latentd_models::sampling::{
    Levels, Sampler, SamplerOptions, Schedule, StepNoise, UniPcOptions, UniPcSkipType, UniPcVariant,
};

/// For the pipeline.
pub(super) fn options(params: &Txt2ImgParams) -> SamplingOptions {
    let unless_0 = |value: f64| (value != 0.0).then_some(value);
    SamplingOptions {
        sampler: SamplerOptions {
            eta: params.eta,
            s_churn: params.s_churn,
            s_tmin: params.s_tmin,
            s_tmax: unless_0(params.s_tmax).unwrap_or(f64::INFINITY),
            s_noise: params.s_noise,
            eta_noise_seed_delta: params.eta_noise_seed_delta,
            sigma_min: unless_0(params.sigma_min),
            sigma_max: unless_0(params.sigma_max),
            rho: unless_0(params.rho),
            beta_dist_alpha: params.beta_dist_alpha,
            beta_dist_beta: params.beta_dist_beta,
            always_discard_next_to_last_sigma: params.always_discard_next_to_last_sigma,
            sgm_noise_multiplier: params.sgm_noise_multiplier,
            uni_pc: UniPcOptions {
                variant: match params.uni_pc_variant {
                    protocol::UniPcVariant::Bh1 => UniPcVariant::Bh1,
                    protocol::UniPcVariant::Bh2 => UniPcVariant::Bh2,
                    protocol::UniPcVariant::VaryCoeff => UniPcVariant::VaryCoeff,
                },
                skip_type: match params.uni_pc_skip_type {
                    protocol::UniPcSkipType::TimeUniform => UniPcSkipType::TimeUniform,
                    protocol::UniPcSkipType::TimeQuadratic => UniPcSkipType::TimeQuadratic,
                    protocol::UniPcSkipType::LogSnr => UniPcSkipType::LogSnr,
                },
                order: params.uni_pc_order as usize,
                lower_order_final: params.uni_pc_lower_order_final,
            },
        },
        skip: SkipOptions {
            s_min_uncond: params.s_min_uncond,
            s_min_uncond_all: params.s_min_uncond_all,
            skip_early_cond: params.skip_early_cond,
        },
        zero_terminal_snr: params.sd_noise_schedule == NoiseSchedule::ZeroTerminalSnr,
    }
}

/// The request without what has no effect on this sampler and schedule: a picture does not tell of that.
pub(super) fn settled(params: Txt2ImgParams, sampler: Sampler, schedule: Schedule) -> Txt2ImgParams {
    let options = options(&params).sampler;
    let default = Txt2ImgParams::default();
    let keep = |applies: bool, value: f64, default: f64| if applies { value } else { default };
    let churns = sampler.noise == StepNoise::Churned && params.s_churn > 0.0;
    let schedule = sampler.schedule(schedule);
    let has_range = schedule.is_some_and(Schedule::has_range);
    let has_shape = schedule == Some(Schedule::Beta);
    let rho = schedule.and_then(Schedule::rho).filter(|own| *own != params.rho);
    let plans = !matches!(sampler.levels, Levels::Own(_)) && !sampler.discard_next_to_last_sigma;
    let uni_pc = if sampler.takes_uni_pc_options { &params } else { &default };
    Txt2ImgParams {
        eta: params.eta.filter(|eta| sampler.eta.is_some_and(|own| own != *eta)),
        s_churn: keep(churns, params.s_churn, default.s_churn),
        s_tmin: keep(churns, params.s_tmin, default.s_tmin),
        s_tmax: keep(churns, params.s_tmax, default.s_tmax),
        s_noise: keep(sampler.uses_s_noise(&options), params.s_noise, default.s_noise),
        eta_noise_seed_delta: if sampler.draws_fresh(&options) { params.eta_noise_seed_delta } else { 0 },
        sigma_min: keep(has_range, params.sigma_min, default.sigma_min),
        sigma_max: keep(has_range, params.sigma_max, default.sigma_max),
        rho: keep(rho.is_some(), params.rho, default.rho),
        beta_dist_alpha: keep(has_shape, params.beta_dist_alpha, default.beta_dist_alpha),
        beta_dist_beta: keep(has_shape, params.beta_dist_beta, default.beta_dist_beta),
        always_discard_next_to_last_sigma: params.always_discard_next_to_last_sigma && plans,
        sgm_noise_multiplier: params.sgm_noise_multiplier && !sampler.goes_by_timesteps(),
        uni_pc_variant: uni_pc.uni_pc_variant,
        uni_pc_skip_type: uni_pc.uni_pc_skip_type,
        uni_pc_order: uni_pc.uni_pc_order,
        uni_pc_lower_order_final: uni_pc.uni_pc_lower_order_final,
        ..params
    }
}

/// What has an effect on either of two samplers, of the same request settled for each; the rest is of the first.
pub(super) fn either(first: Txt2ImgParams, second: &Txt2ImgParams) -> Txt2ImgParams {
    fn of<T: PartialEq + Copy>(field: impl Fn(&Txt2ImgParams) -> T, both: [&Txt2ImgParams; 2]) -> T {
        let [first, second] = both.map(&field);
        if first == field(&Txt2ImgParams::default()) { second } else { first }
    }
    let both = [&first, second];
    Txt2ImgParams {
        eta: of(|params| params.eta, both),
        s_churn: of(|params| params.s_churn, both),
        s_tmin: of(|params| params.s_tmin, both),
        s_tmax: of(|params| params.s_tmax, both),
        s_noise: of(|params| params.s_noise, both),
        eta_noise_seed_delta: of(|params| params.eta_noise_seed_delta, both),
        sigma_min: of(|params| params.sigma_min, both),
        sigma_max: of(|params| params.sigma_max, both),
        rho: of(|params| params.rho, both),
        beta_dist_alpha: of(|params| params.beta_dist_alpha, both),
        beta_dist_beta: of(|params| params.beta_dist_beta, both),
        always_discard_next_to_last_sigma: of(|params| params.always_discard_next_to_last_sigma, both),
        sgm_noise_multiplier: of(|params| params.sgm_noise_multiplier, both),
        uni_pc_variant: of(|params| params.uni_pc_variant, both),
        uni_pc_skip_type: of(|params| params.uni_pc_skip_type, both),
        uni_pc_order: of(|params| params.uni_pc_order, both),
        uni_pc_lower_order_final: of(|params| params.uni_pc_lower_order_final, both),
        ..first
    }
}

/// The request without what did not come to pass: as A1111 does, a picture tells of the negative prompt that was left out only
/// if it was.
pub(super) fn drawn(params: Txt2ImgParams, skipped: Skipped) -> Txt2ImgParams {
    Txt2ImgParams {
        skip_early_cond: if skipped.early { params.skip_early_cond } else { 0.0 },
        s_min_uncond: if skipped.below { params.s_min_uncond } else { 0.0 },
        s_min_uncond_all: skipped.below && params.s_min_uncond_all,
        ..params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything at once, all of it unlike the default.
    fn all() -> Txt2ImgParams {
        Txt2ImgParams {
            eta: Some(0.5),
            s_churn: 2.0,
            s_tmin: 0.1,
            s_tmax: 9.0,
            s_noise: 1.1,
            eta_noise_seed_delta: 31337,
            sigma_min: 0.1,
            sigma_max: 9.0,
            rho: 5.0,
            beta_dist_alpha: 0.5,
            beta_dist_beta: 0.7,
            always_discard_next_to_last_sigma: true,
            sgm_noise_multiplier: true,
            uni_pc_variant: protocol::UniPcVariant::Bh2,
            uni_pc_skip_type: protocol::UniPcSkipType::LogSnr,
            uni_pc_order: 2,
            uni_pc_lower_order_final: false,
            ..Txt2ImgParams::default()
        }
    }

    #[test]
    fn all_that_is_asked_for_reaches_the_pipeline() {
        let params = Txt2ImgParams {
            s_min_uncond: 1.5,
            s_min_uncond_all: true,
            skip_early_cond: 0.2,
            sd_noise_schedule: NoiseSchedule::ZeroTerminalSnr,
            ..all()
        };
        let wanted = SamplingOptions {
            sampler: SamplerOptions {
                eta: Some(0.5),
                s_churn: 2.0,
                s_tmin: 0.1,
                s_tmax: 9.0,
                s_noise: 1.1,
                eta_noise_seed_delta: 31337,
                sigma_min: Some(0.1),
                sigma_max: Some(9.0),
                rho: Some(5.0),
                beta_dist_alpha: 0.5,
                beta_dist_beta: 0.7,
                always_discard_next_to_last_sigma: true,
                sgm_noise_multiplier: true,
                uni_pc: UniPcOptions {
                    variant: UniPcVariant::Bh2,
                    skip_type: UniPcSkipType::LogSnr,
                    order: 2,
                    lower_order_final: false,
                },
            },
            skip: SkipOptions { s_min_uncond: 1.5, s_min_uncond_all: true, skip_early_cond: 0.2 },
            zero_terminal_snr: true,
        };
        assert_eq!(options(&params), wanted);
        assert_eq!(
            options(&Txt2ImgParams::default()),
            SamplingOptions::default(),
            "0 is none, of s_tmax all"
        );
    }

    #[test]
    fn what_draws_no_noise_tells_nothing_of_it() {
        let settled = |sampler: &str, params: Txt2ImgParams| {
            settled(params, Sampler::from_name(sampler).expect("a sampler"), Schedule::Automatic)
        };
        let of_noise = |params: &Txt2ImgParams| (params.s_noise, params.eta_noise_seed_delta);
        let still = Txt2ImgParams { eta: Some(0.0), s_noise: 1.1, eta_noise_seed_delta: 7, ..all() };
        for sampler in ["Euler a", "DPM2 a", "DPM++ 2S a", "DPM fast", "DPM++ 2M SDE", "TCD"] {
            let told = settled(sampler, still.clone());
            assert_eq!((told.eta, of_noise(&told)), (Some(0.0), (1.0, 0)), "{sampler}");
        }
        assert_eq!(settled("DDIM", still.clone()).eta, None, "its own");
        let quiet = settled("Heun", Txt2ImgParams { s_churn: 0.0, ..still });
        assert_eq!((quiet.s_tmin, quiet.s_tmax, of_noise(&quiet)), (0.0, 0.0, (1.0, 0)));
    }

    #[test]
    fn only_what_has_an_effect_is_told() {
        let settled = |sampler: &str, schedule| {
            settled(all(), Sampler::from_name(sampler).expect("a sampler"), schedule)
        };
        let default = Txt2ImgParams::default();
        let plain =
            Txt2ImgParams { always_discard_next_to_last_sigma: true, sgm_noise_multiplier: true, ..default };
        let euler = Txt2ImgParams {
            s_churn: 2.0,
            s_tmin: 0.1,
            s_tmax: 9.0,
            s_noise: 1.1,
            eta_noise_seed_delta: 31337,
            ..plain.clone()
        };
        assert_eq!(settled("Euler", Schedule::Automatic), euler);
        let ranged = Txt2ImgParams { sigma_min: 0.1, sigma_max: 9.0, ..plain.clone() };
        assert_eq!(settled("LMS", Schedule::Karras), Txt2ImgParams { rho: 5.0, ..ranged.clone() });
        let beta = Txt2ImgParams { beta_dist_alpha: 0.5, beta_dist_beta: 0.7, ..ranged };
        assert_eq!(settled("LMS", Schedule::Beta), beta);
        assert_eq!(settled("LMS", Schedule::Simple), plain);
        let sde =
            Txt2ImgParams { eta: Some(0.5), s_noise: 1.1, sigma_min: 0.1, sigma_max: 9.0, ..plain.clone() };
        assert_eq!(settled("DPM++ 2M SDE", Schedule::Automatic), sde, "ENSD is not for a Brownian motion");
        let ddim = Txt2ImgParams {
            eta: Some(0.5),
            eta_noise_seed_delta: 31337,
            sgm_noise_multiplier: false,
            ..plain.clone()
        };
        assert_eq!(settled("DDIM", Schedule::Karras), ddim);
        let unipc = settled("UniPC", Schedule::Automatic);
        assert_eq!((unipc.uni_pc_order, unipc.eta, unipc.s_noise), (2, None, 1.0));
        let discards = settled("DPM++ 3M SDE", Schedule::Automatic);
        assert!(!discards.always_discard_next_to_last_sigma, "it does so anyway");
        let eta = Txt2ImgParams { eta: Some(1.0), ..Txt2ImgParams::default() };
        let sampler = Sampler::from_name("Euler a").expect("a sampler");
        assert_eq!(super::settled(eta, sampler, Schedule::Automatic).eta, None, "its own");
    }

    #[test]
    fn what_did_not_come_to_pass_is_not_told() {
        let params = Txt2ImgParams {
            s_min_uncond: 1.0,
            s_min_uncond_all: true,
            skip_early_cond: 0.2,
            ..Txt2ImgParams::default()
        };
        let early = drawn(params.clone(), Skipped { early: true, below: false });
        assert_eq!((early.skip_early_cond, early.s_min_uncond, early.s_min_uncond_all), (0.2, 0.0, false));
        let both = Skipped { early: true, below: true };
        assert_eq!(drawn(params.clone(), both), params);
    }
}
