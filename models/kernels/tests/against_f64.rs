//! Each kernel against plain f64 loops, on every code path this processor has, over random shapes. Outputs start
//! as NaN, so a value that is not written fails.
//!
//! Tolerances: a sum of `k` products in f32 errs by about `k · 2⁻²⁴` of the sum of magnitudes at worst and
//! `√k · 2⁻²⁴` typically; `k · 2⁻²³` of the sum of magnitudes is the bound used.

#[cfg(feature = "guard-pages")]
mod guard;
mod reference;

use latentd_kernels::{
    Activation, AttentionShape, ConvShape, Epilogue, GroupNormShape, Isa, PackedMatrix, WeightDtype, Weights,
    Wrap, attention, conv2d, gelu, group_norm, layer_norm, linear, silu,
};
use proptest::prelude::*;
use reference::{Expected, activation, check, convolution, product, random};

#[cfg(feature = "guard-pages")]
#[global_allocator]
static GUARD: guard::Guard = guard::Guard;

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

fn dtype() -> impl Strategy<Value = WeightDtype> {
    prop_oneof![Just(WeightDtype::F32), Just(WeightDtype::F16), Just(WeightDtype::Bf16)]
}

/// Error of an activation of f32, of its argument.
const FUNCTION: f64 = 1.0 / (1u64 << 20) as f64;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn linear_is_the_product(
        m in 1usize..40, n in prop_oneof![4 => 1usize..100, 1 => Just(300usize)],
        k in prop_oneof![1usize..900, Just(0usize)], dtype in dtype(), images in 1usize..3, parts: [bool; 4],
        activation in activation(), scale in prop_oneof![Just(1f32), -2f32..2.0], seed: u64,
    ) {
        let m = m * images;
        let x = random(seed, m * k);
        let (bytes, w) = stored(&random(seed ^ 1, n * k), dtype);
        let (bias, image_bias) = (random(seed ^ 2, n), random(seed ^ 3, n * images));
        let (residual, slopes) = (random(seed ^ 4, m * n), random(seed ^ 5, n));
        let epilogue = Epilogue {
            bias: parts[0].then_some(&bias[..]),
            image_bias: parts[1].then_some(&image_bias[..]),
            activation,
            slopes: parts[3].then_some(&slopes[..]),
            scale,
            residual: parts[2].then_some(&residual[..]),
        };
        let packed = PackedMatrix::linear(Weights { dtype, bytes: &bytes }, n, k).expect("packs");
        let expected = Expected::new(&product(&x, &w, (m, n, k)), k, n, &epilogue, FUNCTION);
        check(&expected.values, &expected.bounds, |isa, out| linear(isa, &x, m, &packed, &epilogue, out))?;
    }

    #[test]
    fn gates_multiply(
        m in 1usize..50, pairs in 1usize..5, k in 1usize..900, dtype in dtype(), parts: [bool; 2], seed: u64,
    ) {
        let n = pairs * 32;
        let x = random(seed, m * k);
        let (bytes, w) = stored(&random(seed ^ 1, n * k), dtype);
        let (bias, residual) = (random(seed ^ 2, n), random(seed ^ 3, m * n / 2));
        let epilogue = Epilogue {
            bias: parts[0].then_some(&bias[..]),
            activation: Activation::Geglu,
            scale: 0.5,
            residual: parts[1].then_some(&residual[..]),
            ..Epilogue::default()
        };
        let packed = PackedMatrix::gated(Weights { dtype, bytes: &bytes }, n, k).expect("packs");
        let expected = Expected::new(&product(&x, &w, (m, n, k)), k, n, &epilogue, FUNCTION);
        check(&expected.values, &expected.bounds, |isa, out| linear(isa, &x, m, &packed, &epilogue, out))?;
    }

    #[test]
    fn conv2d_is_the_convolution(
        batch in 1usize..3, height in 1usize..9, width in 1usize..9, channels in 1usize..40, outputs in 1usize..40,
        kernel in prop_oneof![1usize..4, Just(5usize), Just(7)], stride in 1usize..4, before in 0usize..4,
        after in 0usize..4, upsample in 1usize..3, wrap: [bool; 2], parts: [bool; 2], activation in activation(), seed: u64,
    ) {
        let shape = ConvShape {
            batch, height, width, channels, kernel, stride, pad_before: before, pad_after: after, upsample,
            wrap: Wrap { x: wrap[0], y: wrap[1] },
        };
        let (rows, columns) = shape.output();
        let x = random(seed, batch * height * width * channels);
        let (bytes, w) = stored(&random(seed ^ 1, outputs * channels * kernel * kernel), WeightDtype::F16);
        let (bias, image_bias) = (random(seed ^ 2, outputs), random(seed ^ 3, outputs * batch));
        let residual = random(seed ^ 4, batch * rows * columns * outputs);
        let epilogue = Epilogue {
            bias: Some(&bias[..]),
            image_bias: parts[0].then_some(&image_bias[..]),
            activation,
            residual: parts[1].then_some(&residual[..]),
            ..Epilogue::default()
        };
        let weights = Weights { dtype: WeightDtype::F16, bytes: &bytes };
        let packed = PackedMatrix::convolution(weights, outputs, channels, kernel * kernel).expect("packs");
        let sums = convolution(&x, &w, shape, outputs);
        let expected = Expected::new(&sums, channels * kernel * kernel, outputs, &epilogue, FUNCTION);
        check(&expected.values, &expected.bounds, |isa, out| conv2d(isa, &x, shape, &packed, &epilogue, out))?;
    }

    #[test]
    fn attention_is_softmax_of_products(
        batch in 1usize..3, heads in 1usize..4, head_dim in prop_oneof![8 => 1usize..90, 2 => Just(160usize), 1 => Just(512)],
        queries in 1usize..120, keys in 1usize..600, causal: bool, seed: u64,
    ) {
        let keys = if causal { queries } else { keys };
        let shape = AttentionShape { batch, heads, head_dim, queries, keys, causal };
        let width = heads * head_dim;
        let q: Vec<f32> = random(seed, batch * queries * width).iter().map(|v| v * 4.0).collect();
        let k: Vec<f32> = random(seed ^ 1, batch * keys * width).iter().map(|v| v * 4.0).collect();
        let v = random(seed ^ 2, batch * keys * width);
        let expected = reference::attention(&q, &k, &v, shape);
        // A score of up to 16 · √512 ≈ 360 carries an absolute error of head_dim · 2⁻²³ · 16 / √head_dim, which
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
        let shape = GroupNormShape { batch, positions, channels, groups, epsilon: 1e-5, silu: act };
        // x · scale + shift: both terms of size 8 · inverse, rounded to f32 a few times.
        let bound = |inverse: f64| vec![8.0 * inverse * 6.0 * 2f64.powi(-24); x.len()];
        let (expected, inverse) = reference::group_norm(&x, shape, &weight, &bias);
        check(&expected, &bound(inverse), |isa, out| group_norm(isa, &x, shape, &weight, &bias, out))?;
        let (expected, inverse) = reference::layer_norm(&x, &weight, &bias, 1e-5);
        check(&expected, &bound(inverse), |isa, out| layer_norm(isa, &x, &weight, &bias, 1e-5, out))?;
    }

    #[test]
    fn silu_is_x_times_its_sigmoid(count in 1usize..6000, seed: u64) {
        let x: Vec<f32> = random(seed, count).iter().map(|v| v * 9.0).collect();
        let expected: Vec<f64> = x.iter().map(|x| f64::from(*x) / (1.0 + (-f64::from(*x)).exp())).collect();
        let bound: Vec<f64> = expected.iter().map(|y| y.abs() * 2f64.powi(-20) + 1e-30).collect();
        check(&expected, &bound, |isa, out: &mut [f32]| {
            out.copy_from_slice(&x);
            silu(isa, out);
        })?;
    }

    #[test]
    fn gelu_is_x_times_the_normal_distribution(count in 1usize..6000, seed: u64) {
        let x: Vec<f32> = random(seed, count).iter().map(|v| v * 9.0).collect();
        let expected: Vec<f64> = x.iter().map(|x| reference::gelu(f64::from(*x))).collect();
        let bound: Vec<f64> = x.iter().map(|x| f64::from(x.abs()) * 2f64.powi(-21)).collect();
        check(&expected, &bound, |isa, out: &mut [f32]| {
            out.copy_from_slice(&x);
            gelu(isa, out);
        })?;
    }
}

/// More rows, columns and inputs than one task, one group of panels or one segment takes.
#[test]
fn large_products_are_cut_without_a_trace() {
    let (m, n, k) = (200, 700, 1500);
    let x = random(1, m * k);
    let (bytes, w) = stored(&random(2, n * k), WeightDtype::F16);
    let packed =
        PackedMatrix::linear(Weights { dtype: WeightDtype::F16, bytes: &bytes }, n, k).expect("packs");
    let epilogue = Epilogue::<f32>::default();
    let expected = Expected::new(&product(&x, &w, (m, n, k)), k, n, &epilogue, FUNCTION);
    check(&expected.values, &expected.bounds, |isa, out| linear(isa, &x, m, &packed, &epilogue, out))
        .expect("the product");
}

/// A NaN in a query, or in some keys, reaches the rows that see it, whole, and no others.
#[test]
fn nan_stays_where_it_is() {
    let (queries, keys, head_dim) = (30, 600, 40);
    let shape = AttentionShape { batch: 1, heads: 1, head_dim, queries, keys, causal: false };
    let (mut q, mut k) = (random(3, queries * head_dim), random(4, keys * head_dim));
    let v = random(5, keys * head_dim);
    for isa in Isa::available() {
        let run = |q: &[f32], k: &[f32]| {
            let mut out = vec![0f32; queries * head_dim];
            attention(isa, q, k, &v, shape, &mut out);
            out
        };
        let clean = run(&q, &k);
        let kept = std::mem::replace(&mut q[7 * head_dim], f32::NAN);
        for (row, (out, clean)) in run(&q, &k).chunks(head_dim).zip(clean.chunks(head_dim)).enumerate() {
            assert!(
                if row == 7 { out.iter().all(|x| x.is_nan()) } else { out == clean },
                "{isa:?}, row {row}"
            );
        }
        q[7 * head_dim] = kept;
        // A whole block of keys, before one that is fine.
        let kept = k[..256 * head_dim].to_vec();
        k[..256 * head_dim].fill(f32::NAN);
        assert!(run(&q, &k).iter().all(|x| x.is_nan()), "{isa:?}");
        k[..256 * head_dim].copy_from_slice(&kept);
    }
}

/// With `causal`, what stands after a query is nothing to it, whatever it is.
#[test]
fn later_keys_do_not_count_whatever_they_are() {
    for (head_dim, queries) in [(40, 77), (64, 77), (7, 300)] {
        let shape = AttentionShape { batch: 1, heads: 2, head_dim, queries, keys: queries, causal: true };
        let width = 2 * head_dim;
        let q = random(3, queries * width);
        let (k, v) = (random(4, queries * width), random(5, queries * width));
        for isa in Isa::available() {
            let run = |k: &[f32], v: &[f32]| {
                let mut out = vec![f32::NAN; queries * width];
                attention(isa, &q, k, v, shape, &mut out);
                out
            };
            let clean = run(&k, &v);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
                for at in [1, 31, 32, 50, queries - 1] {
                    let spoilt = |values: &[f32]| {
                        let mut values = values.to_vec();
                        values[at * width..].fill(bad);
                        values
                    };
                    for (k, v) in [(spoilt(&k), v.clone()), (k.clone(), spoilt(&v)), (spoilt(&k), spoilt(&v))]
                    {
                        let out = run(&k, &v);
                        assert!(
                            out[..at * width] == clean[..at * width],
                            "{isa:?}, {bad} from {at} of {queries} on, heads of {head_dim}"
                        );
                    }
                    // Of one channel of one value: its column alone, from its place on.
                    let mut values = v.clone();
                    values[at * width + 2] = bad;
                    for (place, (out, clean)) in run(&k, &values).iter().zip(&clean).enumerate() {
                        let reached = place / width >= at && place % width == 2;
                        assert!(reached || out == clean, "{isa:?}, {bad} at {at}, {place}");
                        assert!(
                            !reached || bad > 1e38 && bad.is_finite() || !out.is_finite(),
                            "{isa:?}, {bad} at {at}"
                        );
                    }
                }
            }
        }
    }
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
            wrap: Wrap { x: true, y: true },
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
        wrap: Wrap::default(),
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
