//! Samplers: each a short function over "denoise x at sigma" and its row, in a file of its own.

mod adams_bashforth;
mod ancestral;
mod churn;
mod ddim;
mod ddim_cfg_pp;
mod dpm_2;
mod dpm_2_ancestral;
mod dpm_adaptive;
mod dpm_fast;
mod dpm_solver;
mod dpmpp_2m;
mod dpmpp_2m_sde;
mod dpmpp_2m_sde_heun;
mod dpmpp_2s_ancestral;
mod dpmpp_3m_sde;
mod dpmpp_sde;
mod euler;
mod euler_ancestral;
mod euler_ancestral_cfg_pp;
mod euler_cfg_pp;
mod heun;
mod ipndm;
mod ipndm_v;
mod lcm;
mod linear;
mod lms;
mod plms;
mod restart;
mod tcd;
mod unipc;

use std::fmt;
use std::ops::Deref;

use super::sampler::SamplerInfo;

/// All of them, in the order in which they are listed: A1111's, then those that other programs have beside.
static ALL: [SamplerInfo; 25] = [
    dpmpp_2m::INFO,
    dpmpp_sde::INFO,
    dpmpp_2m_sde::INFO,
    dpmpp_2m_sde_heun::INFO,
    dpmpp_2s_ancestral::INFO,
    dpmpp_3m_sde::INFO,
    euler_ancestral::INFO,
    euler::INFO,
    lms::INFO,
    heun::INFO,
    dpm_2::INFO,
    dpm_2_ancestral::INFO,
    dpm_fast::INFO,
    dpm_adaptive::INFO,
    restart::INFO,
    ddim::INFO,
    ddim_cfg_pp::INFO,
    plms::INFO,
    unipc::INFO,
    lcm::INFO,
    euler_cfg_pp::INFO,
    euler_ancestral_cfg_pp::INFO,
    ipndm::INFO,
    ipndm_v::INFO,
    tcd::INFO,
];

/// One of the samplers that there are.
#[derive(Clone, Copy)]
pub struct Sampler(&'static SamplerInfo);

impl Sampler {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        ALL.iter().map(Self)
    }

    /// The one with this name, or this alias with or without its `k_`, whatever its letter case.
    pub fn from_name(name: &str) -> Option<Self> {
        let is = |each: &str| each.eq_ignore_ascii_case(name);
        let is_alias = |alias: &&str| is(alias) || alias.strip_prefix("k_").is_some_and(is);
        Self::all().find(|sampler| is(sampler.name) || sampler.aliases.iter().any(is_alias))
    }
}

/// Euler a, as everywhere.
impl Default for Sampler {
    fn default() -> Self {
        Self::from_name(euler_ancestral::INFO.name).unwrap_or(Self(&ALL[0]))
    }
}

impl Deref for Sampler {
    type Target = SamplerInfo;

    fn deref(&self) -> &SamplerInfo {
        self.0
    }
}

impl PartialEq for Sampler {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Sampler {}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sampler({:?})", self.name)
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::error::Result;
    use crate::sampling::{
        Denoise, Denoised, Levels, ModelSigmas, SamplerOptions, Schedule, StepNoise, levels, sample,
    };
    use crate::tensor::Tensor;

    /// A model that knows the picture: half of what it is shown. Noise is one per call and image, which tells them apart.
    struct Half {
        calls: usize,
        steps: usize,
        draws: usize,
        /// Model calls after which it is cancelled.
        most: usize,
    }

    impl Denoise for Half {
        fn predict(&mut self, x: &Tensor, sigma: f64, timestep: Option<f32>) -> Result<Denoised> {
            assert!(sigma > 0.0, "there is nothing to denoise at {sigma}");
            assert!(timestep.is_none_or(|t| (0.0..=999.0).contains(&t)), "{timestep:?}");
            if self.calls == self.most {
                return Err(Error::Cancelled);
            }
            self.calls += 1;
            Ok(Denoised { guided: x.scaled(0.5), uncond: x.scaled(0.4) })
        }

        fn noise(&mut self, from: f64, to: f64) -> Result<Tensor> {
            assert!(from != to && to > 0.0, "noise from {from} to {to}");
            self.draws += 1;
            Tensor::new((0..8).map(|value| (value % 4 + self.draws) as f32 / 8.0).collect(), [2, 4, 1, 1])
        }

        fn advance(&mut self, steps: usize, x: &Tensor, _denoised: &Tensor) -> Result<()> {
            self.steps += steps;
            assert!(x.values().iter().all(|value| value.is_finite()));
            Ok(())
        }
    }

    /// The model, what came of it, and the levels.
    fn run(
        sampler: Sampler,
        schedule: Schedule,
        steps: usize,
        options: &SamplerOptions,
        most: usize,
    ) -> (Half, Result<Tensor>, Vec<f32>) {
        let model = ModelSigmas::default();
        let sigmas = levels(&sampler, &model, schedule, steps, options).expect("levels");
        let noise = Tensor::new((0..8).map(|value| (value % 4) as f32 - 1.0).collect(), [2, 4, 1, 1]);
        let mut half = Half { calls: 0, steps: 0, draws: 0, most };
        let latents = sample(&sampler, &noise.expect("noise"), &sigmas, &model, options, &mut half);
        (half, latents, sigmas.levels)
    }

    #[test]
    fn every_row_holds() {
        let options = SamplerOptions::default();
        let mut names: Vec<String> = vec![];
        for sampler in Sampler::all() {
            names.extend(
                std::iter::once(&sampler.name).chain(sampler.aliases).map(|name| name.to_lowercase()),
            );
            assert_ne!(sampler.default_schedule, Schedule::Automatic, "{sampler}: that says nothing");
            for name in std::iter::once(&sampler.name).chain(sampler.aliases) {
                assert_eq!(Sampler::from_name(&name.to_uppercase()), Some(sampler));
            }
            for (schedule, _) in Schedule::ALL {
                for steps in [1, 2, 20] {
                    let (model, latents, levels) = run(sampler, *schedule, steps, &options, usize::MAX);
                    let latents = latents.expect("sampled");
                    let taken = levels.len() - 1;
                    let case = format!("{sampler}, {schedule}, {steps} steps");
                    assert!(latents.values().iter().all(|value| value.is_finite()), "{case}");
                    assert_eq!(
                        latents.values()[..4],
                        latents.values()[4..],
                        "{case}: images of a batch are alike"
                    );
                    assert_eq!(model.steps, taken, "{case}: each step is told");
                    if let Some(calls) = (sampler.calls)(&levels) {
                        assert_eq!(model.calls, calls, "{case}: model calls");
                    }
                    let may_draw = sampler.noise == StepNoise::Brownian || sampler.draws_fresh(&options);
                    assert!(may_draw || model.draws == 0, "{case}: noise that its row does not tell of");
                    for most in 0..model.calls.min(3) {
                        let (_, cancelled, _) = run(sampler, *schedule, steps, &options, most);
                        assert!(
                            matches!(cancelled, Err(Error::Cancelled)),
                            "{case}: cancelled at call {most}"
                        );
                    }
                }
            }
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "a name is given twice: {names:?}");
    }

    /// An option has an effect if, and only if, the row says so.
    #[test]
    fn every_row_tells_of_its_options() {
        let default = SamplerOptions::default();
        let latents = |sampler, options: &SamplerOptions| {
            run(sampler, Schedule::Automatic, 20, options, usize::MAX).1.expect("sampled")
        };
        for sampler in Sampler::all() {
            let plain = latents(sampler, &default);
            let churned = SamplerOptions { s_churn: 5.0, ..default.clone() };
            let changes = latents(sampler, &churned) != plain;
            assert_eq!(changes, sampler.noise == StepNoise::Churned, "{sampler}: s_churn");
            let eta = SamplerOptions { eta: Some(0.7), ..default.clone() };
            assert_eq!(latents(sampler, &eta) != plain, sampler.eta.is_some(), "{sampler}: eta");
            for base in [default.clone(), churned, eta] {
                let louder = SamplerOptions { s_noise: 1.1, ..base.clone() };
                let changes = latents(sampler, &louder) != latents(sampler, &base);
                assert_eq!(changes, sampler.uses_s_noise(&base), "{sampler}: s_noise, {base:?}");
            }
            // Nothing is drawn that eta 0 leaves out, and what is drawn has an effect.
            let still = SamplerOptions { eta: Some(0.0), ..default.clone() };
            let draws = run(sampler, Schedule::Automatic, 20, &still, usize::MAX).0.draws;
            assert_eq!(draws > 0, sampler.draws_fresh(&still), "{sampler}: noise at eta 0");
            let longer = SamplerOptions { always_discard_next_to_last_sigma: true, ..default.clone() };
            let changes = latents(sampler, &longer) != plain;
            let plans = !sampler.discard_next_to_last_sigma && !matches!(sampler.levels, Levels::Own(_));
            assert_eq!(changes, plans, "{sampler}: always_discard_next_to_last_sigma");
            let more = SamplerOptions { sgm_noise_multiplier: true, ..default.clone() };
            assert_eq!(latents(sampler, &more) != plain, !sampler.goes_by_timesteps(), "{sampler}: sgm");
        }
    }
}
