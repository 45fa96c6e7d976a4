//! DPM-Solver++ (Lu et al. 2022) for the stochastic equation, two model calls a step.

use super::ancestral::ancestral;
use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise, two_a_step};
use crate::sampling::schedules::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DPM++ SDE",
    aliases: &["k_dpmpp_sde"],
    default_schedule: Schedule::Karras,
    calls: |levels| Some(two_a_step(levels)),
    noise: StepNoise::Brownian,
    eta: Some(1.0),
    s_noise: true,
    second_order: true,
    run: dpmpp_sde,
    ..SamplerInfo::PLAIN
};

fn dpmpp_sde(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(path.levels) {
        let denoised = model.denoise(&x, sigma)?;
        if next <= 0.0 {
            x = mix(next / sigma, &x, 1.0 - next / sigma, &denoised)?;
            model.step(&x, &denoised)?;
            continue;
        }
        // In f32 there and back through the logarithm, as k-diffusion does: the noise depends on the last bit.
        let (t, t_next) = (-(sigma as f32).ln(), -(next as f32).ln());
        let level = |t: f32| f64::from((-t).exp());
        let (from, middle, to) = (level(t), level(t + (t_next - t) * 0.5), level(t_next));

        let (down, up) = ancestral(from, middle, path.eta);
        let mut halfway = mix(down / from, &x, 1.0 - down / from, &denoised)?;
        if path.eta != 0.0 {
            halfway = mix(1.0, &halfway, up * path.options.s_noise, &model.noise(from, middle)?)?;
        }
        let denoised_halfway = model.denoise(&halfway, middle)?;

        let (down, up) = ancestral(from, to, path.eta);
        x = mix(down / from, &x, 1.0 - down / from, &denoised_halfway)?;
        if path.eta != 0.0 {
            x = mix(1.0, &x, up * path.options.s_noise, &model.noise(from, to)?)?;
        }
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
