//! Noise before a step (Karras et al. 2022, algorithm 2).

use crate::Result;
use crate::sampling::denoise::{Denoise, mix};
use crate::sampling::sampler::Path;
use crate::tensor::Tensor;

/// The state with noise added, and its level.
pub(super) fn churned(x: Tensor, sigma: f64, path: &Path, model: &mut dyn Denoise) -> Result<(Tensor, f64)> {
    let options = path.options;
    if options.s_churn <= 0.0 {
        return Ok((x, sigma));
    }
    let share = (options.s_churn / (path.levels.len() - 1) as f64).min(std::f64::consts::SQRT_2 - 1.0);
    let gamma = if (options.s_tmin..=options.s_tmax).contains(&sigma) { share } else { 0.0 };
    let higher = sigma * (gamma + 1.0);
    // Drawn also where it is not added: the next noise is another one then.
    let noise = model.noise(sigma, higher)?;
    if gamma == 0.0 {
        return Ok((x, sigma));
    }
    let added = options.s_noise * (higher.powi(2) - sigma.powi(2)).sqrt();
    Ok((mix(1.0, &x, added, &noise)?, higher))
}
