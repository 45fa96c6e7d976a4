//! Each kernel at the sizes of SD 1.5's networks: time, rate, and share of what this machine's units do at best,
//! measured in the same run. `cargo bench -p latentd-kernels [-- PART OF A NAME]`; `LATENTD_KERNELS=avx2` and the
//! like choose a code path, `RAYON_NUM_THREADS` the threads.
#![allow(clippy::print_stdout, missing_docs)]

mod peak;

use std::time::Instant;

use half::bf16;
use latentd_kernels::{
    Activation, AttentionShape, Buffer, ConvShape, Epilogue, GroupNormShape, Isa, PackedMatrix, WeightDtype,
    Weights, Wrap, attention, conv2d, group_norm, layer_norm, linear, silu, tiled,
};

struct Bench {
    isa: Isa,
    filter: String,
    /// GFLOP/s of f32, and of bf16.
    peaks: [f64; 2],
}

/// What a kernel computes in, and which peak it is held against.
#[derive(Clone, Copy)]
enum Unit {
    F32,
    Bf16,
}

impl Bench {
    /// Against the multiply-adds that the units do at best.
    fn products(&self, name: &str, unit: Unit, flops: f64, run: impl FnMut()) {
        let Some((name, seconds)) = self.time(name, unit, run) else { return };
        let rate = flops / seconds * 1e-9;
        let share = rate / self.peaks[unit as usize] * 100.0;
        println!("{name:<52} {:>9.3} ms {rate:>8.1} GFLOP/s {share:>5.0} % of peak", seconds * 1e3);
    }

    /// Against a copy of as many bytes, where hardly anything is computed.
    fn bytes(&self, name: &str, unit: Unit, (read, written): (usize, usize), run: impl FnMut()) {
        let Some((name, seconds)) = self.time(name, unit, run) else { return };
        let size = [4, 2][unit as usize];
        let rate = ((read + written) * size) as f64 / seconds * 1e-9;
        let share = rate / peak::copy_rate(read * size, written * size) * 100.0;
        println!("{name:<52} {:>9.3} ms {rate:>8.1} GB/s    {share:>5.0} % of a copy", seconds * 1e3);
    }

    /// The full name and the median of seven runs in seconds, unless it is filtered out.
    fn time(&self, name: &str, unit: Unit, mut run: impl FnMut()) -> Option<(String, f64)> {
        let name = format!("{} {name}", ["f32", "bf16"][unit as usize]);
        if !name.contains(&self.filter) {
            return None;
        }
        run();
        let mut times: Vec<f64> = (0..7)
            .map(|_| {
                let start = Instant::now();
                run();
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        Some((name, times[times.len() / 2]))
    }
}

fn random(count: usize) -> Buffer<f32> {
    let mut values = Buffer::new(count);
    values.iter_mut().enumerate().for_each(|(i, value)| *value = ((i * 7919) % 1000) as f32 * 1e-3 - 0.5);
    values
}

fn random_bf16(count: usize) -> Buffer<bf16> {
    let mut values = Buffer::new(count);
    values.iter_mut().zip(random(count).iter()).for_each(|(to, from)| *to = bf16::from_f32(*from));
    values
}

fn f16_weights(count: usize) -> Vec<u8> {
    random(count).iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect()
}

fn f16(bytes: &[u8]) -> Weights<'_> {
    Weights { dtype: WeightDtype::F16, bytes }
}

fn main() {
    let isa = Isa::current();
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let bench = Bench { isa, filter, peaks: [peak::f32_rate(isa), peak::bf16_rate(isa)] };
    println!("kernels: {}, threads: {}", isa.name(), rayon::current_num_threads());
    let [f32, bf16] = bench.peaks;
    println!("products of registers or tiles at best: f32 {f32:.0} GFLOP/s, bf16 {bf16:.0} GFLOP/s");
    linears(&bench);
    epilogues(&bench);
    convolutions(&bench);
    attentions(&bench);
    norms(&bench);
}

fn linears(bench: &Bench) {
    for (m, k, n) in [
        (8192, 320, 320),
        (8192, 320, 2560),
        (8192, 1280, 320),
        (2048, 640, 640),
        (2048, 640, 5120),
        (512, 1280, 1280),
        (512, 1280, 10240),
        (512, 5120, 1280),
        (154, 768, 768),
        (154, 768, 3072),
    ] {
        let bytes = f16_weights(n * k);
        let name = format!("linear {m}×{k}×{n}");
        let flops = 2.0 * (m * k * n) as f64;
        let (x, mut out) = (random(m * k), Buffer::<f32>::new(m * n));
        let packed = PackedMatrix::linear(f16(&bytes), n, k).expect("packs");
        bench.products(&name, Unit::F32, flops, || {
            linear(bench.isa, &x, m, &packed, &Epilogue::default(), &mut out);
        });
        let (x, mut out) = (random_bf16(m * k), Buffer::<bf16>::new(m * n));
        let packed = tiled::TiledMatrix::linear(f16(&bytes), n, k).expect("packs");
        let epilogue = Epilogue::default();
        bench.products(&name, Unit::Bf16, flops, || {
            tiled::linear(bench.isa, &x, m, &packed, &epilogue, &mut out);
        });
        if n == 8 * k {
            let name = format!("{name}, GEGLU");
            let packed = tiled::TiledMatrix::gated(f16(&bytes), n, k).expect("packs");
            let epilogue = Epilogue { activation: Activation::Geglu, ..Epilogue::default() };
            bench.products(&name, Unit::Bf16, flops, || {
                tiled::linear(bench.isa, &x, m, &packed, &epilogue, &mut out[..m * n / 2]);
            });
            let (x, mut out) = (random(m * k), Buffer::<f32>::new(m * n / 2));
            let packed = PackedMatrix::gated(f16(&bytes), n, k).expect("packs");
            let epilogue = Epilogue { activation: Activation::Geglu, ..Epilogue::default() };
            bench.products(&name, Unit::F32, flops, || {
                linear(bench.isa, &x, m, &packed, &epilogue, &mut out);
            });
        }
    }
}

/// What follows a product, beside the product alone.
fn epilogues(bench: &Bench) {
    let (m, k, n) = (8192, 320, 320);
    let flops = 2.0 * (m * k * n) as f64;
    let bytes = f16_weights(n * k);
    let (bias, image_bias) = (random(n), random(2 * n));
    let (x, residual, mut out) = (random(m * k), random(m * n), Buffer::<f32>::new(m * n));
    let packed = PackedMatrix::linear(f16(&bytes), n, k).expect("packs");
    let (x16, residual16, mut out16) = (random_bf16(m * k), random_bf16(m * n), Buffer::<bf16>::new(m * n));
    let packed16 = tiled::TiledMatrix::linear(f16(&bytes), n, k).expect("packs");
    for (name, activation, with_residual) in
        [("bias, SiLU", Activation::Silu, false), ("bias, residual", Activation::None, true)]
    {
        let name = format!("linear {m}×{k}×{n}, {name}");
        let (bias, image_bias) = (Some(&bias[..]), Some(&image_bias[..]));
        let epilogue = Epilogue {
            bias,
            image_bias,
            activation,
            residual: with_residual.then_some(&residual[..]),
            ..Epilogue::default()
        };
        bench.products(&name, Unit::F32, flops, || linear(bench.isa, &x, m, &packed, &epilogue, &mut out));
        let epilogue = Epilogue {
            bias,
            image_bias,
            activation,
            residual: with_residual.then_some(&residual16[..]),
            ..Epilogue::default()
        };
        bench.products(&name, Unit::Bf16, flops, || {
            tiled::linear(bench.isa, &x16, m, &packed16, &epilogue, &mut out16);
        });
    }
}

fn convolutions(bench: &Bench) {
    let plain = |batch, side, channels, outputs| (batch, side, channels, outputs, 3, 1, 1);
    for (batch, side, channels, outputs, kernel, stride, upsample) in [
        plain(2, 64, 320, 320),
        plain(2, 64, 640, 320),
        plain(2, 64, 960, 320),
        plain(2, 32, 640, 640),
        plain(2, 32, 1920, 640),
        plain(2, 16, 1280, 1280),
        plain(2, 16, 2560, 1280),
        plain(2, 8, 1280, 1280),
        // The UNet's ends, shortcuts, downsampling and upsampling.
        plain(2, 64, 4, 320),
        plain(2, 64, 320, 4),
        (2, 64, 640, 320, 1, 1, 1),
        (2, 64, 320, 320, 3, 2, 1),
        (2, 32, 640, 640, 3, 1, 2),
        plain(1, 64, 512, 512),
        plain(1, 128, 512, 512),
        plain(1, 256, 256, 256),
        plain(1, 512, 128, 128),
        plain(1, 512, 128, 3),
        (1, 256, 256, 256, 3, 1, 2),
    ] {
        let pad = kernel / 2;
        let shape = ConvShape {
            batch,
            height: side,
            width: side,
            channels,
            kernel,
            stride,
            pad_before: pad,
            pad_after: pad,
            upsample,
            wrap: Wrap::default(),
        };
        let (rows, columns) = shape.output();
        let taps = kernel * kernel;
        let bytes = f16_weights(outputs * channels * taps);
        let (inputs, outs) = (batch * side * side * channels, batch * rows * columns * outputs);
        let flops = 2.0 * (taps * batch * rows * columns * channels * outputs) as f64;
        let name = format!("conv {kernel}×{kernel} {channels}→{outputs}, {side}²→{rows}², batch {batch}");
        let (x, mut out) = (random(inputs), Buffer::<f32>::new(outs));
        let packed = PackedMatrix::convolution(f16(&bytes), outputs, channels, taps).expect("packs");
        bench.products(&name, Unit::F32, flops, || {
            conv2d(bench.isa, &x, shape, &packed, &Epilogue::default(), &mut out);
        });
        let (x, mut out) = (random_bf16(inputs), Buffer::<bf16>::new(outs));
        let packed = tiled::TiledMatrix::convolution(f16(&bytes), outputs, channels, taps).expect("packs");
        let epilogue = Epilogue::default();
        bench.products(&name, Unit::Bf16, flops, || {
            tiled::conv2d(bench.isa, &x, shape, &packed, &epilogue, &mut out);
        });
        if channels.is_multiple_of(32) && kernel == 3 && upsample == 1 {
            let norm = group_norm_shape(batch, side * side, channels);
            let ones = vec![1f32; channels];
            bench.products(&format!("{name}, normed"), Unit::Bf16, flops, || {
                let scales = tiled::ChannelScales::group_norm(bench.isa, &x, norm, &ones, &ones);
                tiled::conv2d_normed(bench.isa, &x, &scales, shape, &packed, &epilogue, &mut out);
            });
        }
    }
}

fn group_norm_shape(batch: usize, positions: usize, channels: usize) -> GroupNormShape {
    GroupNormShape { batch, positions, channels, groups: 32, epsilon: 1e-5, silu: true }
}

fn attentions(bench: &Bench) {
    for (batch, heads, head_dim, queries, keys, causal) in [
        (2, 8, 40, 4096, 4096, false),
        (2, 8, 80, 1024, 1024, false),
        (2, 8, 160, 256, 256, false),
        (2, 8, 40, 4096, 77, false),
        (2, 12, 64, 77, 77, true),
        (1, 1, 512, 4096, 4096, false),
    ] {
        let shape = AttentionShape { batch, heads, head_dim, queries, keys, causal };
        let width = heads * head_dim;
        // Of the whole square, though half of it is hidden from a causal one.
        let flops = 4.0 * (batch * width * queries * keys) as f64;
        let kind = if causal { ", causal" } else { "" };
        let name = format!("attention {queries}×{keys}, {heads} heads of {head_dim}, batch {batch}{kind}");
        let (q, k) = (random(batch * queries * width), random(batch * keys * width));
        let mut out = Buffer::<f32>::new(q.len());
        bench.products(&name, Unit::F32, flops, || attention(bench.isa, &q, &k, &k, shape, &mut out));
        let (q, k) = (random_bf16(q.len()), random_bf16(k.len()));
        let mut out = Buffer::<bf16>::new(q.len());
        bench.products(&name, Unit::Bf16, flops, || tiled::attention(bench.isa, &q, &k, &k, shape, &mut out));
        if keys != queries {
            let packed = tiled::PackedKeys::new(&k, &k, batch, heads, head_dim, keys);
            bench.products(&format!("{name}, packed before"), Unit::Bf16, flops, || {
                tiled::attention_packed(bench.isa, &q, &packed, causal, &mut out);
            });
        }
    }
}

fn norms(bench: &Bench) {
    for (batch, positions, channels) in [(2, 4096, 320), (2, 1024, 1280), (1, 512 * 512, 128)] {
        let shape = group_norm_shape(batch, positions, channels);
        let (x, ones) = (random(batch * positions * channels), vec![1f32; channels]);
        let mut out = Buffer::<f32>::new(x.len());
        // Read for the statistics, and again to be normed.
        let touched = (2 * x.len(), x.len());
        let name = format!("group norm + SiLU {batch}×{positions}×{channels}");
        bench.bytes(&name, Unit::F32, touched, || group_norm(bench.isa, &x, shape, &ones, &ones, &mut out));
        let x = random_bf16(x.len());
        let mut out = Buffer::<bf16>::new(x.len());
        bench.bytes(&name, Unit::Bf16, touched, || {
            tiled::group_norm(bench.isa, &x, shape, &ones, &ones, &mut out);
        });
    }
    let (x, ones) = (random(8192 * 320), vec![1f32; 320]);
    let mut out = Buffer::<f32>::new(x.len());
    let touched = (x.len(), x.len());
    bench.bytes("layer norm 8192×320", Unit::F32, touched, || {
        layer_norm(bench.isa, &x, &ones, &ones, 1e-5, &mut out);
    });
    let x = random_bf16(x.len());
    let mut out = Buffer::<bf16>::new(x.len());
    bench.bytes("layer norm 8192×320", Unit::Bf16, touched, || {
        tiled::layer_norm(bench.isa, &x[..], &ones, &ones, 1e-5, &mut out);
    });
    let mut x = random(8192 * 1280);
    let touched = (x.len(), x.len());
    bench.bytes("SiLU 8192×1280", Unit::F32, touched, || silu(bench.isa, &mut x));
}
