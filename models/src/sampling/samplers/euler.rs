//! Euler's method (Karras et al. 2022, algorithm 2 without churn), and its ancestral variant.

use candle_core::Tensor;

use super::{Denoise, mix, steps};
use crate::Result;

pub(super) fn euler(mut x: Tensor, levels: &[f32], model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(levels) {
        let denoised = model.denoise(&x, sigma)?;
        // x + (x − denoised) / σ · (next − σ)
        x = mix(next / sigma, &x, 1.0 - next / sigma, &denoised)?;
        model.step(&x, &denoised)?;
    }
    Ok(x)
}

/// Steps down further than asked, then adds noise up to the level; eta 1.
pub(super) fn euler_ancestral(mut x: Tensor, levels: &[f32], model: &mut dyn Denoise) -> Result<Tensor> {
    for (sigma, next) in steps(levels) {
        let denoised = model.denoise(&x, sigma)?;
        let up = next.min((next.powi(2) * (sigma.powi(2) - next.powi(2)) / sigma.powi(2)).sqrt());
        let down = (next.powi(2) - up.powi(2)).sqrt();
        x = mix(down / sigma, &x, 1.0 - down / sigma, &denoised)?;
        if next > 0.0 {
            x = mix(1.0, &x, up, &model.noise()?)?;
        }
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
