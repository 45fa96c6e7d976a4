//! What a request may say of sampling beside the sampler, the schedule and the steps.

use std::sync::Arc;

use super::evaluation::Role;
use super::guidance::Guidance;
use crate::sampling::SamplerOptions;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// All of it; the defaults leave everything as sampler, schedule and model have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingOptions {
    /// For the sampler and the schedule.
    pub sampler: SamplerOptions,
    /// When what is steered away from is left out.
    pub skip: SkipOptions,
    /// Whether the model's levels are changed so that its last timestep is noise alone, as for models trained so.
    pub zero_terminal_snr: bool,
}

/// When what is steered away from is left out, which takes half of the time and leaves the first of what is wanted in its
/// place. Names and meaning are A1111's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SkipOptions {
    /// Below this level, at each second model call; 0 for never.
    pub s_min_uncond: f64,
    /// At each model call below that level.
    pub s_min_uncond_all: bool,
    /// At this share of the model calls, from the first on; 0 for none.
    pub skip_early_cond: f64,
}

/// Why what is steered away from was left out in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// `skip_early_cond` asked for it.
    pub early: bool,
    /// `s_min_uncond` asked for it.
    pub below: bool,
}

impl SkipOptions {
    /// Whether model call `call` of `calls` leaves out what is steered away from. The level is the timestep for samplers that
    /// go by those.
    pub(super) fn at(&self, call: usize, calls: usize, level: f64) -> Skipped {
        let early = self.skip_early_cond > 0.0 && call as f64 / calls.max(1) as f64 <= self.skip_early_cond;
        let turn = call % 2 == 1 || self.s_min_uncond_all;
        Skipped { early, below: !early && turn && level < self.s_min_uncond }
    }
}

impl Skipped {
    /// Whether it was.
    pub fn any(self) -> bool {
        self.early || self.below
    }

    pub(super) fn add(&mut self, other: Self) {
        self.early |= other.early;
        self.below |= other.below;
    }
}

impl SamplingOptions {
    /// Refuses what no sampler or schedule can go by.
    pub(super) fn check(&self) -> Result<()> {
        let SamplerOptions { eta, s_churn, s_tmin, s_tmax, s_noise, sigma_min, sigma_max, rho, .. } =
            &self.sampler;
        let (alpha, beta) = (self.sampler.beta_dist_alpha, self.sampler.beta_dist_beta);
        let from_0 = |value: f64| value >= 0.0 && value.is_finite();
        let over_0 = |value: f64| value > 0.0 && value.is_finite();
        let optional = |value: &Option<f64>, holds: fn(f64) -> bool| value.is_none_or(holds);
        for (name, value, holds, needed) in [
            ("eta", eta.unwrap_or_default(), optional(eta, from_0), "0 or more"),
            ("s_churn", *s_churn, from_0(*s_churn), "0 or more"),
            ("s_tmin", *s_tmin, from_0(*s_tmin), "0 or more"),
            ("s_tmax", *s_tmax, *s_tmax >= 0.0, "0 or more"),
            ("s_noise", *s_noise, from_0(*s_noise), "0 or more"),
            ("sigma_min", sigma_min.unwrap_or_default(), optional(sigma_min, over_0), "a number over 0"),
            ("sigma_max", sigma_max.unwrap_or_default(), optional(sigma_max, over_0), "a number over 0"),
            ("rho", rho.unwrap_or_default(), optional(rho, over_0), "a number over 0"),
            ("beta_dist_alpha", alpha, over_0(alpha), "a number over 0"),
            ("beta_dist_beta", beta, over_0(beta), "a number over 0"),
            ("s_min_uncond", self.skip.s_min_uncond, from_0(self.skip.s_min_uncond), "0 or more"),
            (
                "skip_early_cond",
                self.skip.skip_early_cond,
                (0.0..=1.0).contains(&self.skip.skip_early_cond),
                "a share from 0 to 1",
            ),
        ] {
            if !holds {
                return Err(Error::Request(format!("{name} is {value}; {needed} is needed")));
            }
        }
        if self.sampler.uni_pc.order == 0 {
            return Err(Error::Request("uni_pc_order is 0; 1 or more is needed".to_owned()));
        }
        Ok(())
    }
}

/// Whether an image's guidance comes to what is wanted alone at this scale, whatever is steered away from: what is wanted counts
/// 1 everywhere.
pub(super) fn is_cond_alone(guidance: &Guidance, scale: f64) -> bool {
    let wanted: Vec<_> = guidance.branches.iter().filter(|branch| branch.role == Role::Cond).collect();
    let masks = || wanted.iter().filter_map(|branch| branch.mask.as_ref());
    let places = masks().next().map_or(1, |mask| mask.values().len());
    let counts = |place: usize| -> f64 {
        let share = |mask: &Arc<Tensor>| mask.values().get(place).copied().map_or(0.0, f64::from);
        wanted.iter().map(|branch| branch.weight * branch.mask.as_ref().map_or(1.0, share)).sum()
    };
    // Of masks that complete each other but for their rounding too.
    scale == 1.0
        && guidance.image_scale.is_none()
        && (0..places).all(|place| (counts(place) - 1.0).abs() < 1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_steered_away_from_is_left_out_when_asked() {
        let skips = |options: SkipOptions, level: f64| -> Vec<usize> {
            (0..8).filter(|call| options.at(*call, 8, level).any()).collect()
        };
        let none = SkipOptions::default();
        assert_eq!(skips(none, 0.0), [] as [usize; 0]);
        let early = SkipOptions { skip_early_cond: 0.25, ..none };
        assert_eq!(skips(early, 5.0), [0, 1, 2]);
        assert_eq!(skips(SkipOptions { skip_early_cond: 1.0, ..none }, 5.0).len(), 8);
        let below = SkipOptions { s_min_uncond: 1.0, ..none };
        assert_eq!((skips(below, 0.5), skips(below, 1.0)), (vec![1, 3, 5, 7], vec![]));
        let all = SkipOptions { s_min_uncond_all: true, ..below };
        assert_eq!(skips(all, 0.5).len(), 8);
        let both = SkipOptions { s_min_uncond: 1.0, ..early }.at(1, 8, 0.5);
        assert_eq!(both, Skipped { early: true, below: false }, "early comes first");
    }

    #[test]
    fn what_cannot_be_gone_by_is_refused_by_name() {
        let wrong = [
            SamplerOptions { eta: Some(-1.0), ..SamplerOptions::default() },
            SamplerOptions { s_noise: f64::NAN, ..SamplerOptions::default() },
            SamplerOptions { sigma_min: Some(0.0), ..SamplerOptions::default() },
            SamplerOptions { rho: Some(f64::INFINITY), ..SamplerOptions::default() },
            SamplerOptions { beta_dist_alpha: 0.0, ..SamplerOptions::default() },
        ];
        for (sampler, name) in
            wrong.into_iter().zip(["eta", "s_noise", "sigma_min", "rho", "beta_dist_alpha"])
        {
            let error =
                SamplingOptions { sampler, ..SamplingOptions::default() }.check().expect_err("refused");
            assert!(error.to_string().contains(&format!("{name} is ")), "{error}");
        }
        assert!(SamplingOptions::default().check().is_ok());
    }
}
