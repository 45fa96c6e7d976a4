//! Pseudo linear multistep (Liu et al. 2022) as Stable Diffusion has it: the noise from up to four predictions, and two
//! model calls for the first step.

use std::collections::VecDeque;

use super::adams_bashforth::weights;
use super::ddim;
use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps, weighted};
use crate::sampling::sampler::{Levels, Path, SamplerInfo};
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "PLMS",
    aliases: &["k_plms"],
    levels: Levels::Timesteps(ddim::levels),
    calls: |levels| Some(if levels.len() > 1 { levels.len() } else { 0 }),
    run: plms,
    ..SamplerInfo::PLAIN
};

const ORDER: usize = 4;

fn plms(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    let mut before: VecDeque<Tensor> = VecDeque::new();
    for (sigma, next) in steps(path.levels) {
        let denoised = model.denoise(&x, sigma)?;
        before.push_front(mix(1.0 / sigma, &x, -1.0 / sigma, &denoised)?);
        before.truncate(ORDER);
        let noise = if before.len() == 1 {
            let ahead = mix(1.0, &x, next - sigma, &before[0])?;
            let denoised_ahead = model.denoise(&ahead, next)?;
            let noise_ahead = mix(1.0 / next, &ahead, -1.0 / next, &denoised_ahead)?;
            mix(0.5, &before[0], 0.5, &noise_ahead)?
        } else {
            let terms: Vec<(f64, &Tensor)> = weights(before.len()).iter().copied().zip(&before).collect();
            weighted(&terms)?
        };
        // What this noise leaves of the state is the prediction.
        let denoised = mix(1.0, &x, -sigma, &noise)?;
        x = mix(1.0, &x, next - sigma, &noise)?;
        model.step(&x, &denoised)?;
    }
    Ok(x)
}
