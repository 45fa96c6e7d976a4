//! Sampling of latent consistency models (Luo et al. 2023): to the prediction at once, then back up by noise. The model
//! knows 50 timesteps, and its prediction is mixed with the state by their boundary condition.

use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{Levels, Path, SamplerInfo, StepNoise};
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "LCM",
    aliases: &["k_lcm"],
    levels: Levels::ScheduleOver(|model| model.coarse(model.sigmas().len() / TIMESTEPS)),
    noise: StepNoise::Fresh,
    run: lcm,
    ..SamplerInfo::PLAIN
};

/// Timesteps that models are distilled with.
const TIMESTEPS: usize = 50;
/// The deviation of pictures, by which the boundary condition is scaled.
const SIGMA_DATA: f64 = 0.5;
/// What timesteps are multiplied by in the boundary condition.
const TIMESTEP_SCALING: f64 = 10.0;

fn lcm(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(path.levels) {
        let timestep = path.model.sigma_to_t(sigma);
        let predicted = model.predict(&x, sigma, Some(timestep))?.guided;
        let time = f64::from(timestep) * TIMESTEP_SCALING;
        let away = time.powi(2) + SIGMA_DATA.powi(2);
        let denoised = mix(SIGMA_DATA.powi(2) / away, &x, time / away.sqrt(), &predicted)?;
        x = denoised.clone();
        if next > 0.0 {
            x = mix(1.0, &x, next, &model.noise(sigma, next)?)?;
        }
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
