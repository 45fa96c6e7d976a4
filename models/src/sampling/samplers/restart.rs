//! Restart sampling (Xu et al. 2023): Heun's method that goes back up by noise between two levels, once or twice, if there
//! are 20 steps or more.

use super::heun::heun_step;
use crate::Result;
use crate::sampling::denoise::{Denoise, mix, steps};
use crate::sampling::sampler::{Path, SamplerInfo, StepNoise, two_a_step};
use crate::sampling::schedules::{Rounding, Schedule, karras};
use crate::tensor::Tensor;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "Restart",
    aliases: &["k_restart"],
    default_schedule: Schedule::Karras,
    calls: |levels| Some(two_a_step(&[&[1.0], &*targets(levels)].concat())),
    noise: StepNoise::Fresh,
    second_order: true,
    run: restart,
    ..SamplerInfo::PLAIN
};

/// The level that a restart begins at.
const LOW: f32 = 0.1;
/// The level that it goes back up to.
const HIGH: f32 = 2.0;

fn restart(mut x: Tensor, path: &Path, model: &mut dyn Denoise) -> Result<Tensor> {
    let mut stands = path.levels.first().copied().map_or(0.0, f64::from);
    for (sigma, next) in pairs(path.levels) {
        if sigma > stands {
            let up = (sigma.powi(2) - stands.powi(2)).sqrt();
            x = mix(1.0, &x, up, &model.noise(stands, sigma)?)?;
        }
        let (ahead, denoised) = heun_step(&x, sigma, next, model)?;
        x = ahead;
        model.step(&x, &denoised)?;
        stands = next;
    }
    Ok(x)
}

/// The levels that its steps end at.
fn targets(levels: &[f32]) -> Vec<f32> {
    pairs(levels).into_iter().map(|(_, next)| next as f32).collect()
}

/// Its steps, from and to, for a schedule.
fn pairs(levels: &[f32]) -> Vec<(f64, f64)> {
    let (count, [first, .., low, _]) = (levels.len().saturating_sub(1), levels) else {
        return steps(levels).collect();
    };
    let (again, times) = match count {
        ..20 => return steps(levels).collect(),
        20..36 => (9, 1),
        _ => (count / 4, 2),
    };
    // All steps together are as many as were asked for.
    let curve = |steps, low, high| karras(steps, (f64::from(low), f64::from(high)), 7.0, Rounding::Once);
    let levels = curve(count - again * times, *low, *first);
    let (low, high) = (nearest(&levels, LOW), nearest(&levels, HIGH));
    let mut pairs = vec![];
    for (index, step) in steps(&levels).enumerate() {
        pairs.push(step);
        if index + 1 == low && high < low {
            let mut back = curve(again + 1, levels[low], levels[high]);
            back.pop();
            for _ in 0..times {
                pairs.extend(steps(&back));
            }
        }
    }
    pairs
}

/// Which of the levels is nearest to one; of several the first.
fn nearest(levels: &[f32], level: f32) -> usize {
    let away = |index: &usize| (levels[*index] - level).abs();
    (0..levels.len()).min_by(|a, b| away(a).total_cmp(&away(b))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::{ModelSigmas, SamplerOptions, levels};

    #[test]
    fn steps_are_as_many_as_were_asked_for() {
        for count in [1, 2, 19, 20, 35, 36, 50, 150] {
            let levels = levels(
                &INFO,
                &ModelSigmas::default(),
                Schedule::Automatic,
                count,
                &SamplerOptions::default(),
            );
            let pairs = pairs(&levels.expect("levels").levels);
            assert_eq!(pairs.len(), count);
            let rises = pairs.windows(2).filter(|pair| pair[1].0 > pair[0].1).count();
            assert_eq!(
                rises,
                if count < 20 {
                    0
                } else if count < 36 {
                    1
                } else {
                    2
                },
                "{count}"
            );
        }
    }
}
