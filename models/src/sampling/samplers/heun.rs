//! Heun's method (Karras et al. 2022, algorithm 2 without churn): two model calls a step, one for the last.

use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{SamplerInfo, StepNoise};
use crate::sampling::schedule::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "Heun",
    aliases: &["k_heun"],
    default_schedule: Schedule::Uniform,
    calls: |steps| (2 * steps).saturating_sub(1),
    noise: StepNoise::None,
    levels: None,
    run: heun,
};

fn heun(mut x: Tensor, levels: &[f32], model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(levels) {
        let denoised = model.denoise(&x, sigma)?;
        let slope = mix(1.0 / sigma, &x, -1.0 / sigma, &denoised)?;
        let ahead = mix(1.0, &x, next - sigma, &slope)?;
        x = if next > 0.0 {
            let denoised = model.denoise(&ahead, next)?;
            let slope_ahead = mix(1.0 / next, &ahead, -1.0 / next, &denoised)?;
            mix(1.0, &x, next - sigma, &mix(0.5, &slope, 0.5, &slope_ahead)?)?
        } else {
            ahead
        };
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
