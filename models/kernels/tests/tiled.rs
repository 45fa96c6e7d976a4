//! The bf16 kernels against plain f64 loops over the same bf16 inputs, on every code path this processor has, over
//! random shapes. Outputs start as NaN, so a value that is not written fails.
//!
//! Tolerances: the inputs are exact, a sum of `k` products errs by at most `k · 2⁻²³` of the sum of magnitudes, and
//! storing as bf16 by 2⁻⁸ of the result (2⁻⁹ rounded, doubled for what the f32 error moves across a boundary).

#[cfg(feature = "guard-pages")]
mod guard;

use half::bf16;
use latentd_kernels::tiled::{
    ChannelScales, Element, PackedKeys, TiledMatrix, attention, attention_packed, conv2d, conv2d_normed,
    group_norm, layer_norm, linear,
};
use latentd_kernels::{
    Activation, AttentionShape, ConvShape, Epilogue, GroupNormShape, Isa, WeightDtype, Weights,
};
use proptest::prelude::*;

#[cfg(feature = "guard-pages")]
#[global_allocator]
static GUARD: guard::Guard = guard::Guard;

/// Values in [−1, 1] from a small generator of its own, exact in bf16.
fn random(seed: u64, count: usize) -> Vec<bf16> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bf16::from_f32((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

fn floats(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}

fn bytes(values: &[bf16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn packed(
    values: &[bf16],
    pack: impl FnOnce(Weights<'_>) -> Result<TiledMatrix, latentd_kernels::PackError>,
) -> TiledMatrix {
    pack(Weights { dtype: WeightDtype::Bf16, bytes: &bytes(values) }).expect("packs")
}

trait Poison: Element + PartialEq + std::fmt::Debug {
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

/// Runs `kernel` on every code path with 1 and 3 threads, holds each against `expected` within `bound` beside the
/// rounding of `O`, and the thread counts against each other bit for bit.
fn check<O: Poison>(
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
        prop_assert_eq!(&out, &run(3), "{:?}: threads change the result", isa);
    }
    Ok(())
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Φ by its series; 1e-9 will do.
fn normal(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / 2.0 / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    if x.abs() > 6.0 { f64::from(u8::from(x > 0.0)) } else { 0.5 + sum / (2.0 * std::f64::consts::PI).sqrt() }
}

/// Sums, magnitudes and all that follows a product.
struct Expected {
    values: Vec<f64>,
    bounds: Vec<f64>,
}

impl Expected {
    /// From `sums[(row, column)]` with their magnitudes, in `columns`.
    fn new<O: Poison>(sums: &[(f64, f64)], k: usize, columns: usize, epilogue: &Epilogue<O>) -> Self {
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
                // Slopes are at most 1.2; the functions themselves err by 2⁻¹³ of x.
                let by_function = 2f64.powi(-13) * x.abs();
                let (mut value, mut bound) = match epilogue.activation {
                    Activation::None => (x, error),
                    Activation::Silu => (x * sigmoid(x), 1.2 * error + by_function),
                    Activation::QuickGelu => (x * sigmoid(1.702 * x), 1.2 * error + by_function),
                    Activation::Geglu => {
                        let (gate, gate_error) = biased(width + column);
                        let gelu = gate * normal(gate);
                        let gelu_error = 1.2 * gate_error + 2f64.powi(-13) * gate.abs();
                        (x * gelu, error * gelu.abs() + gelu_error * (x.abs() + error))
                    }
                };
                if let Some(residual) = epilogue.residual {
                    value += residual[row * width + column].to_f64();
                    bound += 2f64.powi(-22) * value.abs();
                }
                values.push(value);
                bounds.push(bound + 1e-30);
            }
        }
        Self { values, bounds }
    }
}

fn product(x: &[bf16], w: &[bf16], m: usize, n: usize, k: usize) -> Vec<(f64, f64)> {
    let (x, w) = (floats(x), floats(w));
    let mut sums = vec![];
    for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
        let products = (0..k).map(|i| f64::from(x[row * k + i]) * f64::from(w[column * k + i]));
        sums.push(products.fold((0.0, 0.0), |(s, t), p| (s + p, t + p.abs())));
    }
    sums
}

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![Just(Activation::None), Just(Activation::Silu), Just(Activation::QuickGelu)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn linear_is_the_product(
        m in prop_oneof![1usize..70, Just(160usize)], n in 1usize..100,
        k in prop_oneof![1usize..400, Just(32usize), Just(64), Just(1600), Just(1347)],
        images in 1usize..3, parts: [bool; 3], activation in activation(), seed: u64,
    ) {
        let m = m * images;
        let (x, w) = (random(seed, m * k), random(seed ^ 1, n * k));
        let weights = packed(&w, |weights| TiledMatrix::linear(weights, n, k));
        let (bias, image_bias) = (floats(&random(seed ^ 2, n)), floats(&random(seed ^ 3, n * images)));
        let residual = random(seed ^ 4, m * n);
        let sums = product(&x, &w, m, n, k);
        let epilogue = Epilogue {
            bias: parts[0].then_some(&bias[..]),
            image_bias: parts[1].then_some(&image_bias[..]),
            activation,
            residual: parts[2].then_some(&residual[..]),
        };
        let expected = Expected::new(&sums, k, n, &epilogue);
        check::<bf16>(&expected.values, &expected.bounds, |isa, out| linear(isa, &x, m, &weights, &epilogue, out))?;
        let residual = floats(&residual);
        let epilogue = Epilogue { residual: parts[2].then_some(&residual[..]), bias: epilogue.bias,
            image_bias: epilogue.image_bias, activation };
        let expected = Expected::new(&sums, k, n, &epilogue);
        check::<f32>(&expected.values, &expected.bounds, |isa, out| linear(isa, &x, m, &weights, &epilogue, out))?;
    }

    #[test]
    fn gates_multiply(m in 1usize..50, pairs in 1usize..5, k in 1usize..100, biased: bool, seed: u64) {
        let n = pairs * 32;
        let (x, w) = (random(seed, m * k), random(seed ^ 1, n * k));
        let weights = packed(&w, |weights| TiledMatrix::gated(weights, n, k));
        let bias = floats(&random(seed ^ 2, n));
        let epilogue = Epilogue { bias: biased.then_some(&bias[..]), activation: Activation::Geglu, ..Epilogue::default() };
        let expected = Expected::new::<bf16>(&product(&x, &w, m, n, k), k, n, &epilogue);
        check::<bf16>(&expected.values, &expected.bounds, |isa, out| linear(isa, &x, m, &weights, &epilogue, out))?;
    }

    #[test]
    fn conv2d_is_the_convolution(
        batch in 1usize..4, height in 1usize..8, width in prop_oneof![4 => 1usize..20, 2 => 30usize..34, 1 => 129usize..150],
        channels in prop_oneof![1usize..70, Just(352usize)], outputs in 1usize..40,
        kernel in prop_oneof![Just(1usize), Just(3)], stride in 1usize..3, before in 0usize..2, after in 0usize..2,
        upsample in 1usize..3, parts: [bool; 2], seed: u64,
    ) {
        let shape = ConvShape {
            batch, height, width, channels, kernel, stride, pad_before: before, pad_after: after, upsample,
        };
        let (rows, columns) = shape.output();
        let taps = kernel * kernel;
        let (x, w) = (random(seed, batch * height * width * channels), random(seed ^ 1, outputs * channels * taps));
        let weights = packed(&w, |weights| TiledMatrix::convolution(weights, outputs, channels, taps));
        let (bias, image_bias) = (floats(&random(seed ^ 2, outputs)), floats(&random(seed ^ 3, outputs * batch)));
        let residual = random(seed ^ 4, batch * rows * columns * outputs);
        let (xs, ws) = (floats(&x), floats(&w));
        let mut sums = vec![];
        for (b, oy, ox, o) in (0..batch).flat_map(|b| (0..rows).flat_map(move |y| (0..columns)
            .flat_map(move |x| (0..outputs).map(move |o| (b, y, x, o))))) {
            let (mut sum, mut size) = (0f64, 0f64);
            for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                let (y, x) = ((oy * stride + ky).wrapping_sub(before), (ox * stride + kx).wrapping_sub(before));
                if y >= height * upsample || x >= width * upsample {
                    continue;
                }
                let pixel = ((b * height + y / upsample) * width + x / upsample) * channels;
                for c in 0..channels {
                    let product = f64::from(xs[pixel + c]) * f64::from(ws[((o * channels + c) * kernel + ky) * kernel + kx]);
                    sum += product;
                    size += product.abs();
                }
            }
            sums.push((sum, size));
        }
        let epilogue = Epilogue {
            bias: Some(&bias[..]),
            image_bias: parts[0].then_some(&image_bias[..]),
            activation: Activation::None,
            residual: parts[1].then_some(&residual[..]),
        };
        let expected = Expected::new(&sums, channels * taps, outputs, &epilogue);
        check::<bf16>(&expected.values, &expected.bounds, |isa, out| conv2d(isa, &x, shape, &weights, &epilogue, out))?;
        // Each picture alone gives the bits it has among others.
        let image = height * width * channels;
        let size = rows * columns * outputs;
        for isa in Isa::available() {
            let mut all = vec![bf16::NAN; batch * size];
            let epilogue = Epilogue { bias: Some(&bias[..]), ..Epilogue::default() };
            conv2d(isa, &x, shape, &weights, &epilogue, &mut all);
            let mut alone = vec![bf16::NAN; size];
            conv2d(isa, &x[(batch - 1) * image..], ConvShape { batch: 1, ..shape }, &weights, &epilogue, &mut alone);
            prop_assert_eq!(&all[(batch - 1) * size..], &alone[..], "{:?}: the batch changes the result", isa);
        }
    }

    #[test]
    fn attention_is_softmax_of_products(
        batch in 1usize..3, heads in 1usize..4,
        head_dim in prop_oneof![1usize..90, Just(40usize), Just(64), Just(80), Just(160)], queries in 1usize..120,
        keys in 1usize..600, causal: bool, seed: u64,
    ) {
        let keys = if causal { queries } else { keys };
        let shape = AttentionShape { batch, heads, head_dim, queries, keys, causal };
        let width = heads * head_dim;
        let q: Vec<bf16> = random(seed, batch * queries * width).iter().map(|v| *v * bf16::from_f32(4.0)).collect();
        let (k, v) = (random(seed ^ 1, batch * keys * width), random(seed ^ 2, batch * keys * width));
        let (qs, ks, vs) = (floats(&q), floats(&k), floats(&v));
        let mut expected = vec![0f64; q.len()];
        for (b, h, i) in (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..queries).map(move |i| (b, h, i)))) {
            let at = |tokens: usize, token: usize, c: usize| (b * tokens + token) * width + h * head_dim + c;
            let seen = if causal { i + 1 } else { keys };
            let scores: Vec<f64> = (0..seen).map(|j| {
                let dot: f64 = (0..head_dim).map(|c| f64::from(qs[at(queries, i, c)]) * f64::from(ks[at(keys, j, c)])).sum();
                dot / (head_dim as f64).sqrt()
            }).collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - highest).exp()).sum();
            for c in 0..head_dim {
                expected[at(queries, i, c)] = scores.iter().enumerate()
                    .map(|(j, s)| (s - highest).exp() / total * f64::from(vs[at(keys, j, c)])).sum();
            }
        }
        // Weights are rounded to bf16, 2⁻⁹ each, and values are at most 1; scores of up to 4 · √160 ≈ 50 err by
        // head_dim · 2⁻²³ · 4 / √head_dim.
        let bound = vec![2f64.powi(-8) + 1e-4; expected.len()];
        check::<bf16>(&expected, &bound, |isa, out| attention(isa, &q, &k, &v, shape, out))?;
        let last = batch - 1;
        for isa in Isa::available() {
            let mut all = vec![bf16::NAN; q.len()];
            attention(isa, &q, &k, &v, shape, &mut all);
            let (query, key) = (last * queries * width, last * keys * width);
            let mut alone = vec![bf16::NAN; queries * width];
            let packed = PackedKeys::new(&k[key..], &v[key..], 1, heads, head_dim, keys);
            attention_packed(isa, &q[query..], &packed, causal, &mut alone);
            prop_assert_eq!(&all[query..], &alone[..], "{:?}: the batch changes the result", isa);
        }
    }

    #[test]
    fn norms_normalise(
        batch in 1usize..3, positions in 1usize..200, per_group in 1usize..6, groups in 1usize..9, act: bool, seed: u64,
    ) {
        let channels = per_group * groups;
        let x: Vec<bf16> = random(seed, batch * positions * channels)
            .iter().map(|v| bf16::from_f32(v.to_f32() * 3.0 + 2.0)).collect();
        let xs = floats(&x);
        let (weight, bias) = (floats(&random(seed ^ 1, channels)), floats(&random(seed ^ 2, channels)));
        let at = |b: usize, p: usize, c: usize| (b * positions + p) * channels + c;
        let mut expected = vec![0f64; x.len()];
        let mut inverse_max = 1f64;
        for (b, g) in (0..batch).flat_map(|b| (0..groups).map(move |g| (b, g))) {
            let members: Vec<(usize, usize)> = (0..positions)
                .flat_map(|p| (g * per_group..(g + 1) * per_group).map(move |c| (p, c))).collect();
            let n = members.len() as f64;
            let mean = members.iter().map(|(p, c)| f64::from(xs[at(b, *p, *c)])).sum::<f64>() / n;
            let variance = members.iter().map(|(p, c)| (f64::from(xs[at(b, *p, *c)]) - mean).powi(2)).sum::<f64>() / n;
            let inverse = 1.0 / (variance + 1e-2).sqrt();
            inverse_max = inverse_max.max(inverse);
            for (p, c) in members {
                let y = (f64::from(xs[at(b, p, c)]) - mean) * inverse * f64::from(weight[c]) + f64::from(bias[c]);
                expected[at(b, p, c)] = if act { y * sigmoid(y) } else { y };
            }
        }
        // Sums of 64 squares in f32 err by 64 · 2⁻²⁴ of 25 at most, in a variance of at least ε = 10⁻²; SiLU by 2⁻¹³.
        let relative = 64.0 * 2f64.powi(-24) * 25.0 * inverse_max * inverse_max + 2f64.powi(-12);
        let bound: Vec<f64> = vec![6.0 * inverse_max * relative; expected.len()];
        let shape = GroupNormShape { batch, positions, channels, groups, epsilon: 1e-2, silu: act };
        check::<bf16>(&expected, &bound, |isa, out| group_norm(isa, &x, shape, &weight, &bias, out))?;

        let mut expected = vec![0f64; x.len()];
        let mut inverse_max = 1f64;
        for (row, out) in xs.chunks(channels).zip(expected.chunks_mut(channels)) {
            let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / channels as f64;
            let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / channels as f64;
            inverse_max = inverse_max.max(1.0 / (variance + 1e-5).sqrt());
            for (c, out) in out.iter_mut().enumerate() {
                *out = (f64::from(row[c]) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[c]) + f64::from(bias[c]);
            }
        }
        let bound = vec![5.0 * inverse_max * 2f64.powi(-20); expected.len()];
        check::<bf16>(&expected, &bound, |isa, out| layer_norm(isa, &x, &weight, &bias, 1e-5, out))?;
        check::<bf16>(&expected, &bound, |isa, out| layer_norm(isa, &xs, &weight, &bias, 1e-5, out))?;
    }
}

#[test]
fn weights_of_every_type_are_rounded_and_bad_ones_refused() {
    let values = floats(&random(9, 40 * 7));
    let x = random(10, 7);
    let run = |dtype, bytes: &[u8]| {
        let weights = TiledMatrix::linear(Weights { dtype, bytes }, 40, 7).expect("packs");
        let mut out = vec![f32::NAN; 40];
        linear(Isa::current(), &x, 1, &weights, &Epilogue::default(), &mut out);
        out
    };
    let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let f16s: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let wanted = run(WeightDtype::F32, &f32s);
    // bf16's 8 bits fit into f16 where the exponent does, and values near zero, where it does not, hardly count.
    for (found, wanted) in run(WeightDtype::F16, &f16s).iter().zip(&wanted) {
        assert!((found - wanted).abs() < 1e-5, "{found} for {wanted}");
    }
    let none = Weights { dtype: WeightDtype::F32, bytes: &[] };
    assert!(TiledMatrix::linear(none, 1 << 40, 1 << 40).is_err());
    assert!(TiledMatrix::convolution(none, 0, 3, 0).is_err());
    for bad in [f32::NAN, f32::INFINITY] {
        let bytes: Vec<u8> = [1.0, bad].iter().flat_map(|v| v.to_le_bytes()).collect();
        let error = TiledMatrix::linear(Weights { dtype: WeightDtype::F32, bytes: &bytes }, 2, 1).err();
        assert_eq!(error, Some(latentd_kernels::PackError::NotFinite));
    }
}

#[test]
fn sizes_of_zero_are_fine() {
    let none = Weights { dtype: WeightDtype::F16, bytes: &[] };
    for isa in Isa::available() {
        let empty = TiledMatrix::linear(none, 0, 5).expect("packs");
        linear::<bf16>(isa, &[bf16::ONE; 10], 2, &empty, &Epilogue::default(), &mut []);
        let no_inputs = TiledMatrix::linear(none, 40, 0).expect("packs");
        let bias = floats(&random(1, 40));
        let mut out = vec![f32::NAN; 80];
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        linear(isa, &[], 2, &no_inputs, &epilogue, &mut out);
        assert_eq!(out, [&bias[..], &bias].concat());
        linear::<bf16>(isa, &[], 0, &no_inputs, &Epilogue::default(), &mut []);
        let shape = AttentionShape { batch: 2, heads: 2, head_dim: 3, queries: 0, keys: 0, causal: false };
        attention(isa, &[], &[], &[], shape, &mut []);
    }
}

/// A row that is not finite stays alone: what stands beside it in a tile is untouched.
#[test]
fn rows_do_not_infect_each_other() {
    let (m, k, n) = (40, 33, 20);
    let w = random(1, n * k);
    let weights = packed(&w, |weights| TiledMatrix::linear(weights, n, k));
    let clean = random(2, m * k);
    let mut bad = clean.clone();
    bad[5 * k + 32] = bf16::NAN;
    for isa in Isa::available() {
        let run = |x: &[bf16]| {
            let mut out = vec![0f32; m * n];
            linear(isa, x, m, &weights, &Epilogue::default(), &mut out);
            out
        };
        let (clean, bad) = (run(&clean), run(&bad));
        assert!(bad[5 * n..6 * n].iter().all(|value| value.is_nan()), "{isa:?}");
        assert_eq!(bad[..5 * n], clean[..5 * n]);
        assert_eq!(bad[6 * n..], clean[6 * n..]);
    }
}

/// A norm that is applied while pixels are copied gives the bits of one whose result was stored, over borders, in
/// several segments, and enlarged.
#[test]
fn a_norm_before_a_convolution_leaves_no_trace() {
    for (batch, side, channels, upsample) in [(2, 50, 64, 1), (1, 36, 352, 2), (2, 8, 32, 1), (1, 140, 32, 1)]
    {
        let shape = ConvShape {
            batch,
            height: side,
            width: side + 3,
            channels,
            kernel: 3,
            stride: 1,
            pad_before: 1,
            pad_after: 1,
            upsample,
        };
        let (rows, columns) = shape.output();
        let positions = side * (side + 3);
        let x = random(1, batch * positions * channels);
        let w = random(2, 40 * channels * 9);
        let weights = packed(&w, |weights| TiledMatrix::convolution(weights, 40, channels, 9));
        let (scale, shift) = (floats(&random(3, channels)), floats(&random(4, channels)));
        let norm = GroupNormShape { batch, positions, channels, groups: 32, epsilon: 1e-5, silu: true };
        for isa in Isa::available() {
            let mut normed = vec![bf16::NAN; x.len()];
            group_norm(isa, &x, norm, &scale, &shift, &mut normed);
            let run = |convolve: &dyn Fn(&mut [bf16])| {
                let mut out = vec![bf16::NAN; batch * rows * columns * 40];
                convolve(&mut out);
                out
            };
            let wanted = run(&|out| conv2d(isa, &normed, shape, &weights, &Epilogue::default(), out));
            let scales = ChannelScales::group_norm(isa, &x, norm, &scale, &shift);
            let found =
                run(&|out| conv2d_normed(isa, &x, &scales, shape, &weights, &Epilogue::default(), out));
            assert!(found.iter().all(|value| !value.is_nan()));
            assert_eq!(found, wanted, "{isa:?}");
        }
    }
}
