//! Euler's method, ancestral, with CFG++ (Chung et al. 2024): the noise that a step keeps is that of what is steered away
//! from. Guidance scales are smaller than without: 1 to 2.

use super::ancestral::ancestral;
use crate::Result;
use crate::sampling::denoise::{Denoise, steps, weighted};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise};
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "Euler a CFG++",
    aliases: &["k_euler_a_cfg_pp", "k_euler_ancestral_cfg_pp"],
    noise: StepNoise::Fresh,
    eta: Some(1.0),
    uses_uncond: true,
    run: euler_ancestral_cfg_pp,
    ..SamplerInfo::PLAIN
};

pub(super) fn euler_ancestral_cfg_pp(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(path.levels) {
        let denoised = model.predict(&x, sigma, None)?;
        let (down, up) = ancestral(sigma, next, path.eta);
        let kept = down / sigma;
        let mut terms = vec![(1.0, &denoised.guided), (kept, &x), (-kept, &denoised.uncond)];
        let drawn = next > 0.0 && path.eta != 0.0;
        let noise = if drawn { Some(model.noise(sigma, next)?) } else { None };
        terms.extend(noise.as_ref().map(|noise| (up, noise)));
        x = weighted(&terms)?;
        model.step(&x, &denoised.guided)?;
    }
    Ok(x)
}
