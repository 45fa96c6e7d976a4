//! What the kernels are held against: plain f64 loops, and the comparison on every code path.

use half::bf16;
use latentd_kernels::tiled::Element;
use latentd_kernels::{Activation, AttentionShape, ConvShape, Epilogue, GroupNormShape, Isa};
use proptest::prelude::*;

/// Values in [−1, 1] from a small generator of its own.
pub(crate) fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A type of results.
pub(crate) trait Poison: Element + PartialEq + std::fmt::Debug {
    const NAN: Self;
    /// Relative error of storing a value.
    const ROUNDING: f64;
    fn to_f64(self) -> f64;
}

impl Poison for f32 {
    const NAN: Self = Self::NAN;
    const ROUNDING: f64 = 1.2e-7;
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Poison for bf16 {
    const NAN: Self = Self::NAN;
    const ROUNDING: f64 = 1.0 / 256.0;
    fn to_f64(self) -> f64 {
        f64::from(self.to_f32())
    }
}

/// Runs `kernel` on every code path with one thread and with 2 to 8, holds each against `expected` within `bound` beside
/// the rounding of `O`, and the thread counts against each other bit for bit. Outputs start as NaN.
pub(crate) fn check<O: Poison>(
    expected: &[f64],
    bound: &[f64],
    kernel: impl Fn(Isa, &mut [O]) + Sync,
) -> Result<(), TestCaseError> {
    for isa in Isa::available() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let mut out = vec![O::NAN; expected.len()];
            pool.install(|| kernel(isa, &mut out));
            out
        };
        let out = run(1);
        for (index, ((found, wanted), bound)) in out.iter().zip(expected).zip(bound).enumerate() {
            let error = (found.to_f64() - wanted).abs();
            let bound = bound + wanted.abs() * O::ROUNDING;
            prop_assert!(
                error <= bound,
                "{isa:?} [{index}]: {found:?} for {wanted}, error {error} over {bound}"
            );
        }
        let threads = 2 + expected.len() % 7;
        prop_assert_eq!(&out, &run(threads), "{:?}: {} threads change the result", isa, threads);
    }
    Ok(())
}

pub(crate) fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::None),
        Just(Activation::Silu),
        Just(Activation::QuickGelu),
        Just(Activation::Relu)
    ]
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// x · Φ(x).
pub fn gelu(x: f64) -> f64 {
    x * 0.5 * (1.0 + erf(x / 2f64.sqrt()))
}

/// erf by its series (|x| < 3) or continued fraction, to 1e-12.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..200 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut tail = 0.0;
        for n in (1..60).rev() {
            tail = f64::from(n) / 2.0 / (a + tail);
        }
        1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + tail)
    };
    value.copysign(x)
}

/// Sums, magnitudes and all that follows a product.
pub(crate) struct Expected {
    pub(crate) values: Vec<f64>,
    pub(crate) bounds: Vec<f64>,
}

impl Expected {
    /// From `sums[(row, column)]` of `k` products with their magnitudes, in `columns`. Activations err by `function` of
    /// their argument.
    pub(crate) fn new<O: Poison>(
        sums: &[(f64, f64)],
        k: usize,
        columns: usize,
        epilogue: &Epilogue<O>,
        function: f64,
    ) -> Self {
        let rows = sums.len() / columns;
        let images = epilogue.image_bias.map_or(1, |bias| bias.len() / columns);
        let gated = epilogue.activation == Activation::Geglu;
        let width = if gated { columns / 2 } else { columns };
        let (mut values, mut bounds) = (vec![], vec![]);
        for row in 0..rows {
            let biased = |column: usize| {
                let (mut sum, mut size) = sums[row * columns + column];
                if let Some(bias) = epilogue.bias {
                    sum += f64::from(bias[column]);
                    size += f64::from(bias[column].abs());
                }
                if let Some(bias) = epilogue.image_bias {
                    let bias = f64::from(bias[row / (rows / images) * columns + column]);
                    sum += bias;
                    size += bias.abs();
                }
                (sum, (k + 4) as f64 * 2f64.powi(-23) * size)
            };
            for column in 0..width {
                let (x, error) = biased(column);
                let slope = epilogue.slopes.map_or(1.0, |slopes| f64::from(slopes[column]));
                let (x, error) = if x < 0.0 { (x * slope, error) } else { (x, error) };
                let error = (error + 2f64.powi(-23) * x.abs()) * slope.abs().max(1.0);
                // Slopes are at most 1.2.
                let by_function = function * x.abs();
                let (mut value, mut bound) = match epilogue.activation {
                    Activation::None | Activation::Relu => (x, error),
                    Activation::Silu => (x * sigmoid(x), 1.2 * error + by_function),
                    Activation::QuickGelu => (x * sigmoid(1.702 * x), 1.2 * error + by_function),
                    Activation::Geglu => {
                        let (gate, gate_error) = biased(width + column);
                        let gelu = gelu(gate);
                        let gelu_error = 1.2 * gate_error + function * gate.abs();
                        (x * gelu, error * gelu.abs() + gelu_error * (x.abs() + error))
                    }
                };
                value *= f64::from(epilogue.scale);
                bound = (bound + 2f64.powi(-22) * value.abs()) * f64::from(epilogue.scale.abs()).max(1.0);
                if let Some(residual) = epilogue.residual {
                    value += residual[row * width + column].to_f64();
                    bound += 2f64.powi(-22) * value.abs();
                }
                if epilogue.activation == Activation::Relu {
                    value = value.max(0.0);
                }
                values.push(value);
                bounds.push(bound + 1e-30);
            }
        }
        Self { values, bounds }
    }
}

/// Sums of `x (m, k)` times `w (n, k)`, and their magnitudes.
pub(crate) fn product(x: &[f32], w: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<(f64, f64)> {
    let mut sums = vec![];
    for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
        let products = (0..k).map(|i| f64::from(x[row * k + i]) * f64::from(w[column * k + i]));
        sums.push(products.fold((0.0, 0.0), |(s, t), p| (s + p, t + p.abs())));
    }
    sums
}

/// Sums of a convolution, and their magnitudes.
pub(crate) fn convolution(x: &[f32], w: &[f32], shape: ConvShape, outputs: usize) -> Vec<(f64, f64)> {
    let ConvShape {
        batch, height, width, channels, kernel, stride, pad_before: before, upsample, wrap, ..
    } = shape;
    let (rows, columns) = shape.output();
    let mut sums = vec![];
    let pixels = (0..batch).flat_map(|b| (0..rows).flat_map(move |y| (0..columns).map(move |x| (b, y, x))));
    for ((b, oy, ox), o) in pixels.flat_map(|pixel| (0..outputs).map(move |o| (pixel, o))) {
        let (mut sum, mut size) = (0f64, 0f64);
        for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
            let place = |wraps: bool, at: usize, size: usize| {
                let at = at as i64 - before as i64;
                let inside = (0..size as i64).contains(&at);
                (inside || (wraps && size > 0)).then(|| at.rem_euclid(size as i64) as usize)
            };
            let (Some(iy), Some(ix)) = (
                place(wrap.y, oy * stride + ky, height * upsample),
                place(wrap.x, ox * stride + kx, width * upsample),
            ) else {
                continue;
            };
            let pixel = ((b * height + iy / upsample) * width + ix / upsample) * channels;
            for c in 0..channels {
                let weight = w[((o * channels + c) * kernel + ky) * kernel + kx];
                let product = f64::from(x[pixel + c]) * f64::from(weight);
                sum += product;
                size += product.abs();
            }
        }
        sums.push((sum, size));
    }
    sums
}

/// softmax(q kᵀ / √head_dim) v.
pub(crate) fn attention(q: &[f32], k: &[f32], v: &[f32], shape: AttentionShape) -> Vec<f64> {
    let AttentionShape { batch, heads, head_dim, queries, keys, causal } = shape;
    let width = heads * head_dim;
    let mut out = vec![0f64; q.len()];
    let all = (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..queries).map(move |i| (b, h, i))));
    for (b, h, i) in all {
        let at = |tokens: usize, token: usize, c: usize| (b * tokens + token) * width + h * head_dim + c;
        let seen = if causal { i + 1 } else { keys };
        let dot = |j: usize| -> f64 {
            (0..head_dim).map(|c| f64::from(q[at(queries, i, c)]) * f64::from(k[at(keys, j, c)])).sum()
        };
        let scores: Vec<f64> = (0..seen).map(|j| dot(j) / (head_dim as f64).sqrt()).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for c in 0..head_dim {
            let terms = weights.iter().enumerate().map(|(j, weight)| weight * f64::from(v[at(keys, j, c)]));
            out[at(queries, i, c)] = terms.sum::<f64>() / total;
        }
    }
    out
}

/// A group norm, with SiLU if the shape says so; and the largest reciprocal of a deviation.
pub(crate) fn group_norm(x: &[f32], shape: GroupNormShape, weight: &[f32], bias: &[f32]) -> (Vec<f64>, f64) {
    let GroupNormShape { batch, positions, channels, groups, epsilon, silu } = shape;
    let per_group = channels / groups;
    let mut out = vec![0f64; x.len()];
    let mut largest = 1f64;
    for (b, g) in (0..batch).flat_map(|b| (0..groups).map(move |g| (b, g))) {
        let at = |p: usize, c: usize| (b * positions + p) * channels + c;
        let members: Vec<(usize, usize)> =
            (0..positions).flat_map(|p| (g * per_group..(g + 1) * per_group).map(move |c| (p, c))).collect();
        let (mean, inverse) =
            statistics(members.iter().map(|(p, c)| f64::from(x[at(*p, *c)])), f64::from(epsilon));
        largest = largest.max(inverse);
        for (p, c) in members {
            let y = (f64::from(x[at(p, c)]) - mean) * inverse * f64::from(weight[c]) + f64::from(bias[c]);
            out[at(p, c)] = if silu { y * sigmoid(y) } else { y };
        }
    }
    (out, largest)
}

/// A layer norm over rows of `weight.len()` channels; and the largest reciprocal of a deviation.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f64) -> (Vec<f64>, f64) {
    let mut out = vec![];
    let mut largest = 1f64;
    for row in x.chunks(weight.len()) {
        let (mean, inverse) = statistics(row.iter().map(|x| f64::from(*x)), epsilon);
        largest = largest.max(inverse);
        let normed = row.iter().zip(weight.iter().zip(bias));
        out.extend(normed.map(|(x, (weight, bias))| {
            (f64::from(*x) - mean) * inverse * f64::from(*weight) + f64::from(*bias)
        }));
    }
    (out, largest)
}

fn statistics(values: impl Iterator<Item = f64> + Clone, epsilon: f64) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}
