//! Improved pseudo numerical methods for steps that differ in length, with the coefficients of Zhou et al.'s
//! `diff-sampler`.

use super::ipndm;
use crate::sampling::sampler::SamplerInfo;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "IPNDM_V",
    aliases: &["k_ipndm_v"],
    run: |x, path, model| ipndm::ipndm(x, path, model, weights),
    ..ipndm::INFO
};

/// What the slopes count, the latest first, of the lengths of the steps from them, the latest first.
fn weights(lengths: &[f64]) -> Vec<f64> {
    // Ratios, and sums, of lengths that follow each other.
    match *lengths {
        [] | [_] => vec![1.0; lengths.len()],
        [a, b] => {
            let first = a / b;
            vec![1.0 + first / 2.0, -first / 2.0]
        }
        [a, b, c] => {
            let first = a / b;
            let second = quadratic(a, b, c);
            vec![1.0 + first / 2.0 + second, -first / 2.0 - (1.0 + b / c) * second, second * b / c]
        }
        [a, b, c, d, ..] => {
            let first = a / b;
            let second = quadratic(a, b, c);
            let third = ((1.0 - a / (3.0 * (a + b))) / 2.0
                + (1.0 - a / (2.0 * (a + b))) * a / (6.0 * (a + b + c)))
                * (a * (a + b) * (a + b + c))
                / (b * (b + c) * (b + c + d));
            let inner = b * (b + c) / (c * (c + d));
            vec![
                1.0 + first / 2.0 + second + third,
                -first / 2.0 - (1.0 + b / c) * second - (1.0 + b / c + inner) * third,
                second * b / c + (b / c + inner * (1.0 + c / d)) * third,
                -third * inner * b / c,
            ]
        }
    }
}

fn quadratic(a: f64, b: f64, c: f64) -> f64 {
    (1.0 - a / (3.0 * (a + b)) * (a * (a + b)) / (b * (b + c))) / 2.0
}
