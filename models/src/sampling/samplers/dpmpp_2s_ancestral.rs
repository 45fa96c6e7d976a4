//! DPM-Solver++(2S) (Lu et al. 2022), ancestral.

use super::ancestral::ancestral;
use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise, two_a_step};
use crate::sampling::schedules::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DPM++ 2S a",
    aliases: &["k_dpmpp_2s_a", "k_dpmpp_2s_ancestral"],
    default_schedule: Schedule::Karras,
    calls: |levels| Some(two_a_step(levels)),
    noise: StepNoise::Fresh,
    eta: Some(1.0),
    s_noise: true,
    second_order: true,
    run: dpmpp_2s_ancestral,
    ..SamplerInfo::PLAIN
};

fn dpmpp_2s_ancestral(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(path.levels) {
        let denoised = model.denoise(&x, sigma)?;
        let (down, up) = ancestral(sigma, next, path.eta);
        // What a whole step goes by: the prediction halfway in the logarithm, unless it ends at 0.
        let target = if down > 0.0 {
            let middle = (sigma * down).sqrt();
            let halfway = mix(middle / sigma, &x, 1.0 - middle / sigma, &denoised)?;
            model.denoise(&halfway, middle)?
        } else {
            denoised.clone()
        };
        x = mix(down / sigma, &x, 1.0 - down / sigma, &target)?;
        if next > 0.0 && path.eta != 0.0 {
            x = mix(1.0, &x, up * path.options.s_noise, &model.noise(sigma, next)?)?;
        }
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
