//! Noise against torch (CPU) and A1111's Philox (NV).
//!
//! NV: f64 arithmetic rounded once to f32, so equal but for a last bit where two libraries' f64 logarithms or
//! sines differ: within 1 ULP. CPU: torch computes logarithm, sine and cosine in f32 with its own vector routines,
//! a few ULP from the exact ones in each of the two factors: within 4 ULP of the larger factor, which near a zero
//! of the sine is an absolute error of 4 · 2⁻²⁴ · radius, radius ≤ 5.8.

use latentd_models::sampling::{NoiseGenerator, NoiseSource, philox_4x32_10};

use crate::golden::Golden;

fn ulp(value: f32) -> f32 {
    f32::from_bits(value.abs().to_bits() + 1) - value.abs()
}

#[track_caller]
fn check(name: &str, source: NoiseSource, found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len(), "{name}");
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let allowed = match source {
            NoiseSource::Nv => ulp(*wanted),
            NoiseSource::Cpu => (4.0 * ulp(*wanted)).max(4.0 * 5.8 / 16_777_216.0),
        };
        assert!((found - wanted).abs() <= allowed, "{name}[{index}]: {found} for {wanted}");
    }
}

#[test]
fn draws_are_torchs() {
    let golden = Golden::open("noise");
    let mut compared = 0;
    for (source, prefix) in NoiseSource::ALL {
        for name in golden.names().filter(|name| name.starts_with(prefix)) {
            let mut parts = name.split('.').skip(1);
            let seed: u64 = parts.next().and_then(|seed| seed.parse().ok()).expect("seed");
            let shape = parts.next().expect("shape");
            if shape == "integers" || shape.starts_with("mixed") {
                continue;
            }
            let draws = golden.get(name).dims()[0];
            let wanted = golden.floats(name);
            let mut generator = NoiseGenerator::new(*source, seed);
            for (draw, wanted) in wanted.chunks_exact(wanted.len() / draws).enumerate() {
                check(&format!("{name}, draw {draw}"), *source, &generator.normal(wanted.len()), wanted);
                compared += wanted.len();
            }
        }
        let mut generator = NoiseGenerator::new(*source, 42);
        for index in 0..6 {
            let name = format!("{prefix}.42.mixed_{index}");
            let wanted = golden.floats(&name);
            check(&name, *source, &generator.normal(wanted.len()), &wanted);
        }
    }
    assert!(compared > 50_000, "only {compared} values were compared");
}

#[test]
fn philox_words_are_the_published_ones() {
    // Random123's known answers (kat_vectors, philox4x32 with 10 rounds).
    let ones = u32::MAX;
    assert_eq!(philox_4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox_4x32_10([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    let key = [0xa409_3822, 0x299f_31d0];
    assert_eq!(philox_4x32_10(pi, key), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    let golden = Golden::open("noise");
    for seed in [0u64, 1, 42, 123_456_789_012, (1 << 32) - 1, (1 << 32) + 5] {
        let wanted = golden.integers(&format!("nv.{seed}.integers"));
        for (element, wanted) in wanted.chunks_exact(4).enumerate() {
            let words = philox_4x32_10([0, 0, element as u32, 0], [seed as u32, (seed >> 32) as u32]);
            assert_eq!(words.map(i64::from), wanted, "seed {seed}, element {element}");
        }
    }
}
