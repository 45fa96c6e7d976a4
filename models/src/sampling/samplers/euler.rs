//! Euler's method (Karras et al. 2022, algorithm 2).

use super::churn::churned;
use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise};
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "Euler",
    aliases: &["k_euler"],
    noise: StepNoise::Churned,
    s_noise: true,
    run: euler,
    ..SamplerInfo::PLAIN
};

pub(super) fn euler(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(path.levels) {
        let (state, sigma) = churned(x, sigma, path, model)?;
        let denoised = model.denoise(&state, sigma)?;
        // x + (x − denoised) / σ · (next − σ)
        x = mix(next / sigma, &state, 1.0 - next / sigma, &denoised)?;
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
