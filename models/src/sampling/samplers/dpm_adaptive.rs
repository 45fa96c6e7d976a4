//! DPM-Solver-23 with adaptive steps (Lu et al. 2022, Karras's frame): each step is as long as the difference of a second
//! and a third order solution allows, from the model's highest level to its lowest, whatever the schedule and the number of
//! steps.

use super::ancestral::ancestral;
use super::dpm_solver::{self, Step, level};
use crate::sampling::denoise::{Denoise, mix};
use crate::sampling::sampler::{Levels, Path, SamplerInfo, StepNoise};
use crate::tensor::Tensor;
use crate::{Error, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DPM adaptive",
    aliases: &["k_dpm_ad", "k_dpm_adaptive"],
    levels: Levels::Own(dpm_solver::levels),
    calls: |_| None,
    noise: StepNoise::Fresh,
    eta: Some(1.0),
    s_noise: true,
    goes_alone: true,
    run: dpm_adaptive,
    ..SamplerInfo::PLAIN
};

/// What may be wrong beside a share of the value.
const ABSOLUTE: f32 = 0.0078;
/// What may be wrong as a share of the value.
const RELATIVE: f32 = 0.05;
/// The first step that is tried.
const FIRST_STEP: f64 = 0.05;
/// A step that should be shorter than this share of it is tried anew.
const ACCEPT: f64 = 0.81;
/// Steps that are tried before it is given up. Pictures take 20 to 150.
const MOST: usize = 2000;

fn dpm_adaptive(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    let [first, .., last] = path.levels else { return Ok(x) };
    let (start, end) = (-f64::from(*first).ln(), -f64::from(*last).ln());
    let order = if path.eta == 0.0 { 3.0 } else { 1.5 };
    let (mut t, mut h) = (start, FIRST_STEP);
    let mut before = x.clone();
    let (steps, mut told) = (path.levels.len() - 1, 0);
    for _ in 0..MOST {
        if t >= end - 1e-5 {
            return Ok(x);
        }
        let next = (t + h).min(end);
        let (down, _) = ancestral(level(t), level(next), path.eta);
        let target = (-down.ln()).min(end);
        let denoised = model.denoise(&x, level(t))?;
        let step = Step::new(&x, t, target, &denoised)?;
        let inner = step.inner(1.0 / 3.0, model)?;
        let (low, high) = (step.second(1.0 / 3.0, &inner)?, step.third(&inner, model)?);
        // How much longer the step may be: less than 1 if it was too long.
        let factor = (error(&low, &high, &before) + 1e-8).recip().powf(1.0 / order);
        let factor = 1.0 + (factor - 1.0).atan();
        if factor >= ACCEPT {
            before = low;
            x = high;
            if path.eta != 0.0 {
                let up = (level(next).powi(2) - level(target).powi(2)).max(0.0).sqrt();
                x = mix(1.0, &x, up * path.options.s_noise, &model.noise(level(t), level(next))?)?;
            }
            t = next;
        }
        h *= factor;
        let share = if t >= end - 1e-5 { 1.0 } else { (t - start) / (end - start) };
        let done = (share * steps as f64) as usize;
        model.advance(done - told, &x, &denoised)?;
        told = done;
    }
    let text = format!(
        "DPM adaptive has not come to an end after {MOST} steps of its own; use another sampler, or a lower eta"
    );
    Err(Error::Request(text))
}

/// How far two solutions are apart, where 1 is as much as may be wrong.
fn error(low: &Tensor, high: &Tensor, before: &Tensor) -> f64 {
    let all = low.values().iter().zip(high.values()).zip(before.values());
    let squares = all.map(|((low, high), before)| {
        let allowed = ABSOLUTE.max(RELATIVE * low.abs().max(before.abs()));
        f64::from((low - high) / allowed).powi(2)
    });
    (squares.sum::<f64>() / low.values().len().max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::{Denoised, ModelSigmas, SamplerOptions, Schedule, levels, sample};

    /// Says another thing each time it is asked.
    #[derive(Default)]
    struct Restless {
        calls: usize,
    }

    impl Denoise for Restless {
        fn predict(&mut self, x: &Tensor, _sigma: f64, _timestep: Option<f32>) -> Result<Denoised> {
            self.calls += 1;
            let guided = Tensor::full(if self.calls.is_multiple_of(2) { 1e4 } else { -1e4 }, x.dims());
            Ok(Denoised { uncond: guided.clone(), guided })
        }

        fn noise(&mut self, _from: f64, _to: f64) -> Result<Tensor> {
            Ok(Tensor::full(0.0, [1, 4, 2, 2]))
        }

        fn advance(&mut self, _steps: usize, _x: &Tensor, _denoised: &Tensor) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_model_that_says_another_thing_each_time_ends_with_a_remedy() {
        let (model, options) = (ModelSigmas::default(), SamplerOptions::default());
        let sigmas = levels(&INFO, &model, Schedule::Automatic, 20, &options).expect("levels");
        let mut restless = Restless::default();
        let noise = Tensor::full(1.0, [1, 4, 2, 2]);
        let error = sample(&INFO, &noise, &sigmas, &model, &options, &mut restless).expect_err("given up");
        assert_eq!(restless.calls, 3 * MOST);
        assert!(matches!(&error, Error::Request(text) if text.contains("use another sampler")), "{error}");
    }
}
