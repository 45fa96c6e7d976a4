//! Samplers: each a short function over "denoise x at sigma" and its row, in a file of its own.

mod ddim;
mod dpmpp_2m;
mod euler;
mod euler_ancestral;
mod heun;

use std::fmt;
use std::ops::Deref;

use super::sampler::SamplerInfo;

/// All of them, in the order in which they are listed.
static ALL: [SamplerInfo; 5] = [euler::INFO, euler_ancestral::INFO, dpmpp_2m::INFO, ddim::INFO, heun::INFO];

/// One of the samplers that there are.
#[derive(Clone, Copy)]
pub struct Sampler(&'static SamplerInfo);

impl Sampler {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        ALL.iter().map(Self)
    }

    /// The one with this name, or this alias, whatever its letter case.
    pub fn from_name(name: &str) -> Option<Self> {
        let is = |each: &str| each.eq_ignore_ascii_case(name);
        Self::all().find(|sampler| is(sampler.name) || sampler.aliases.iter().any(|alias| is(alias)))
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
    use crate::sampling::{Denoise, ModelSigmas, Schedule, StepNoise, levels, sample};
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
        fn denoise(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor> {
            assert!(sigma > 0.0, "there is nothing to denoise at {sigma}");
            if self.calls == self.most {
                return Err(Error::Cancelled);
            }
            self.calls += 1;
            Ok(x.scaled(0.5))
        }

        fn noise(&mut self, from: f64, to: f64) -> Result<Tensor> {
            assert!(from > to && to > 0.0, "noise from {from} to {to}");
            self.draws += 1;
            Tensor::new((0..8).map(|value| (value % 4 + self.draws) as f32 / 8.0).collect(), [2, 4, 1, 1])
        }

        fn step(&mut self, x: &Tensor, _denoised: &Tensor) -> Result<()> {
            self.steps += 1;
            assert!(x.values().iter().all(|value| value.is_finite()));
            Ok(())
        }
    }

    fn run(sampler: Sampler, schedule: Schedule, steps: usize, most: usize) -> (Half, Result<Tensor>, usize) {
        let sigmas = levels(&sampler, &ModelSigmas::default(), schedule, steps).expect("levels");
        let noise = Tensor::new((0..8).map(|value| (value % 4) as f32 - 1.0).collect(), [2, 4, 1, 1]);
        let mut model = Half { calls: 0, steps: 0, draws: 0, most };
        let latents = sample(&sampler, &noise.expect("noise"), &sigmas, &mut model);
        (model, latents, sigmas.levels.len() - 1)
    }

    #[test]
    fn every_row_holds() {
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
                    let (model, latents, taken) = run(sampler, *schedule, steps, usize::MAX);
                    let latents = latents.expect("sampled");
                    let case = format!("{sampler}, {schedule}, {steps} steps");
                    assert!(latents.values().iter().all(|value| value.is_finite()), "{case}");
                    assert_eq!(
                        latents.values()[..4],
                        latents.values()[4..],
                        "{case}: images of a batch are alike"
                    );
                    assert_eq!(model.steps, taken, "{case}: each step is told");
                    assert_eq!(model.calls, (sampler.calls)(taken), "{case}: model calls");
                    assert_eq!(
                        model.draws == 0,
                        sampler.noise == StepNoise::None || taken == 1,
                        "{case}: noise"
                    );
                    for most in 0..model.calls.min(3) {
                        let (_, cancelled, _) = run(sampler, *schedule, steps, most);
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
}
