//! The linear multistep method: the slope as a polynomial through up to four of them, integrated exactly.

use std::collections::VecDeque;

use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps, weighted};
use crate::sampling::sampler::{Path, SamplerInfo};
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo =
    SamplerInfo { name: "LMS", aliases: &["k_lms"], run: lms, ..SamplerInfo::PLAIN };

const ORDER: usize = 4;

fn lms(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    // The latest first, each with its level.
    let mut slopes: VecDeque<(f64, Tensor)> = VecDeque::new();
    for (sigma, next) in steps(path.levels) {
        let denoised = model.denoise(&x, sigma)?;
        slopes.push_front((sigma, mix(1.0 / sigma, &x, -1.0 / sigma, &denoised)?));
        slopes.truncate(ORDER);
        let levels: Vec<f64> = slopes.iter().map(|(level, _)| *level).collect();
        let mut terms = vec![(1.0, &x)];
        terms.extend(
            slopes.iter().enumerate().map(|(index, (_, slope))| (integral(&levels, index, next), slope)),
        );
        x = weighted(&terms)?;
        model.step(&x, &denoised)?;
    }
    Ok(x)
}

/// The integral, from the first of the levels to `to`, of the polynomial that is 1 at one of them and 0 at all others.
fn integral(levels: &[f64], one: usize, to: f64) -> f64 {
    let value = |sigma: f64| {
        let others = levels.iter().enumerate().filter(|(index, _)| *index != one);
        others.map(|(_, level)| (sigma - level) / (levels[one] - level)).product::<f64>()
    };
    // Gauss's formula of two points, exact to the third degree.
    let (half, middle) = ((to - levels[0]) / 2.0, f64::midpoint(to, levels[0]));
    let offset = half / 3f64.sqrt();
    half * (value(middle - offset) + value(middle + offset))
}
