//! Each kernel at the sizes of SD 1.5's networks: time, rate, and share of what this machine's units do at best,
//! measured in the same run. `cargo bench -p latentd-kernels [-- PART OF A NAME]`; `LATENTD_KERNELS=avx2` and the
//! like choose a code path, `RAYON_NUM_THREADS` the threads.
#![allow(clippy::print_stdout, missing_docs)]

mod peak;

use std::time::Instant;

use half::bf16;
use latentd_kernels::{
    Activation, AttentionShape, Buffer, ConvShape, Epilogue, GroupNormShape, Isa, PackedMatrix, WeightDtype,
    Weights, attention, conv2d, geglu, group_norm, layer_norm, linear, tiled,
};

struct Bench {
    isa: Isa,
    filter: String,
    /// GFLOP/s of f32, and of bf16 tiles.
    peaks: [Option<f64>; 2],
}

/// Which peak a kernel is held against.
#[derive(Clone, Copy)]
enum Unit {
    F32,
    Bf16,
}

impl Bench {
    fn measure(&self, name: &str, unit: Unit, flops: f64, mut run: impl FnMut()) {
        let kind = ["f32", "bf16"][unit as usize];
        let name = format!("{kind} {name}");
        if !name.contains(&self.filter) {
            return;
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
        let seconds = times[times.len() / 2];
        let rate = flops / seconds * 1e-9;
        let share = self.peaks[unit as usize].filter(|_| flops > 0.0).map(|peak| rate / peak * 100.0);
        let share = share.map_or(String::new(), |share| format!("{share:>5.0} % of peak"));
        println!("{name:<52} {:>9.3} ms {rate:>8.1} GFLOP/s{share}", seconds * 1e3);
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
    let bench = Bench { isa, filter, peaks: [peak::f32_rate(isa), peak::tile_rate(isa)] };
    println!("kernels: {}, threads: {}", isa.name(), rayon::current_num_threads());
    for (kind, peak) in ["f32 multiply-adds", "bf16 tile products"].into_iter().zip(bench.peaks) {
        println!("{kind} at best: {}", peak.map_or("—".to_owned(), |peak| format!("{peak:.0} GFLOP/s")));
    }
    linears(&bench);
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
        bench.measure(&name, Unit::F32, flops, || {
            linear(bench.isa, &x, m, &packed, &Epilogue::default(), &mut out);
        });
        let (x, mut out) = (random_bf16(m * k), Buffer::<bf16>::new(m * n));
        let packed = tiled::TiledMatrix::linear(f16(&bytes), n, k).expect("packs");
        let epilogue = Epilogue::default();
        bench.measure(&name, Unit::Bf16, flops, || {
            tiled::linear(bench.isa, &x, m, &packed, &epilogue, &mut out);
        });
        if n == 8 * k {
            let packed = tiled::TiledMatrix::gated(f16(&bytes), n, k).expect("packs");
            let epilogue = Epilogue { activation: Activation::Geglu, ..Epilogue::default() };
            bench.measure(&format!("{name}, GEGLU"), Unit::Bf16, flops, || {
                tiled::linear(bench.isa, &x, m, &packed, &epilogue, &mut out[..m * n / 2]);
            });
        }
    }
}

fn convolutions(bench: &Bench) {
    for (batch, side, channels, outputs, upsample) in [
        (2, 64, 320, 320, 1),
        (2, 64, 640, 320, 1),
        (2, 64, 960, 320, 1),
        (2, 32, 640, 640, 1),
        (2, 32, 1920, 640, 1),
        (2, 16, 1280, 1280, 1),
        (2, 16, 2560, 1280, 1),
        (2, 8, 1280, 1280, 1),
        (2, 32, 640, 640, 2),
        (1, 64, 512, 512, 1),
        (1, 128, 512, 512, 1),
        (1, 256, 256, 256, 1),
        (1, 512, 128, 128, 1),
        (1, 256, 256, 256, 2),
    ] {
        let shape = ConvShape {
            batch,
            height: side,
            width: side,
            channels,
            kernel: 3,
            stride: 1,
            pad_before: 1,
            pad_after: 1,
            upsample,
        };
        let (rows, columns) = shape.output();
        let bytes = f16_weights(outputs * channels * 9);
        let (inputs, outs) = (batch * side * side * channels, batch * rows * columns * outputs);
        let flops = 18.0 * (batch * rows * columns * channels * outputs) as f64;
        let name = format!("conv 3×3 {channels}→{outputs}, {rows}², batch {batch}");
        let (x, mut out) = (random(inputs), Buffer::<f32>::new(outs));
        let packed = PackedMatrix::convolution(f16(&bytes), outputs, channels, 9).expect("packs");
        bench.measure(&name, Unit::F32, flops, || {
            conv2d(bench.isa, &x, shape, &packed, &Epilogue::default(), &mut out);
        });
        let (x, mut out) = (random_bf16(inputs), Buffer::<bf16>::new(outs));
        let packed = tiled::TiledMatrix::convolution(f16(&bytes), outputs, channels, 9).expect("packs");
        let epilogue = Epilogue::default();
        bench.measure(&name, Unit::Bf16, flops, || {
            tiled::conv2d(bench.isa, &x, shape, &packed, &epilogue, &mut out);
        });
    }
}

fn attentions(bench: &Bench) {
    for (batch, heads, head_dim, queries, keys) in [
        (2, 8, 40, 4096, 4096),
        (2, 8, 80, 1024, 1024),
        (2, 8, 160, 256, 256),
        (2, 8, 40, 4096, 77),
        (1, 1, 512, 4096, 4096),
    ] {
        let shape = AttentionShape { batch, heads, head_dim, queries, keys, causal: false };
        let width = heads * head_dim;
        let flops = 4.0 * (batch * width * queries * keys) as f64;
        let name = format!("attention {queries}×{keys}, {heads} heads of {head_dim}, batch {batch}");
        let (q, k) = (random(batch * queries * width), random(batch * keys * width));
        let mut out = Buffer::<f32>::new(q.len());
        bench.measure(&name, Unit::F32, flops, || attention(bench.isa, &q, &k, &k, shape, &mut out));
        let (q, k) = (random_bf16(q.len()), random_bf16(k.len()));
        let mut out = Buffer::<bf16>::new(q.len());
        bench.measure(&name, Unit::Bf16, flops, || tiled::attention(bench.isa, &q, &k, &k, shape, &mut out));
    }
}

fn norms(bench: &Bench) {
    for (batch, positions, channels) in [(2, 4096, 320), (2, 1024, 1280), (1, 512 * 512, 128)] {
        let shape = GroupNormShape { batch, positions, channels, groups: 32, epsilon: 1e-5, silu: true };
        let (x, ones) = (random(batch * positions * channels), vec![1f32; channels]);
        let mut out = Buffer::<f32>::new(x.len());
        let name = format!("group norm + SiLU {batch}×{positions}×{channels}");
        bench.measure(&name, Unit::F32, 0.0, || group_norm(bench.isa, &x, shape, &ones, &ones, &mut out));
        let x = random_bf16(x.len());
        let mut out = Buffer::<bf16>::new(x.len());
        bench.measure(&name, Unit::Bf16, 0.0, || {
            tiled::group_norm(bench.isa, &x, shape, &ones, &ones, &mut out);
        });
    }
    let (x, ones) = (random(8192 * 320), vec![1f32; 320]);
    let mut out = Buffer::<f32>::new(x.len());
    bench.measure("layer norm 8192×320", Unit::F32, 0.0, || {
        layer_norm(bench.isa, &x, &ones, &ones, 1e-5, &mut out);
    });
    let x = random_bf16(x.len());
    let mut out = Buffer::<bf16>::new(x.len());
    bench.measure("layer norm 8192×320", Unit::Bf16, 0.0, || {
        tiled::layer_norm(bench.isa, &x[..], &ones, &ones, 1e-5, &mut out);
    });
    let x = random(8192 * 2560);
    let mut out = Buffer::<f32>::new(x.len() / 2);
    bench.measure("GEGLU 8192×2560", Unit::F32, 0.0, || geglu(bench.isa, &x, 1280, &mut out));
}
