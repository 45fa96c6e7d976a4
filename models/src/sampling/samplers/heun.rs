//! Heun's method (Karras et al. 2022, algorithm 2): two model calls a step, one for the last.

use super::churn::churned;
use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise, two_a_step};
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "Heun",
    aliases: &["k_heun"],
    calls: |levels| Some(two_a_step(levels)),
    noise: StepNoise::Churned,
    s_noise: true,
    second_order: true,
    run: heun,
    ..SamplerInfo::PLAIN
};

fn heun(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(path.levels) {
        let (state, sigma) = churned(x, sigma, path, model)?;
        let (ahead, denoised) = heun_step(&state, sigma, next, model)?;
        x = ahead;
        model.step(&x, &denoised)?;
    }
    Ok(x)
}

/// The state after a step, and the first prediction.
pub(super) fn heun_step(
    x: &Tensor,
    sigma: f64,
    next: f64,
    model: &mut dyn Denoise,
) -> Result<(Tensor, Tensor)> {
    let denoised = model.denoise(x, sigma)?;
    let slope = mix(1.0 / sigma, x, -1.0 / sigma, &denoised)?;
    let ahead = mix(1.0, x, next - sigma, &slope)?;
    if next <= 0.0 {
        return Ok((ahead, denoised));
    }
    let denoised_ahead = model.denoise(&ahead, next)?;
    let slope_ahead = mix(1.0 / next, &ahead, -1.0 / next, &denoised_ahead)?;
    Ok((mix(1.0, x, next - sigma, &mix(0.5, &slope, 0.5, &slope_ahead)?)?, denoised))
}
