//! The Brownian motion that SDE samplers take their noise from: torchsde's `BrownianTree` (Li et al. 2020, Kidger et al.
//! 2021), one per image.
//!
//! Time is cut in halves, again and again, down to a millionth; each cut draws where the motion stands in the middle, from
//! a seed that is the cut's own. So the motion at a time depends on the image's seed and the range only, and any time can be
//! asked for in any order. What stands between the cuts and the asked time is never kept: a motion is found from the root
//! each time, in f64, and the last few are remembered.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::noise::{NoiseGenerator, NoiseSource, nv_normal};
use super::seed_sequence::seed_words;

/// numpy's pool of entropy, in words, as torchsde sets it.
const POOL: usize = 24;
/// Cuts below which no two times differ: of a range up to 10⁹.
const DEEPEST: usize = 64;
/// Times whose motion is remembered: both ends of a step, and one between.
const REMEMBERED: usize = 3;
/// Elements that a thread works on at once.
const AT_ONCE: usize = 2048;

/// One image's motion, between two levels.
pub struct BrownianTree {
    source: NoiseSource,
    entropy: u64,
    start: f64,
    end: f64,
    elements: usize,
    remembered: VecDeque<(f64, Vec<f64>)>,
}

/// One cut: its noise's seed, how the left half's share of the increment is made, and which half is looked at.
struct Cut {
    seed: u64,
    /// Share of the increment that the left half has without noise.
    mean: f64,
    /// What the cut's noise is multiplied by.
    deviation: f64,
    goes_right: bool,
}

impl BrownianTree {
    /// The motion of an image with this seed over `elements` numbers, from time `start` to `end`.
    pub fn new(source: NoiseSource, seed: u64, (start, end): (f64, f64), elements: usize) -> Self {
        let (start, end) = (rounded(start), rounded(end));
        Self { source, entropy: seed, start, end, elements, remembered: VecDeque::new() }
    }

    /// Noise for the step from one level down to another: the increment between them, of unit variance.
    pub fn noise(&mut self, from: f64, to: f64) -> Vec<f32> {
        let length = (from - to).abs().sqrt();
        let (low, high) = (self.clamped(from.min(to)), self.clamped(from.max(to)));
        self.prepare(low);
        self.prepare(high);
        let at =
            |time: f64| self.remembered.iter().find(|(known, _)| *known == time).map(|(_, motion)| motion);
        // Downwards time runs back.
        let sign = if from > to { -1.0 } else { 1.0 };
        match (at(low), at(high)) {
            (Some(low), Some(high)) => {
                low.iter().zip(high).map(|(low, high)| (sign * (high - low) / length) as f32).collect()
            }
            _ => vec![0.0; self.elements],
        }
    }

    fn clamped(&self, time: f64) -> f64 {
        rounded(time.clamp(self.start, self.end))
    }

    /// Finds the motion at a time, unless it is remembered.
    fn prepare(&mut self, time: f64) {
        let known = self.remembered.iter().position(|(known, _)| *known == time);
        let entry = match known.and_then(|index| self.remembered.remove(index)) {
            Some(entry) => entry,
            None => (time, self.motion(time)),
        };
        self.remembered.push_back(entry);
        if self.remembered.len() > REMEMBERED {
            self.remembered.pop_front();
        }
    }

    /// The motion at a time, 0 at the start.
    fn motion(&self, time: f64) -> Vec<f64> {
        if time <= self.start {
            return vec![0.0; self.elements];
        }
        let [root, ..] = seed_words::<POOL, 3>(self.entropy, &[]);
        let whole = (self.end - self.start).sqrt();
        let cuts = self.cuts(time);
        match self.source {
            NoiseSource::Nv => {
                let mut motion = vec![0.0; self.elements];
                motion.par_chunks_mut(AT_ONCE).enumerate().for_each(|(chunk, motion)| {
                    let first = (chunk * AT_ONCE) as u32;
                    for (offset, motion) in motion.iter_mut().enumerate() {
                        let draw = |seed| f64::from(nv_normal(seed, 0, first + offset as u32));
                        *motion = descend(whole * draw(u64::from(root)), &cuts, draw);
                    }
                });
                motion
            }
            NoiseSource::Cpu => {
                let draw = |seed| NoiseGenerator::new(self.source, seed).normal(self.elements);
                let draws: Vec<Vec<f32>> = cuts.par_iter().map(|cut| draw(cut.seed)).collect();
                let mut motion = Vec::with_capacity(self.elements);
                for (element, first) in draw(u64::from(root)).into_iter().enumerate() {
                    let mut at_cut = draws.iter().map(|draws| f64::from(draws[element]));
                    let draw = |_| at_cut.next().unwrap_or_default();
                    motion.push(descend(whole * f64::from(first), &cuts, draw));
                }
                motion
            }
        }
    }

    /// The cuts from the whole down to the one at a time after the start.
    fn cuts(&self, time: f64) -> Vec<Cut> {
        let (mut start, mut end, mut key) = (self.start, self.end, 0);
        let mut cuts = vec![];
        while time < end && cuts.len() < DEEPEST {
            let middle = rounded(0.5 * (end + start));
            let (left, right) = (middle - start, end - middle);
            let [seed, ..] = seed_words::<POOL, 4>(self.entropy, &[key, cuts.len() as u64]);
            let goes_right = time > middle;
            cuts.push(Cut {
                seed: u64::from(seed),
                mean: left / (end - start),
                deviation: (left * right / (end - start)).sqrt(),
                goes_right,
            });
            key = 2 * key + u64::from(goes_right);
            if goes_right { start = middle } else { end = middle }
        }
        cuts
    }
}

/// The motion where the cuts lead, from the increment over the whole.
fn descend(whole: f64, cuts: &[Cut], mut draw: impl FnMut(u64) -> f64) -> f64 {
    let (mut before, mut increment) = (0.0, whole);
    for cut in cuts {
        let left = cut.mean * increment + cut.deviation * draw(cut.seed);
        if cut.goes_right {
            before += left;
            increment -= left;
        } else {
            increment = left;
        }
    }
    before + increment
}

/// To six digits behind the point, as Python does.
fn rounded(time: f64) -> f64 {
    format!("{time:.6}").parse().unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(source: NoiseSource) -> BrownianTree {
        BrownianTree::new(source, 7, (0.0291675, 14.614642), 20)
    }

    #[test]
    fn what_is_asked_before_never_shows() {
        for (source, _) in NoiseSource::ALL {
            let wanted = tree(*source).noise(3.0, 1.0);
            let mut other = tree(*source);
            for (from, to) in [(14.6, 10.0), (10.0, 0.5), (0.5, 0.02), (1.0, 3.0)] {
                other.noise(from, to);
            }
            assert_eq!(other.noise(3.0, 1.0), wanted);
            let back: Vec<f32> = wanted.iter().map(|value| -value).collect();
            assert_eq!(other.noise(1.0, 3.0), back);
        }
    }

    #[test]
    fn noise_is_of_unit_variance_and_adds_up() {
        let mut tree = BrownianTree::new(NoiseSource::Nv, 1, (0.0291675, 14.614642), 20_000);
        for (from, to) in [(14.614642, 9.0), (2.0, 1.9), (0.1, 0.0291675)] {
            let noise = tree.noise(from, to);
            let variance = noise.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / 2e4;
            assert!((variance - 1.0).abs() < 0.05, "from {from} to {to}: {variance}");
        }
        let (whole, upper, lower) = (tree.noise(5.0, 1.0), tree.noise(5.0, 2.0), tree.noise(2.0, 1.0));
        for ((whole, upper), lower) in whole.iter().zip(upper).zip(lower) {
            assert!((whole * 2.0 - upper * 3f32.sqrt() - lower).abs() < 1e-5);
        }
    }

    #[test]
    fn a_range_without_length_and_times_outside_are_no_harm() {
        let mut point = BrownianTree::new(NoiseSource::Cpu, 1, (1.0, 1.0), 4);
        assert!(point.noise(2.0, 0.5).iter().all(|value| *value == 0.0));
        let mut tree = tree(NoiseSource::Nv);
        assert_eq!(tree.noise(20.0, 0.001).len(), 20);
    }
}
