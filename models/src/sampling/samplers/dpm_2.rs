//! DPM-Solver-2 in Karras's frame: the slope of a whole step from the middle of it, in the logarithm.

use super::churn::churned;
use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise, two_a_step};
use crate::sampling::schedules::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DPM2",
    aliases: &["k_dpm_2"],
    default_schedule: Schedule::Karras,
    calls: |levels| Some(two_a_step(levels)),
    noise: StepNoise::Churned,
    s_noise: true,
    second_order: true,
    discard_next_to_last_sigma: true,
    run: dpm_2,
    ..SamplerInfo::PLAIN
};

fn dpm_2(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(path.levels) {
        let (state, sigma) = churned(x, sigma, path, model)?;
        let (ahead, denoised) = dpm_2_step(&state, sigma, next, model)?;
        x = ahead;
        model.step(&x, &denoised)?;
    }
    Ok(x)
}

/// The state after a step, and the first prediction.
pub(super) fn dpm_2_step(
    x: &Tensor,
    sigma: f64,
    next: f64,
    model: &mut dyn Denoise,
) -> Result<(Tensor, Tensor)> {
    let denoised = model.denoise(x, sigma)?;
    if next <= 0.0 {
        return Ok((mix(next / sigma, x, 1.0 - next / sigma, &denoised)?, denoised));
    }
    let middle = (sigma * next).sqrt();
    let halfway = mix(middle / sigma, x, 1.0 - middle / sigma, &denoised)?;
    let denoised_halfway = model.denoise(&halfway, middle)?;
    let slope = mix(1.0 / middle, &halfway, -1.0 / middle, &denoised_halfway)?;
    Ok((mix(1.0, x, next - sigma, &slope)?, denoised))
}
