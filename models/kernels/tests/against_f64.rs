//! Each kernel against plain f64 loops, on every code path this processor has, over random shapes. Outputs start
//! as NaN, so a value that is not written fails.
//!
//! Tolerances: a sum of `k` products in f32 errs by about `k · 2⁻²⁴` of the sum of magnitudes at worst and
//! `√k · 2⁻²⁴` typically; `k · 2⁻²³` of the sum of magnitudes is the bound used.

#[cfg(feature = "guard-pages")]
mod guard;

use latentd_kernels::{
    Activation, AttentionShape, ConvShape, Epilogue, GroupNormShape, Isa, PackedMatrix, WeightDtype, Weights,
    attention, conv2d, geglu, gelu_erf, group_norm, layer_norm, linear, silu,
};
use proptest::prelude::*;

#[cfg(feature = "guard-pages")]
#[global_allocator]
static GUARD: guard::Guard = guard::Guard;

/// Values in [−1, 1] from a small generator of its own.
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Weights in a dtype: the file's bytes, and their exact values.
fn stored(values: &[f32], dtype: WeightDtype) -> (Vec<u8>, Vec<f32>) {
    let bytes: Vec<u8> = match dtype {
        WeightDtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        WeightDtype::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        WeightDtype::Bf16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
    };
    let exact = Weights { dtype, bytes: &bytes }.to_f32();
    (bytes, exact)
}

fn with_bias(bias: Option<&[f32]>) -> Epilogue<'_, f32> {
    Epilogue { bias, ..Epilogue::default() }
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}

/// Runs `kernel` on every code path with 1 and 3 threads, holds each against `expected` within `bound`, and the
/// thread counts against each other bit for bit.
fn check(
    expected: &[f64],
    bound: &[f64],
    kernel: impl Fn(Isa, &mut [f32]) + Sync,
) -> Result<(), TestCaseError> {
    for isa in Isa::available() {
        let run = |threads| {
            let mut out = vec![f32::NAN; expected.len()];
            pool(threads).install(|| kernel(isa, &mut out));
            out
        };
        let out = run(1);
        for (index, ((found, wanted), bound)) in out.iter().zip(expected).zip(bound).enumerate() {
            let error = (f64::from(*found) - wanted).abs();
            prop_assert!(
                error <= *bound,
                "{isa:?} [{index}]: {found} for {wanted}, error {error} over {bound}"
            );
        }
        prop_assert_eq!(&out, &run(3), "{:?}: threads change the result", isa);
    }
    Ok(())
}

fn dtype() -> impl Strategy<Value = WeightDtype> {
    prop_oneof![Just(WeightDtype::F32), Just(WeightDtype::F16), Just(WeightDtype::Bf16)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn linear_is_the_product(
        m in 1usize..70, n in 1usize..100, k in 1usize..900, dtype in dtype(), biased: bool, seed: u64,
    ) {
        let x = random(seed, m * k);
        let (bytes, w) = stored(&random(seed ^ 1, n * k), dtype);
        let bias = biased.then(|| random(seed ^ 2, n));
        let packed = PackedMatrix::linear(Weights { dtype, bytes: &bytes }, n, k).expect("packs");
        let (mut expected, mut bound) = (vec![], vec![]);
        for row in 0..m {
            for column in 0..n {
                let start = bias.as_ref().map_or(0.0, |bias| f64::from(bias[column]));
                let products = (0..k).map(|i| f64::from(x[row * k + i]) * f64::from(w[column * k + i]));
                let (sum, size) = products.fold((start, start.abs()), |(s, t), p| (s + p, t + p.abs()));
                expected.push(sum);
                bound.push((k + 2) as f64 * 2f64.powi(-23) * size);
            }
        }
        check(&expected, &bound, |isa, out| {
            linear(isa, &x, m, &packed, &with_bias(bias.as_deref()), out);
        })?;
    }

    #[test]
    fn conv2d_is_the_convolution(
        batch in 1usize..3, height in 1usize..9, width in 1usize..9, channels in 1usize..40, outputs in 1usize..40,
        kernel in prop_oneof![Just(1usize), Just(3)], stride in 1usize..3, before in 0usize..2, after in 0usize..2,
        upsample in 1usize..3, seed: u64,
    ) {
        let shape = ConvShape {
            batch, height, width, channels, kernel, stride, pad_before: before, pad_after: after, upsample,
        };
        let (rows, columns) = shape.output();
        let x = random(seed, batch * height * width * channels);
        let (bytes, w) = stored(&random(seed ^ 1, outputs * channels * kernel * kernel), WeightDtype::F16);
        let bias = random(seed ^ 2, outputs);
        let weights = Weights { dtype: WeightDtype::F16, bytes: &bytes };
        let packed = PackedMatrix::convolution(weights, outputs, channels, kernel * kernel).expect("packs");
        let (mut expected, mut bound) = (vec![], vec![]);
        for (b, oy, ox, o) in (0..batch).flat_map(|b| (0..rows).flat_map(move |y| (0..columns)
            .flat_map(move |x| (0..outputs).map(move |o| (b, y, x, o))))) {
            let (mut sum, mut size) = (f64::from(bias[o]), f64::from(bias[o]).abs());
            for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                let (y, x_) = ((oy * stride + ky).wrapping_sub(before), (ox * stride + kx).wrapping_sub(before));
                if y >= height * upsample || x_ >= width * upsample {
                    continue;
                }
                let pixel = ((b * height + y / upsample) * width + x_ / upsample) * channels;
                for c in 0..channels {
                    let weight = w[((o * channels + c) * kernel + ky) * kernel + kx];
                    let product = f64::from(x[pixel + c]) * f64::from(weight);
                    sum += product;
                    size += product.abs();
                }
            }
            expected.push(sum);
            bound.push((channels * kernel * kernel + 2) as f64 * 2f64.powi(-23) * size);
        }
        check(&expected, &bound, |isa, out| {
            conv2d(isa, &x, shape, &packed, &with_bias(Some(&bias)), out);
        })?;
    }

    #[test]
    fn attention_is_softmax_of_products(
        batch in 1usize..3, heads in 1usize..4, head_dim in 1usize..90, queries in 1usize..120, keys in 1usize..600,
        causal: bool, seed: u64,
    ) {
        let keys = if causal { queries } else { keys };
        let shape = AttentionShape { batch, heads, head_dim, queries, keys, causal };
        let width = heads * head_dim;
        let q: Vec<f32> = random(seed, batch * queries * width).iter().map(|v| v * 4.0).collect();
        let k: Vec<f32> = random(seed ^ 1, batch * keys * width).iter().map(|v| v * 4.0).collect();
        let v = random(seed ^ 2, batch * keys * width);
        let mut expected = vec![0f64; q.len()];
        for (b, h, i) in (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..queries).map(move |i| (b, h, i)))) {
            let at = |tokens: usize, token: usize, c: usize| (b * tokens + token) * width + h * head_dim + c;
            let seen = if causal { i + 1 } else { keys };
            let scores: Vec<f64> = (0..seen).map(|j| {
                let dot: f64 = (0..head_dim).map(|c| f64::from(q[at(queries, i, c)]) * f64::from(k[at(keys, j, c)])).sum();
                dot / (head_dim as f64).sqrt()
            }).collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - highest).exp()).sum();
            for c in 0..head_dim {
                expected[at(queries, i, c)] = scores.iter().enumerate()
                    .map(|(j, s)| (s - highest).exp() / total * f64::from(v[at(keys, j, c)])).sum();
            }
        }
        // A score of up to 16 · √90 ≈ 150 carries an absolute error of head_dim · 2⁻²³ · 16 / √head_dim, which
        // becomes the relative error of its weight; values are at most 1.
        let error = (16.0 * (head_dim as f64).sqrt() + (keys + 16) as f64) * 2f64.powi(-23) * 2.0;
        let bound = vec![error; expected.len()];
        check(&expected, &bound, |isa, out| attention(isa, &q, &k, &v, shape, out))?;
    }

    #[test]
    fn norms_normalise(
        batch in 1usize..3, positions in 1usize..200, per_group in 1usize..6, groups in 1usize..9, act: bool, seed: u64,
    ) {
        let channels = per_group * groups;
        let x: Vec<f32> = random(seed, batch * positions * channels).iter().map(|v| v * 3.0 + 5.0).collect();
        let (weight, bias) = (random(seed ^ 1, channels), random(seed ^ 2, channels));
        let at = |b: usize, p: usize, c: usize| (b * positions + p) * channels + c;
        let sigmoid = |y: f64| if act { 1.0 / (1.0 + (-y).exp()) } else { 1.0 };
        let mut expected = vec![0f64; x.len()];
        let mut inverse_max = 1f64;
        for (b, g) in (0..batch).flat_map(|b| (0..groups).map(move |g| (b, g))) {
            let members: Vec<(usize, usize)> = (0..positions)
                .flat_map(|p| (g * per_group..(g + 1) * per_group).map(move |c| (p, c))).collect();
            let n = members.len() as f64;
            let mean = members.iter().map(|(p, c)| f64::from(x[at(b, *p, *c)])).sum::<f64>() / n;
            let variance = members.iter().map(|(p, c)| (f64::from(x[at(b, *p, *c)]) - mean).powi(2)).sum::<f64>() / n;
            let inverse = 1.0 / (variance + 1e-5).sqrt();
            inverse_max = inverse_max.max(inverse);
            for (p, c) in members {
                let y = (f64::from(x[at(b, p, c)]) - mean) * inverse * f64::from(weight[c]) + f64::from(bias[c]);
                expected[at(b, p, c)] = y * sigmoid(y);
            }
        }
        // x · scale + shift: both terms of size 8 · inverse, rounded to f32 a few times.
        let bound = vec![8.0 * inverse_max * 6.0 * 2f64.powi(-24); expected.len()];
        let shape = GroupNormShape { batch, positions, channels, groups, epsilon: 1e-5, silu: act };
        check(&expected, &bound, |isa, out| group_norm(isa, &x, shape, &weight, &bias, out))?;

        let mut expected = vec![0f64; x.len()];
        let mut inverse_max = 1f64;
        for (row, out) in x.chunks(channels).zip(expected.chunks_mut(channels)) {
            let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / channels as f64;
            let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / channels as f64;
            inverse_max = inverse_max.max(1.0 / (variance + 1e-5).sqrt());
            for (c, out) in out.iter_mut().enumerate() {
                *out = (f64::from(row[c]) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[c]) + f64::from(bias[c]);
            }
        }
        let bound = vec![8.0 * inverse_max * 6.0 * 2f64.powi(-24); expected.len()];
        check(&expected, &bound, |isa, out| layer_norm(isa, &x, &weight, &bias, 1e-5, out))?;
    }

    #[test]
    fn activations_are_theirs(width in 1usize..300, rows in 1usize..20, seed: u64) {
        let x: Vec<f32> = random(seed, rows * width * 2).iter().map(|v| v * 9.0).collect();
        let expected: Vec<f64> = x.iter().map(|x| f64::from(*x) / (1.0 + (-f64::from(*x)).exp())).collect();
        let bound: Vec<f64> = expected.iter().map(|y| y.abs() * 2f64.powi(-20) + 1e-30).collect();
        check(&expected, &bound, |isa, out| {
            out.copy_from_slice(&x);
            silu(isa, out);
        })?;
        let mut expected = vec![];
        for row in x.chunks(width * 2) {
            for (value, gate) in row[..width].iter().zip(&row[width..]) {
                let g = f64::from(*gate);
                expected.push(f64::from(*value) * 0.5 * g * (1.0 + erf_f64(g / 2f64.sqrt())));
            }
        }
        // 1 + erf cancels for negative gates: absolute error 2⁻²² of |value · gate| at most.
        let bound = vec![81.0 * 2f64.powi(-22); expected.len()];
        check(&expected, &bound, |isa, out| geglu(isa, &x, width, out))?;
    }
}

/// erf by its series (|x| < 3) or continued fraction, to 1e-12.
fn erf_f64(x: f64) -> f64 {
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

#[test]
fn pointwise_functions_hold_over_their_range() {
    for step in -200_000..200_000 {
        let x = step as f32 * 4.4e-4;
        let (found, wanted) = (f64::from(latentd_kernels::exp(x)), f64::from(x).exp());
        if x > -87.0 && x < 88.0 {
            assert!((found - wanted).abs() <= wanted * 2f64.powi(-22), "exp({x}) = {found}, not {wanted}");
        }
        let x = step as f32 * 3e-5;
        let (found, wanted) = (f64::from(latentd_kernels::erf(x)), erf_f64(f64::from(x)));
        assert!((found - wanted).abs() <= 2f64.powi(-21), "erf({x}) = {found}, not {wanted}");
    }
    assert!(latentd_kernels::exp(f32::NAN).is_nan());
    assert_eq!(latentd_kernels::exp(f32::NEG_INFINITY), 0.0);
}

#[test]
fn nan_and_infinite_weights_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        for dtype in [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16] {
            let mut values = vec![1.0; 64 * 3];
            values[100] = bad;
            let (bytes, _) = stored(&values, dtype);
            let error = PackedMatrix::linear(Weights { dtype, bytes: &bytes }, 64, 3).err();
            assert_eq!(error, Some(latentd_kernels::PackError::NotFinite));
        }
    }
}

/// Sizes of zero in every place give an output without elements, or one of biases.
#[test]
fn sizes_of_zero_are_fine() {
    let none = Weights { dtype: WeightDtype::F16, bytes: &[] };
    for isa in Isa::available() {
        let empty = PackedMatrix::linear(none, 0, 5).expect("packs");
        linear(isa, &[1.0; 10], 2, &empty, &with_bias(Some(&[])), &mut []);
        let no_inputs = PackedMatrix::linear(none, 40, 0).expect("packs");
        let bias = random(1, 40);
        let mut out = vec![f32::NAN; 80];
        linear(isa, &[], 2, &no_inputs, &with_bias(Some(&bias)), &mut out);
        assert_eq!(out, [&bias[..], &bias].concat());
        linear(isa, &[], 0, &no_inputs, &with_bias(None), &mut []);
        let shape = AttentionShape { batch: 2, heads: 2, head_dim: 3, queries: 0, keys: 0, causal: false };
        attention(isa, &[], &[], &[], shape, &mut []);
        let shape = AttentionShape { heads: 0, queries: 4, keys: 4, ..shape };
        attention(isa, &[], &[], &[], shape, &mut []);
        let (bytes, _) = stored(&[1.0; 9], WeightDtype::F32);
        let weights = Weights { dtype: WeightDtype::F32, bytes: &bytes };
        let packed = PackedMatrix::convolution(weights, 1, 1, 9).expect("packs");
        let shape = ConvShape {
            batch: 1,
            height: 0,
            width: 7,
            channels: 1,
            kernel: 3,
            stride: 1,
            pad_before: 1,
            pad_after: 1,
            upsample: 1,
        };
        conv2d(isa, &[], shape, &packed, &with_bias(None), &mut []);
        let shape =
            GroupNormShape { batch: 0, positions: 3, channels: 4, groups: 2, epsilon: 1e-5, silu: true };
        group_norm(isa, &[], shape, &[1.0; 4], &[0.0; 4], &mut []);
        layer_norm(isa, &[], &[1.0; 4], &[0.0; 4], 1e-5, &mut []);
    }
}

/// Dimensions whose product wraps round to the length that is given: refused, where the kernels would write far
/// outside their output.
#[test]
fn dimensions_that_overflow_are_refused() {
    let half = 1usize << (usize::BITS / 2);
    let none = Weights { dtype: WeightDtype::F32, bytes: &[] };
    assert!(PackedMatrix::linear(none, half, half).is_err());
    assert!(PackedMatrix::convolution(none, 0, half, half).is_err());
    let (bytes, _) = stored(&[1.0; 4], WeightDtype::F32);
    let weights = Weights { dtype: WeightDtype::F32, bytes: &bytes };
    let packed = PackedMatrix::convolution(weights, 4, 1, 1).expect("packs");
    let shape = ConvShape {
        batch: 1,
        height: 1 << (usize::BITS - 1),
        width: 2,
        channels: 1,
        kernel: 1,
        stride: 2,
        pad_before: 0,
        pad_after: 0,
        upsample: 1,
    };
    let refused = |run: &dyn Fn(Isa)| {
        for isa in Isa::available() {
            let run = std::panic::AssertUnwindSafe(|| run(isa));
            assert!(std::panic::catch_unwind(run).is_err(), "{isa:?}: must be refused");
        }
    };
    refused(&|isa| conv2d(isa, &[], shape, &packed, &with_bias(None), &mut []));
    let packed = PackedMatrix::linear(weights, 4, 1).expect("packs");
    refused(&|isa| linear(isa, &[], 1 << (usize::BITS - 2), &packed, &with_bias(None), &mut []));
    let wide = AttentionShape { batch: 1, heads: half, head_dim: half, queries: 1, keys: 1, causal: false };
    refused(&|isa| attention(isa, &[], &[], &[], wide, &mut []));
}

#[test]
fn gelu_is_exact() {
    for isa in Isa::available() {
        let x: Vec<f32> = random(3, 1000).iter().map(|v| v * 6.0).collect();
        let mut out = x.clone();
        gelu_erf(isa, &mut out);
        for (x, found) in x.iter().zip(&out) {
            let x = f64::from(*x);
            let wanted = x * 0.5 * (1.0 + erf_f64(x / 2f64.sqrt()));
            assert!((f64::from(*found) - wanted).abs() <= 6.0 * 2f64.powi(-22), "gelu({x}) = {found}");
        }
    }
}

/// Bias of the image, activation, residual: in this order, over panels that are whole and one that is not.
#[test]
fn ends_follow_the_product() {
    let (images, rows, n, k) = (2, 10, 37, 5);
    let (x, w) = (random(1, rows * k), random(2, n * k));
    let (bytes, _) = stored(&w, WeightDtype::F32);
    let weights = Weights { dtype: WeightDtype::F32, bytes: &bytes };
    let packed = PackedMatrix::linear(weights, n, k).expect("packs");
    let (bias, image_bias, residual) = (random(3, n), random(4, images * n), random(5, rows * n));
    let epilogue = Epilogue {
        bias: Some(&bias),
        image_bias: Some(&image_bias),
        activation: Activation::Silu,
        residual: Some(&residual),
    };
    for isa in Isa::available() {
        let mut plain = vec![f32::NAN; rows * n];
        linear(isa, &x, rows, &packed, &with_bias(Some(&bias)), &mut plain);
        for (index, value) in plain.iter_mut().enumerate() {
            *value += image_bias[index / n / (rows / images) * n + index % n];
        }
        silu(isa, &mut plain);
        let wanted: Vec<f32> =
            plain.iter().zip(&residual).map(|(value, residual)| value + residual).collect();
        let mut out = vec![f32::NAN; rows * n];
        linear(isa, &x, rows, &packed, &epilogue, &mut out);
        assert_eq!(out, wanted, "{isa:?}");
    }
}
