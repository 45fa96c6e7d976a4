//! Euler's method (Karras et al. 2022, algorithm 2 without churn).

use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{SamplerInfo, StepNoise};
use crate::sampling::schedule::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "Euler",
    aliases: &["k_euler"],
    default_schedule: Schedule::Uniform,
    calls: |steps| steps,
    noise: StepNoise::None,
    levels: None,
    run: euler,
};

pub(super) fn euler(mut x: Tensor, levels: &[f32], model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(levels) {
        let denoised = model.denoise(&x, sigma)?;
        // x + (x − denoised) / σ · (next − σ)
        x = mix(next / sigma, &x, 1.0 - next / sigma, &denoised)?;
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
