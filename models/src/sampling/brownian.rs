//! The Brownian motion that SDE samplers take their noise from: torchsde's `BrownianTree` (Li et al. 2020, Kidger et al.
//! 2021), one per image.
//!
//! Time is cut in halves, again and again, down to a millionth; each cut draws where the motion stands in the middle, from
//! a seed that is the cut's own. So the motion at a time depends on the image's seed and the range only, and any time can be
//! asked for in any order. What stands between the cuts and the asked time is never kept: a motion is found from the root
//! each time, in f64 from numbers that are drawn in f32's precision (some 25 for each element: kernels draw them), and the
//! last few are remembered.

use std::collections::VecDeque;

use latentd_kernels::{Cut, Isa, halve, philox_normal, torch_normal};
use rayon::prelude::*;

use super::noise::{NoiseGenerator, NoiseSource};
use super::seed_sequence::seed_words;

/// numpy's pool of entropy, in words, as torchsde sets it.
const POOL: usize = 24;
/// Cuts below which no two times differ: of a range up to 10⁹.
const DEEPEST: u64 = 64;
/// Times whose motion is remembered: both ends of a step, and one between.
const REMEMBERED: usize = 3;
/// Elements that a thread works on at once.
const AT_ONCE: usize = 1024;
/// Parts of the elements whose numbers come one from the other: each goes through those before it.
const PARTS: usize = 8;
/// Those are told apart in so many.
const WORDS: usize = 624;
/// Fewer elements than this torch draws in another way.
const FEW: usize = 16;

/// One image's motion, between two levels.
pub struct BrownianTree {
    source: NoiseSource,
    entropy: u64,
    start: f64,
    end: f64,
    elements: usize,
    remembered: VecDeque<(f64, Vec<f64>)>,
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
        let cuts = self.cuts(time);
        let at_once = match self.source {
            NoiseSource::Nv => AT_ONCE,
            NoiseSource::Cpu => self.elements.div_ceil(PARTS).next_multiple_of(WORDS),
        };
        let mut motion = vec![0.0; self.elements];
        motion.par_chunks_mut(at_once).enumerate().for_each(|(chunk, motion)| {
            let (mut draws, mut increments) = (vec![0.0; motion.len()], vec![0.0; motion.len()]);
            for (seed, cut) in &cuts {
                self.draw(*seed, chunk * at_once, &mut draws);
                halve(Isa::current(), *cut, &draws, &mut increments, motion);
            }
            motion.iter_mut().zip(increments).for_each(|(motion, increment)| *motion += increment);
        });
        motion
    }

    /// A cut's normal numbers, of elements from `first` on.
    fn draw(&self, seed: u32, first: usize, draws: &mut [f32]) {
        let isa = Isa::current();
        match self.source {
            NoiseSource::Nv => philox_normal(isa, u64::from(seed), 0, first as u32, draws),
            NoiseSource::Cpu if self.elements < FEW => {
                let mut generator = NoiseGenerator::new(self.source, u64::from(seed));
                draws.copy_from_slice(&generator.normal(self.elements));
            }
            NoiseSource::Cpu => torch_normal(isa, seed, self.elements, first, draws),
        }
    }

    /// The cuts from the whole down to the one at a time after the start, and each one's seed. The whole is the left half of
    /// nothing.
    fn cuts(&self, time: f64) -> Vec<(u32, Cut)> {
        let (mut start, mut end, mut key) = (self.start, self.end, 0);
        let [seed, ..] = seed_words::<POOL, 3>(self.entropy, &[]);
        let whole = Cut { mean: 0.0, deviation: (end - start).sqrt(), goes_right: false };
        let mut cuts = vec![(seed, whole)];
        for depth in 0..DEEPEST {
            if time >= end {
                break;
            }
            let middle = rounded(0.5 * (end + start));
            let (left, right) = (middle - start, end - middle);
            let [seed, ..] = seed_words::<POOL, 4>(self.entropy, &[key, depth]);
            let goes_right = time > middle;
            let (mean, deviation) = (left / (end - start), (left * right / (end - start)).sqrt());
            cuts.push((seed, Cut { mean, deviation, goes_right }));
            key = 2 * key + u64::from(goes_right);
            if goes_right { start = middle } else { end = middle }
        }
        cuts
    }
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
