//! Euler's method, ancestral: steps down further than asked, then adds noise up to the level; eta 1.

use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{SamplerInfo, StepNoise};
use crate::sampling::schedule::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "Euler a",
    aliases: &["k_euler_a", "k_euler_ancestral"],
    default_schedule: Schedule::Uniform,
    calls: |steps| steps,
    noise: StepNoise::Fresh,
    levels: None,
    run: euler_ancestral,
};

fn euler_ancestral(mut x: Tensor, levels: &[f32], model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(levels) {
        let denoised = model.denoise(&x, sigma)?;
        let up = next.min((next.powi(2) * (sigma.powi(2) - next.powi(2)) / sigma.powi(2)).sqrt());
        let down = (next.powi(2) - up.powi(2)).sqrt();
        x = mix(down / sigma, &x, 1.0 - down / sigma, &denoised)?;
        if next > 0.0 {
            x = mix(1.0, &x, up, &model.noise(sigma, next)?)?;
        }
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
