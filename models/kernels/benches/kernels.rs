//! Each kernel at the sizes of SD 1.5's UNet and VAE, with the rate it reaches. `cargo bench -p latentd-kernels`.
#![allow(clippy::print_stdout, missing_docs)]

use std::time::Instant;

use latentd_kernels::{
    AttentionShape, ConvShape, GroupNormShape, Isa, PackedMatrix, WeightDtype, Weights, attention, conv2d,
    geglu, group_norm, linear,
};

fn median(mut run: impl FnMut()) -> f64 {
    run();
    let mut times: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn report(name: &str, flops: f64, seconds: f64) {
    println!("{name:<44} {:>9.2} ms {:>8.1} GFLOP/s", seconds * 1e3, flops / seconds * 1e-9);
}

fn random(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1000) as f32 * 1e-3 - 0.5).collect()
}

fn f16_weights(count: usize) -> Vec<u8> {
    random(count).iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect()
}

fn main() {
    let isa = Isa::current();
    println!("kernels: {}, threads: {}", isa.name(), rayon::current_num_threads());
    for (m, k, n) in
        [(8192, 320, 320), (8192, 320, 2560), (2048, 640, 5120), (512, 1280, 10240), (154, 768, 3072)]
    {
        let (x, bytes) = (random(m * k), f16_weights(n * k));
        let packed =
            PackedMatrix::linear(Weights { dtype: WeightDtype::F16, bytes: &bytes }, n, k).expect("packs");
        let mut out = vec![0f32; m * n];
        let seconds = median(|| linear(isa, &x, m, &packed, None, &mut out));
        report(&format!("linear {m}×{k}×{n}"), 2.0 * (m * k * n) as f64, seconds);
    }
    for (batch, side, channels, outputs, upsample) in [
        (2, 64, 320, 320, 1),
        (2, 64, 960, 320, 1),
        (2, 32, 640, 640, 1),
        (2, 16, 1280, 1280, 1),
        (2, 8, 1280, 1280, 1),
        (2, 32, 640, 640, 2),
        (1, 256, 256, 256, 1),
        (1, 512, 128, 128, 1),
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
        let (x, bytes) = (random(batch * side * side * channels), f16_weights(outputs * channels * 9));
        let weights = Weights { dtype: WeightDtype::F16, bytes: &bytes };
        let packed = PackedMatrix::convolution(weights, outputs, channels, 9).expect("packs");
        let mut out = vec![0f32; batch * rows * columns * outputs];
        let seconds = median(|| conv2d(isa, &x, shape, &packed, None, &mut out));
        let flops = 18.0 * (batch * rows * columns * channels * outputs) as f64;
        report(&format!("conv 3×3 {channels}→{outputs}, {rows}², batch {batch}"), flops, seconds);
    }
    for (batch, heads, head_dim, queries, keys) in [
        (2, 8, 40, 4096, 4096),
        (2, 8, 80, 1024, 1024),
        (2, 8, 160, 256, 256),
        (2, 8, 40, 4096, 77),
        (1, 1, 512, 4096, 4096),
    ] {
        let shape = AttentionShape { batch, heads, head_dim, queries, keys, causal: false };
        let width = heads * head_dim;
        let (q, k) = (random(batch * queries * width), random(batch * keys * width));
        let mut out = vec![0f32; q.len()];
        let seconds = median(|| attention(isa, &q, &k, &k, shape, &mut out));
        let flops = 4.0 * (batch * width * queries * keys) as f64;
        report(
            &format!("attention {queries}×{keys}, {heads} heads of {head_dim}, batch {batch}"),
            flops,
            seconds,
        );
    }
    let shape =
        GroupNormShape { batch: 2, positions: 4096, channels: 320, groups: 32, epsilon: 1e-5, silu: true };
    let (x, ones) = (random(2 * 4096 * 320), vec![1f32; 320]);
    let mut out = vec![0f32; x.len()];
    report(
        "group norm + SiLU 2×4096×320",
        0.0,
        median(|| group_norm(isa, &x, shape, &ones, &ones, &mut out)),
    );
    let x = random(2 * 4096 * 2560);
    let mut out = vec![0f32; x.len() / 2];
    report("GEGLU 2×4096×2560", 0.0, median(|| geglu(isa, &x, 1280, &mut out)));
}
