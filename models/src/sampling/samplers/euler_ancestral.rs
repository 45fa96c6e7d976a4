//! Euler's method, ancestral: steps down further than asked, then adds noise up to the level.

use super::ancestral::ancestral;
use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise};
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "Euler a",
    aliases: &["k_euler_a", "k_euler_ancestral"],
    noise: StepNoise::Fresh,
    eta: Some(1.0),
    run: euler_ancestral,
    ..SamplerInfo::PLAIN
};

pub(super) fn euler_ancestral(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(path.levels) {
        let denoised = model.denoise(&x, sigma)?;
        let (down, up) = ancestral(sigma, next, path.eta);
        x = mix(down / sigma, &x, 1.0 - down / sigma, &denoised)?;
        if next > 0.0 && path.eta != 0.0 {
            x = mix(1.0, &x, up, &model.noise(sigma, next)?)?;
        }
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
