//! DPM-Solver++(3M) for the stochastic equation: third order from the predictions of two steps before.

use crate::Result;
use crate::sampling::denoise::{Denoise, steps, weighted};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise};
use crate::sampling::schedules::Schedule;
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DPM++ 3M SDE",
    aliases: &["k_dpmpp_3m_sde"],
    default_schedule: Schedule::Exponential,
    noise: StepNoise::Brownian,
    eta: Some(1.0),
    s_noise: true,
    discard_next_to_last_sigma: true,
    run: dpmpp_3m_sde,
    ..SamplerInfo::PLAIN
};

fn dpmpp_3m_sde(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    // Predictions before, the latest first, and how far their steps went in −ln σ.
    let mut previous: Vec<(Tensor, f64)> = vec![];
    for (sigma, next) in steps(path.levels) {
        let denoised = model.denoise(&x, sigma)?;
        if next <= 0.0 {
            x = denoised.clone();
            model.step(&x, &denoised)?;
            continue;
        }
        let h = (sigma / next).ln();
        let whole = h * (1.0 + path.eta);
        let phi_2 = (-whole).exp_m1() / whole + 1.0;
        let (now, before): (f64, Vec<f64>) = match &*previous {
            [] => (0.0, vec![]),
            [(_, h_1)] => (phi_2 * h / h_1, vec![-phi_2 * h / h_1]),
            [(_, h_1), (_, h_2), ..] => {
                let phi_3 = phi_2 / whole - 0.5;
                let (r_0, r_1) = (h_1 / h, h_2 / h);
                // What the first differences count: of now and before, and of the two before.
                let (outer, curvature) = (r_0 / (r_0 + r_1), 1.0 / (r_0 + r_1));
                let latest = (phi_2 * (1.0 + outer) - phi_3 * curvature) / r_0;
                let earlier = (-phi_2 * outer + phi_3 * curvature) / r_1;
                (latest, vec![earlier - latest, -earlier])
            }
        };
        let mut terms = vec![((-whole).exp(), &x), (-(-whole).exp_m1() + now, &denoised)];
        terms.extend(before.into_iter().zip(&previous).map(|(factor, (before, _))| (factor, before)));
        let noise = if path.eta == 0.0 { None } else { Some(model.noise(sigma, next)?) };
        if let Some(noise) = &noise {
            let deviation = next * (-(-2.0 * h * path.eta).exp_m1()).sqrt();
            terms.push((deviation * path.options.s_noise, noise));
        }
        x = weighted(&terms)?;
        model.step(&x, &denoised)?;
        previous.insert(0, (denoised, h));
        previous.truncate(2);
    }
    Ok(x)
}
