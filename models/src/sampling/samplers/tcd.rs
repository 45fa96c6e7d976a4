//! Trajectory consistency distillation (Zheng et al. 2024): to a timestep below the next one, then back up to that by
//! noise. `eta` is the paper's γ.

use crate::Result;
use crate::sampling::denoise::{Denoise, steps, weighted};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise};
use crate::sampling::schedules::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "TCD",
    aliases: &["k_tcd"],
    // For numbers of steps that divide 50 these are the timesteps that models are distilled with.
    default_schedule: Schedule::Simple,
    noise: StepNoise::Fresh,
    eta: Some(0.3),
    run: tcd,
    ..SamplerInfo::PLAIN
};

fn tcd(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    let alphas = path.model.alphas_cumprod();
    for (sigma, next) in steps(path.levels) {
        let denoised = model.denoise(&x, sigma)?;
        let timestep = if next > 0.0 { f64::from(path.model.sigma_to_t(next).round()) } else { 0.0 };
        let below = ((1.0 - path.eta) * timestep).floor().max(0.0) as usize;
        let alpha = f64::from(alphas.get(below).copied().unwrap_or(1.0));
        // √ᾱ · x₀ + √(1 − ᾱ) · ε with ε = (x − x₀) / σ; the last state is of that variance.
        let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt() / sigma);
        let scale = if next > 0.0 { 1.0 / signal } else { 1.0 };
        let mut terms = vec![((signal - noise) * scale, &denoised), (noise * scale, &x)];
        let drawn = next > 0.0 && path.eta != 0.0;
        let fresh = if drawn { Some(model.noise(sigma, next)?) } else { None };
        let up = (next.powi(2) + 1.0 - 1.0 / alpha).max(0.0).sqrt();
        terms.extend(fresh.as_ref().map(|fresh| (up, fresh)));
        x = weighted(&terms)?;
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
