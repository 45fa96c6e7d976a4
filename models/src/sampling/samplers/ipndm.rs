//! Improved pseudo numerical methods (Zhang & Chen 2023): the formulas of Adams and Bashforth over the levels, as if they
//! were alike in distance.

use std::collections::VecDeque;

use super::adams_bashforth::weights;
use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps, weighted};
use crate::sampling::sampler::{Path, SamplerInfo};
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "IPNDM",
    aliases: &["k_ipndm"],
    run: |x, path, model| ipndm(x, path, model, |distances| weights(distances.len()).to_vec()),
    ..SamplerInfo::PLAIN
};

const ORDER: usize = 4;

/// `weights` says what the slopes count, the latest first, of how far the steps from them went, this one first.
pub(super) fn ipndm(
    mut x: Tensor,
    path: &Path,
    model: &mut dyn Denoise,
    weights: fn(&[f64]) -> Vec<f64>,
) -> Result<Tensor> {
    let (mut slopes, mut distances) = (VecDeque::new(), VecDeque::new());
    for (sigma, next) in steps(path.levels) {
        let denoised = model.denoise(&x, sigma)?;
        slopes.push_front(mix(1.0 / sigma, &x, -1.0 / sigma, &denoised)?);
        distances.push_front(next - sigma);
        slopes.truncate(ORDER);
        distances.truncate(ORDER);
        x = if next > 0.0 {
            let weights = weights(distances.make_contiguous());
            let mut terms = vec![(1.0, &x)];
            terms.extend(weights.iter().zip(&slopes).map(|(weight, slope)| ((next - sigma) * weight, slope)));
            weighted(&terms)?
        } else {
            denoised.clone()
        };
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
