//! DPM-Solver-fast (Lu et al. 2022): as many model calls as steps are asked for, in steps of three calls each, from the
//! model's highest level to its lowest, whatever the schedule.

use super::ancestral::ancestral;
use super::dpm_solver::{self, Step, level};
use crate::Result;
use crate::sampling::denoise::{Denoise, mix};
use crate::sampling::sampler::{Levels, Path, SamplerInfo, StepNoise};
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DPM fast",
    aliases: &["k_dpm_fast"],
    levels: Levels::Own(dpm_solver::levels),
    noise: StepNoise::Fresh,
    eta: Some(1.0),
    s_noise: true,
    run: dpm_fast,
    ..SamplerInfo::PLAIN
};

fn dpm_fast(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    let [first, .., last] = path.levels else { return Ok(x) };
    let (start, end) = (-f64::from(*first).ln(), -f64::from(*last).ln());
    let orders = orders(path.levels.len() - 1);
    let time = |index: usize| start + (end - start) * index as f64 / orders.len() as f64;
    for (index, order) in orders.iter().enumerate() {
        let (t, next) = (time(index), time(index + 1));
        let (down, _) = ancestral(level(t), level(next), path.eta);
        let target = (-down.ln()).min(end);
        let denoised = model.denoise(&x, level(t))?;
        let step = Step::new(&x, t, target, &denoised)?;
        let ahead = match order {
            1 => step.first()?,
            2 => step.second(0.5, &step.inner(0.5, model)?)?,
            _ => step.third(&step.inner(1.0 / 3.0, model)?, model)?,
        };
        x = ahead;
        if path.eta != 0.0 {
            let up = (level(next).powi(2) - level(target).powi(2)).max(0.0).sqrt();
            x = mix(1.0, &x, up * path.options.s_noise, &model.noise(level(t), level(next))?)?;
        }
        model.advance(*order, &x, &denoised)?;
    }
    Ok(x)
}

/// Model calls of each step, `calls` in all, of at least 1.
fn orders(calls: usize) -> Vec<usize> {
    let threes = calls / 3;
    match calls % 3 {
        0 => [vec![3; threes.saturating_sub(1)], vec![2, 1]].concat(),
        rest => [vec![3; threes], vec![rest]].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_ask_as_often_as_was_asked_for() {
        for calls in 1..100 {
            assert_eq!(orders(calls).iter().sum::<usize>(), calls);
        }
        assert_eq!((orders(6), orders(7), orders(2)), (vec![3, 2, 1], vec![3, 3, 1], vec![2]));
    }
}
