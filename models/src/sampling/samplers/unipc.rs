//! UniPC (Zhao et al. 2023): a predictor and a corrector of the same order from the predictions before, with one model call
//! a step. Its times are its own; in λ = −ln σ its state of constant variance goes the same way.

use std::collections::VecDeque;

use super::ddim::of_constant_variance;
use super::linear::solved;
use crate::sampling::denoise::{Denoise, mix, weighted};
use crate::sampling::model_sigmas::{ModelSigmas, Sigmas};
use crate::sampling::options::{SamplerOptions, UniPcSkipType, UniPcVariant};
use crate::sampling::sampler::{Levels, Path, SamplerInfo, Timesteps};
use crate::tensor::Tensor;
use crate::{Error, Result};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "UniPC",
    aliases: &["k_unipc"],
    levels: Levels::Timesteps(levels),
    takes_uni_pc_options: true,
    run: unipc,
    ..SamplerInfo::PLAIN
};

/// As many steps as DDIM has timesteps, between the model's last timestep, or the last of the lowest few, and its first;
/// index `i` of the model's levels is time `(i + 1) / 1000`.
fn levels(model: &ModelSigmas, timesteps: &Timesteps, options: &SamplerOptions) -> Sigmas {
    let visited = timesteps.of(model);
    let (steps, Some(highest)) = (visited.len(), visited.last()) else {
        return of_constant_variance(vec![]);
    };
    let alphas = LogAlphas::of(model);
    let count = alphas.0.len() as f64;
    let last = 1.0 / count;
    let first = timesteps.lowest.map_or(1.0, |_| (highest + 1) as f64 / count);
    let ramp = |from: f64, to: f64, step: usize| from + (to - from) * step as f64 / steps as f64;
    let level = |step| {
        let time = match options.uni_pc.skip_type {
            UniPcSkipType::TimeUniform => ramp(first, last, step),
            UniPcSkipType::TimeQuadratic => ramp(first.sqrt(), last.sqrt(), step).powi(2),
            UniPcSkipType::LogSnr => {
                let log = |place| alphas.sigma(place).ln();
                return ramp(log(first * count - 1.0), log(0.0), step).exp() as f32;
            }
        };
        alphas.sigma(time * count - 1.0) as f32
    };
    of_constant_variance((0..=steps).map(level).collect())
}

/// ln √ᾱ by level of the model, falling; between them it is a line.
struct LogAlphas(Vec<f64>);

impl LogAlphas {
    fn of(model: &ModelSigmas) -> Self {
        Self(model.alphas_cumprod().iter().map(|alpha| 0.5 * f64::from(*alpha).ln()).collect())
    }

    /// The noise level at a place among the model's.
    fn sigma(&self, place: f64) -> f64 {
        let place = place.clamp(0.0, (self.0.len() - 1) as f64);
        let low = (place as usize).min(self.0.len() - 2);
        let log = self.0[low] + (place - low as f64) * (self.0[low + 1] - self.0[low]);
        (-2.0 * log).exp_m1().sqrt()
    }

    /// The timestep of a noise level.
    fn timestep(&self, sigma: f64) -> f32 {
        let log = -0.5 * (sigma * sigma).ln_1p();
        let low = self.0.partition_point(|each| *each >= log).saturating_sub(1).min(self.0.len() - 2);
        let place = low as f64 + (log - self.0[low]) / (self.0[low + 1] - self.0[low]);
        place.clamp(0.0, (self.0.len() - 1) as f64) as f32
    }
}

fn unipc(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    let (options, alphas) = (path.options.uni_pc, LogAlphas::of(path.model));
    let steps = path.levels.len() - 1;
    let most = options.order.clamp(1, steps.max(1));
    let level = |step: usize| f64::from(path.levels[step]);
    let predict = |x: &Tensor, step: usize, model: &mut dyn Denoise| {
        let sigma = level(step);
        Ok::<_, Error>(model.predict(x, sigma, Some(alphas.timestep(sigma)))?.guided)
    };
    // Predictions and where they were made, the latest first.
    let mut known: VecDeque<(f64, Tensor)> = VecDeque::new();
    if steps > 0 {
        known.push_front((-level(0).ln(), predict(&x, 0, model)?));
    }
    for step in 1..=steps {
        let lowered = if options.lower_order_final { most.min(steps + 1 - step) } else { most };
        let order = if step < most { step } else { lowered };
        let update = Update::new(&x, &known, level(step), order, options.variant)?;
        let predicted = update.predictor()?;
        if step == steps {
            x = predicted;
            let (_, denoised) = &known[0];
            model.step(&x, denoised)?;
            break;
        }
        let latest = predict(&predicted, step, model)?;
        x = update.corrector(&latest)?;
        model.step(&x, &latest)?;
        known.push_front((-level(step).ln(), latest));
        known.truncate(most);
    }
    Ok(x)
}

/// One step: where it leads without corrections, and what it is corrected by.
struct Update {
    base: Tensor,
    latest: Tensor,
    /// Divided differences of predictions before to the latest.
    differences: Vec<Tensor>,
    /// What they count in the predictor.
    predictor: Vec<f64>,
    /// What they count in the corrector, and behind them what the new prediction counts.
    corrector: Vec<f64>,
}

impl Update {
    fn new(
        x: &Tensor,
        known: &VecDeque<(f64, Tensor)>,
        sigma: f64,
        order: usize,
        variant: UniPcVariant,
    ) -> Result<Self> {
        let (lambda, latest) = &known[0];
        let h = -sigma.ln() - lambda;
        let mut ratios = vec![];
        let mut differences = vec![];
        for (before, prediction) in known.iter().skip(1).take(order - 1) {
            let ratio = (before - lambda) / h;
            ratios.push(ratio);
            differences.push(mix(1.0 / ratio, prediction, -1.0 / ratio, latest)?);
        }
        ratios.push(1.0);
        let grown = (-h).exp_m1();
        let (predictor, corrector) = match variant {
            UniPcVariant::Bh1 => of_b(&ratios, -h, -h)?,
            UniPcVariant::Bh2 => of_b(&ratios, -h, grown)?,
            UniPcVariant::VaryCoeff => of_inverse(&ratios, -h)?,
        };
        let base = mix((-h).exp(), x, -grown, latest)?;
        Ok(Self { base, latest: latest.clone(), differences, predictor, corrector })
    }

    fn predictor(&self) -> Result<Tensor> {
        let mut terms = vec![(1.0, &self.base)];
        terms.extend(self.predictor.iter().map(|factor| -factor).zip(&self.differences));
        weighted(&terms)
    }

    fn corrector(&self, prediction: &Tensor) -> Result<Tensor> {
        let change = prediction.minus(&self.latest)?;
        let mut terms = vec![(1.0, &self.base)];
        let differences = self.differences.iter().chain([&change]);
        terms.extend(self.corrector.iter().map(|factor| -factor).zip(differences));
        weighted(&terms)
    }
}

/// What differences count in predictor and corrector for a step of length `h` and a function B of it.
fn of_b(ratios: &[f64], h: f64, b: f64) -> Result<(Vec<f64>, Vec<f64>)> {
    let order = ratios.len();
    let mut phi = h.exp_m1() / h - 1.0;
    let mut factorial = 1.0;
    let mut right = vec![];
    for index in 1..=order {
        right.push(phi * factorial / b);
        factorial *= (index + 1) as f64;
        phi = phi / h - 1.0 / factorial;
    }
    let powers = |order: usize| -> Vec<Vec<f64>> {
        (0..order)
            .map(|power| ratios[..order].iter().map(|ratio| ratio.powi(power as i32)).collect())
            .collect()
    };
    let times_b = |weights: Vec<f64>| weights.into_iter().map(|weight| weight * b).collect();
    // For the lowest orders the paper's simpler weights.
    let predictor = match order {
        1 => vec![],
        2 => vec![0.5],
        _ => solved(powers(order - 1), right[..order - 1].to_vec())?,
    };
    let corrector = if order == 1 { vec![0.5] } else { solved(powers(order), right)? };
    Ok((times_b(predictor), times_b(corrector)))
}

/// What differences count for a step of length `h`, by the inverse of a matrix of the ratios.
fn of_inverse(ratios: &[f64], h: f64) -> Result<(Vec<f64>, Vec<f64>)> {
    let order = ratios.len();
    let mut phis = vec![h.exp_m1()];
    let mut factorial = 1.0;
    for index in 1..=order {
        phis.push(phis[index - 1] / h - 1.0 / factorial);
        factorial *= (index + 1) as f64;
    }
    // Row i: ratioᵢᵏ⁻¹ / k!
    let matrix = |order: usize| -> Vec<Vec<f64>> {
        let row = |ratio: &f64| {
            let mut value = 1.0;
            (1..=order)
                .map(|k| {
                    let now = value;
                    value *= ratio / (k + 1) as f64;
                    now
                })
                .collect()
        };
        ratios[..order].iter().map(row).collect()
    };
    let inverse = |order: usize| -> Result<Vec<Vec<f64>>> {
        // Column by column.
        let unit = |one: usize| (0..order).map(|index| f64::from(u8::from(index == one))).collect();
        (0..order).map(|one| solved(matrix(order), unit(one))).collect()
    };
    let (before, all) = (inverse(order - 1)?, inverse(order)?);
    let counts = |columns: &[Vec<f64>], difference: usize| {
        (0..order - 1).map(|k| phis[k + 1] * columns[difference][k]).sum::<f64>()
    };
    let predictor = (0..order - 1).map(|difference| counts(&before, difference)).collect();
    let mut corrector: Vec<f64> = (0..order - 1).map(|difference| counts(&all, difference)).collect();
    // As in the authors' program, the new prediction is weighed by the last row but one.
    corrector.push(phis[order] * all[order - 1][order.saturating_sub(2)]);
    Ok((predictor, corrector))
}
