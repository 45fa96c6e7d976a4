//! DPM2, ancestral.

use super::ancestral::ancestral;
use super::dpm_2::dpm_2_step;
use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise, two_a_step};
use crate::sampling::schedules::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DPM2 a",
    aliases: &["k_dpm_2_a", "k_dpm_2_ancestral"],
    default_schedule: Schedule::Karras,
    calls: |levels| Some(two_a_step(levels)),
    noise: StepNoise::Fresh,
    eta: Some(1.0),
    s_noise: true,
    second_order: true,
    discard_next_to_last_sigma: true,
    run: dpm_2_ancestral,
    ..SamplerInfo::PLAIN
};

fn dpm_2_ancestral(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(path.levels) {
        let (down, up) = ancestral(sigma, next, path.eta);
        let (ahead, denoised) = dpm_2_step(&x, sigma, down, model)?;
        x = ahead;
        if down > 0.0 && path.eta != 0.0 {
            x = mix(1.0, &x, up * path.options.s_noise, &model.noise(sigma, next)?)?;
        }
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
