//! The bf16 kernels against plain f64 loops over the same bf16 inputs, on every code path this processor has, over
//! random shapes. Outputs start as NaN, so a value that is not written fails.
//!
//! Tolerances: the inputs are exact, a sum of `k` products errs by at most `k · 2⁻²³` of the sum of magnitudes, and
//! storing as bf16 by 2⁻⁸ of the result (2⁻⁹ rounded, doubled for what the f32 error moves across a boundary).

#[cfg(feature = "guard-pages")]
mod guard;
mod reference;

use half::bf16;
use latentd_kernels::tiled::{
    ChannelScales, PackedKeys, TiledMatrix, attention, attention_packed, conv2d, conv2d_normed, group_norm,
    layer_norm, linear,
};
use latentd_kernels::{
    Activation, AttentionShape, ConvShape, Epilogue, GroupNormShape, Isa, WeightDtype, Weights, Wrap,
};
use proptest::prelude::*;
use reference::{Expected, Poison, activation, check, convolution, product};

#[cfg(feature = "guard-pages")]
#[global_allocator]
static GUARD: guard::Guard = guard::Guard;

/// Values in [−1, 1], exact in bf16.
fn random(seed: u64, count: usize) -> Vec<bf16> {
    reference::random(seed, count).into_iter().map(bf16::from_f32).collect()
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

/// Error of an activation here, of its argument.
const FUNCTION: f64 = 1.0 / 8192.0;

fn expected<O: Poison>(
    x: &[bf16],
    w: &[bf16],
    sizes: (usize, usize, usize),
    epilogue: &Epilogue<O>,
) -> Expected {
    Expected::new(&product(&floats(x), &floats(w), sizes), sizes.2, sizes.1, epilogue, FUNCTION)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn linear_is_the_product(
        m in prop_oneof![1usize..70, Just(160usize)], n in 1usize..100,
        k in prop_oneof![1usize..400, Just(32usize), Just(64), Just(1600), Just(1347)],
        images in 1usize..3, parts: [bool; 3], activation in activation(),
        scale in prop_oneof![Just(1f32), -2f32..2.0], seed: u64,
    ) {
        let m = m * images;
        let (x, w) = (random(seed, m * k), random(seed ^ 1, n * k));
        let weights = packed(&w, |weights| TiledMatrix::linear(weights, n, k));
        let (bias, image_bias) = (floats(&random(seed ^ 2, n)), floats(&random(seed ^ 3, n * images)));
        let residual = random(seed ^ 4, m * n);
        let (bias, image_bias) = (parts[0].then_some(&bias[..]), parts[1].then_some(&image_bias[..]));
        let epilogue =
            Epilogue { bias, image_bias, activation, scale, slopes: None, residual: parts[2].then_some(&residual[..]) };
        let wanted = expected(&x, &w, (m, n, k), &epilogue);
        check(&wanted.values, &wanted.bounds, |isa, out| linear(isa, &x, m, &weights, &epilogue, out))?;
        let residual = floats(&residual);
        let epilogue =
            Epilogue { bias, image_bias, activation, scale, slopes: None, residual: parts[2].then_some(&residual[..]) };
        let wanted = expected(&x, &w, (m, n, k), &epilogue);
        check(&wanted.values, &wanted.bounds, |isa, out| linear(isa, &x, m, &weights, &epilogue, out))?;
    }

    #[test]
    fn gates_multiply(m in 1usize..50, pairs in 1usize..5, k in 1usize..100, parts: [bool; 2], seed: u64) {
        let n = pairs * 32;
        let (x, w) = (random(seed, m * k), random(seed ^ 1, n * k));
        let weights = packed(&w, |weights| TiledMatrix::gated(weights, n, k));
        let (bias, residual) = (floats(&random(seed ^ 2, n)), random(seed ^ 3, m * n / 2));
        let epilogue = Epilogue {
            bias: parts[0].then_some(&bias[..]),
            activation: Activation::Geglu,
            scale: 0.5,
            residual: parts[1].then_some(&residual[..]),
            ..Epilogue::default()
        };
        let wanted = expected(&x, &w, (m, n, k), &epilogue);
        check(&wanted.values, &wanted.bounds, |isa, out| linear(isa, &x, m, &weights, &epilogue, out))?;
    }

    #[test]
    fn conv2d_is_the_convolution(
        batch in 1usize..4, height in 1usize..8, width in prop_oneof![4 => 1usize..20, 2 => 30usize..34, 1 => 129usize..150],
        channels in prop_oneof![1usize..70, Just(352usize)], outputs in prop_oneof![8 => 1usize..40, 1 => Just(200usize)],
        kernel in prop_oneof![4 => 1usize..4, 1 => Just(5usize), 1 => Just(7)], stride in 1usize..4,
        before in 0usize..4, after in 0usize..4, upsample in 1usize..3, wrap: [bool; 2], parts: [bool; 2], activation in activation(),
        seed: u64,
    ) {
        // Not everything large at once: the f64 loops would take minutes.
        let wide = width > 34;
        let channels = if kernel > 3 { channels.min(20) } else if wide { channels.min(40) } else { channels };
        let outputs = if wide || channels > 70 { outputs.min(40) } else { outputs };
        let shape = ConvShape {
            batch, height, width, channels, kernel, stride, pad_before: before, pad_after: after, upsample,
            wrap: Wrap { x: wrap[0], y: wrap[1] },
        };
        let (rows, columns) = shape.output();
        let taps = kernel * kernel;
        let (x, w) = (random(seed, batch * height * width * channels), random(seed ^ 1, outputs * channels * taps));
        let weights = packed(&w, |weights| TiledMatrix::convolution(weights, outputs, channels, taps));
        let (bias, image_bias) = (floats(&random(seed ^ 2, outputs)), floats(&random(seed ^ 3, outputs * batch)));
        let residual = random(seed ^ 4, batch * rows * columns * outputs);
        let sums = convolution(&floats(&x), &floats(&w), shape, outputs);
        let (bias, image_bias) = (Some(&bias[..]), parts[0].then_some(&image_bias[..]));
        let slopes = floats(&random(seed ^ 5, outputs));
        let slopes = parts[1].then_some(&slopes[..]);
        let residual = parts[1].then_some(&residual[..]);
        let epilogue = Epilogue { bias, image_bias, activation, slopes, scale: 1.0, residual };
        let wanted = Expected::new(&sums, channels * taps, outputs, &epilogue, FUNCTION);
        check(&wanted.values, &wanted.bounds, |isa, out| conv2d(isa, &x, shape, &weights, &epilogue, out))?;
        let epilogue = Epilogue::<f32> { bias, image_bias, activation, ..Epilogue::default() };
        let wanted = Expected::new(&sums, channels * taps, outputs, &epilogue, FUNCTION);
        check(&wanted.values, &wanted.bounds, |isa, out| conv2d(isa, &x, shape, &weights, &epilogue, out))?;
        // Each picture alone gives the bits it has among others.
        let image = height * width * channels;
        let size = rows * columns * outputs;
        for isa in Isa::available() {
            let mut all = vec![bf16::NAN; batch * size];
            let epilogue = Epilogue { bias, ..Epilogue::default() };
            conv2d(isa, &x, shape, &weights, &epilogue, &mut all);
            let mut alone = vec![bf16::NAN; size];
            conv2d(isa, &x[(batch - 1) * image..], ConvShape { batch: 1, ..shape }, &weights, &epilogue, &mut alone);
            prop_assert_eq!(&all[(batch - 1) * size..], &alone[..], "{:?}: the batch changes the result", isa);
        }
    }

    #[test]
    fn attention_is_softmax_of_products(
        batch in 1usize..3, heads in 1usize..4,
        head_dim in prop_oneof![1usize..90, Just(40usize), Just(64), Just(80), Just(160), Just(512)], queries in 1usize..120,
        keys in 1usize..600, causal: bool, seed: u64,
    ) {
        let keys = if causal { queries } else { keys };
        let shape = AttentionShape { batch, heads, head_dim, queries, keys, causal };
        let width = heads * head_dim;
        let q: Vec<bf16> = random(seed, batch * queries * width).iter().map(|v| *v * bf16::from_f32(4.0)).collect();
        let (k, v) = (random(seed ^ 1, batch * keys * width), random(seed ^ 2, batch * keys * width));
        let expected = reference::attention(&floats(&q), &floats(&k), &floats(&v), shape);
        // Weights are rounded to bf16, 2⁻⁹ each, and values are at most 1; scores of up to 4 · √512 ≈ 90 err by
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
        let shape = GroupNormShape { batch, positions, channels, groups, epsilon: 1e-2, silu: act };
        let (expected, inverse) = reference::group_norm(&xs, shape, &weight, &bias);
        // Sums of 64 squares in f32 err by 64 · 2⁻²⁴ of 25 at most, in a variance of at least ε = 10⁻²; SiLU by 2⁻¹³.
        let relative = 64.0 * 2f64.powi(-24) * 25.0 * inverse * inverse + 2f64.powi(-12);
        let bound = vec![6.0 * inverse * relative; expected.len()];
        check::<bf16>(&expected, &bound, |isa, out| group_norm(isa, &x, shape, &weight, &bias, out))?;
        let (expected, inverse) = reference::layer_norm(&xs, &weight, &bias, 1e-5);
        let bound = vec![5.0 * inverse * 2f64.powi(-20); expected.len()];
        check::<bf16>(&expected, &bound, |isa, out| layer_norm(isa, &x, &weight, &bias, 1e-5, out))?;
        check::<bf16>(&expected, &bound, |isa, out| layer_norm(isa, &xs, &weight, &bias, 1e-5, out))?;
    }
}

/// Scores that rise or fall by hundreds over the keys, so that the base of the weights must follow within a group, for
/// some queries and not for others.
#[test]
fn the_base_of_weights_follows_scores() {
    let (queries, keys, head_dim) = (50, 700, 40);
    for causal in [false, true] {
        let keys = if causal { queries } else { keys };
        let shape = AttentionShape { batch: 1, heads: 1, head_dim, queries, keys, causal };
        let q: Vec<bf16> =
            (0..queries * head_dim).map(|i| bf16::from_f32((i / head_dim % 5) as f32 - 2.0)).collect();
        let steepness = 1.0 / if causal { 4.0 } else { 16.0 };
        let k: Vec<bf16> =
            (0..keys * head_dim).map(|i| bf16::from_f32((i / head_dim) as f32 * steepness)).collect();
        let v = random(4, keys * head_dim);
        let expected = reference::attention(&floats(&q), &floats(&k), &floats(&v), shape);
        // Scores of up to 1,100 in f32 err by 40 · 2⁻²⁴ of them at worst, and weights by as much.
        let bound = vec![2f64.powi(-8) + 1100.0 * 40.0 * 2f64.powi(-23); expected.len()];
        check::<bf16>(&expected, &bound, |isa, out| attention(isa, &q, &k, &v, shape, out))
            .expect("the attention");
    }
}

/// A query that is NaN, infinite or huge costs itself, and no bit of the 31 others of its block.
#[test]
fn bad_queries_keep_to_themselves() {
    for (head_dim, causal) in [(40, false), (40, true), (64, true), (512, false)] {
        let (queries, keys) = (70, if causal { 70 } else { 333 });
        let shape = AttentionShape { batch: 1, heads: 1, head_dim, queries, keys, causal };
        let mut q = random(3, queries * head_dim);
        let (k, v) = (random(4, keys * head_dim), random(5, keys * head_dim));
        for isa in Isa::available() {
            let mut clean = vec![bf16::NAN; q.len()];
            attention(isa, &q, &k, &v, shape, &mut clean);
            for bad in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, 1e18, -3e9, 1e4] {
                let row = 7 * head_dim..8 * head_dim;
                let kept = q[row.clone()].to_vec();
                q[row.clone()].fill(bf16::from_f32(bad));
                let mut out = vec![bf16::NAN; q.len()];
                attention(isa, &q, &k, &v, shape, &mut out);
                q[row.clone()].copy_from_slice(&kept);
                if bad.is_nan() {
                    assert!(out[row.clone()].iter().all(|value| value.is_nan()), "{isa:?}");
                }
                out[row.clone()].copy_from_slice(&clean[row]);
                assert!(out == clean, "{isa:?}: a query of {bad} changes others, heads of {head_dim}");
            }
        }
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
            let run = |k: &[bf16], v: &[bf16]| {
                let mut out = vec![bf16::NAN; queries * width];
                attention(isa, &q, k, v, shape, &mut out);
                out
            };
            let clean = run(&k, &v);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
                for at in [1, 31, 32, 50, queries - 1] {
                    let spoilt = |values: &[bf16]| {
                        let mut values = values.to_vec();
                        values[at * width..].fill(bf16::from_f32(bad));
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
                    values[at * width + 2] = bf16::from_f32(bad);
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

/// More panels than one group of weights holds, several segments, more rows than one task takes.
#[test]
fn large_products_are_cut_without_a_trace() {
    let (m, n, k) = (200, 700, 1500);
    let (x, w) = (random(1, m * k), random(2, n * k));
    let weights = packed(&w, |weights| TiledMatrix::linear(weights, n, k));
    let epilogue = Epilogue::<bf16>::default();
    let wanted = expected(&x, &w, (m, n, k), &epilogue);
    check(&wanted.values, &wanted.bounds, |isa, out| linear(isa, &x, m, &weights, &epilogue, out))
        .expect("the product");
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
            wrap: Wrap { x: side == 140 || upsample == 2, y: side == 8 || upsample == 2 },
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
