//! A filter that takes the mean of a part of what is around, in the order of its values: a median, the greatest, or between
//! (`extensions-builtin/soft-inpainting` of A1111 1.10.1: `weighted_histogram_filter`).

use rayon::prelude::*;

/// How much each place around counts.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedHistogram {
    /// `(2 reach + 1)²`, rows from the top.
    weights: Vec<f64>,
    reach: usize,
}

impl WeightedHistogram {
    /// A Gaussian of this width in pixels, lowered and stretched so that it is 1 in the middle and 0 one pixel beyond `reach`,
    /// and on.
    pub fn gaussian(width: f64, reach: usize) -> Self {
        let height = |square: f64| (-square / (width * width)).exp();
        let beyond = reach as f64 + 1.0;
        let lowest = height(beyond * beyond);
        let scale = 1.0 / (1.0 - lowest);
        let side = 2 * reach + 1;
        let weights = (0..side * side).map(|at| {
            let off = |place: usize| place.abs_diff(reach) as f64;
            let square = off(at / side).powi(2) + off(at % side).powi(2);
            ((height(square) - lowest) * scale).max(0.0)
        });
        Self { weights: weights.collect(), reach }
    }

    /// For each value of a plane with rows of `width` the mean of those around that lie between two shares of all weights, counted
    /// from the lowest value up; where that is less than `least` of weight, what is around it too, towards the middle. Beyond
    /// an edge there is nothing.
    pub fn filtered(&self, values: &[f32], width: usize, shares: (f64, f64), least: f64) -> Vec<f32> {
        let mut made = vec![0.0; values.len()];
        let width = width.max(1);
        let height = values.len() / width;
        made.par_chunks_exact_mut(width).enumerate().for_each_init(Vec::new, |around, (y, line)| {
            for (x, made) in line.iter_mut().enumerate() {
                around.clear();
                self.around(values, (width, height), (x, y), around);
                *made = mean(around, shares, least);
            }
        });
        made
    }

    /// What is around a place, `(value, weight)`, row by row.
    fn around(
        &self,
        values: &[f32],
        (width, height): (usize, usize),
        (x, y): (usize, usize),
        around: &mut Vec<(f32, f64)>,
    ) {
        let side = 2 * self.reach + 1;
        let (first, last) = (x.saturating_sub(self.reach), (x + self.reach + 1).min(width));
        for row in y.saturating_sub(self.reach)..(y + self.reach + 1).min(height) {
            let weights = &self.weights[(row + self.reach - y) * side + (first + self.reach - x)..];
            let values = &values[row * width + first..row * width + last];
            around.extend(values.iter().copied().zip(weights.iter().copied()));
        }
    }
}

fn mean(around: &mut [(f32, f64)], (low, high): (f64, f64), least: f64) -> f32 {
    // Equal values stay in their order, as Python's sort leaves them.
    around.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let sum = around.iter().fold(0.0, |sum, (_, weight)| sum + weight);
    let (mut begin, mut end) = (sum * low, sum * high);
    if end - begin < least {
        let middle = f64::midpoint(begin, end);
        (begin, end) = (middle - least / 2.0, middle + least / 2.0);
        if end > sum {
            (begin, end) = (sum - least, sum);
        }
        if begin < 0.0 {
            (begin, end) = (0.0, least);
        }
    }
    let (mut reached, mut total, mut weights) = (0.0, 0.0, 0.0);
    for (value, weight) in around {
        let from = reached;
        reached += *weight;
        if begin >= reached {
            continue;
        }
        if end <= from {
            break;
        }
        let share = end.min(reached) - begin.max(from);
        total += f64::from(*value) * share;
        weights += share;
    }
    if weights == 0.0 { 0.0 } else { (total / weights) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_stays_and_a_single_other_one_is_no_median() {
        let histogram = WeightedHistogram::gaussian(1.5, 2);
        let mut values = vec![3.0; 63];
        assert_eq!(histogram.filtered(&values, 9, (0.25, 0.75), 1.0), values);
        values[31] = 50.0;
        assert!(histogram.filtered(&values, 9, (0.25, 0.75), 1.0).iter().all(|value| *value == 3.0));
        let greatest = histogram.filtered(&values, 9, (0.9, 1.0), 1.0);
        // As far as it reaches, and by its weight.
        assert!(greatest[31] > greatest[32] && greatest[32] > greatest[33] && greatest[34] == 3.0);
    }

    #[test]
    fn no_size_is_too_odd() {
        let histogram = WeightedHistogram::gaussian(1.5, 2);
        for (count, width) in [(0, 0), (0, 4), (1, 1), (5, 1), (5, 5), (4, 2)] {
            let values = vec![f32::NAN; count];
            assert_eq!(histogram.filtered(&values, width, (0.0, 1.0), 1.0).len(), count);
        }
    }
}
