//! DPM-Solver++(2M) (Lu et al. 2022) for the stochastic equation: second order from the previous step's prediction.

use crate::Result;
use crate::sampling::denoise::{Denoise, steps, weighted};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise};
use crate::sampling::schedules::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DPM++ 2M SDE",
    aliases: &["k_dpmpp_2m_sde"],
    default_schedule: Schedule::Exponential,
    noise: StepNoise::Brownian,
    eta: Some(1.0),
    s_noise: true,
    // Half of what the step moves towards the prediction.
    run: |x, path, model| dpmpp_2m_sde(x, path, model, |h| -(-h).exp_m1() / 2.0),
    ..SamplerInfo::PLAIN
};

/// `correction` is what the difference of predictions counts, of how far a step goes in −ln σ, its noise included.
pub(super) fn dpmpp_2m_sde(
    mut x: Tensor,
    path: &Path,
    model: &mut dyn Denoise,
    correction: fn(f64) -> f64,
) -> Result<Tensor> {
    // The prediction before, and how far that step went in −ln σ.
    let mut previous: Option<(Tensor, f64)> = None;
    for (sigma, next) in steps(path.levels) {
        let denoised = model.denoise(&x, sigma)?;
        if next <= 0.0 {
            x = denoised.clone();
            model.step(&x, &denoised)?;
            continue;
        }
        let h = (sigma / next).ln();
        let whole = h * (1.0 + path.eta);
        let share = previous.as_ref().map_or(0.0, |(_, h_before)| correction(whole) * h / h_before);
        let before = previous.as_ref().map_or(&denoised, |(before, _)| before);
        let mut terms = vec![((-whole).exp(), &x), (-(-whole).exp_m1() + share, &denoised), (-share, before)];
        let noise = if path.eta == 0.0 { None } else { Some(model.noise(sigma, next)?) };
        if let Some(noise) = &noise {
            let deviation = next * (-(-2.0 * h * path.eta).exp_m1()).sqrt();
            terms.push((deviation * path.options.s_noise, noise));
        }
        x = weighted(&terms)?;
        model.step(&x, &denoised)?;
        previous = Some((denoised, h));
    }
    Ok(x)
}
