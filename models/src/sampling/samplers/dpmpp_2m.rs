//! DPM-Solver++(2M) (Lu et al. 2022): second order from the previous step's prediction.

use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{Path, SamplerInfo};
use crate::sampling::schedules::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DPM++ 2M",
    aliases: &["k_dpmpp_2m"],
    default_schedule: Schedule::Karras,
    run: dpmpp_2m,
    ..SamplerInfo::PLAIN
};

fn dpmpp_2m(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    // The prediction before, and how far that step went in −ln σ.
    let mut previous: Option<(Tensor, f64)> = None;
    for (sigma, next) in steps(path.levels) {
        let denoised = model.denoise(&x, sigma)?;
        let h = (sigma / next).ln(); // infinite for the last step
        let target = match &previous {
            Some((before, h_before)) if next > 0.0 => {
                let share = h / (2.0 * h_before);
                mix(1.0 + share, &denoised, -share, before)?
            }
            _ => denoised.clone(),
        };
        // −expm1(−h) = 1 − next / σ
        x = mix(next / sigma, &x, -(-h).exp_m1(), &target)?;
        model.step(&x, &denoised)?;
        previous = Some((denoised, h));
    }
    Ok(x)
}
