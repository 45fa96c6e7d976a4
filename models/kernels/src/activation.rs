//! Pointwise functions. Plain arithmetic that vectorises; the same bits on every code path.

use rayon::prelude::*;

use crate::Isa;
use crate::isa::multiversion;

/// Values handled by one task.
const CHUNK: usize = 1 << 14;

/// e^x within 2 ulp; 0 below −87.3, e^88.3 above 88.3, NaN for NaN.
#[inline]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer
    let clamped = x.clamp(-87.3, 88.3);
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, so that the difference is exact
    let r = clamped - n * 0.693_359_375 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let value = p * (r * r) + r + 1.0;
    // A convert to i32 saturates in Rust and would not vectorise; the rounded sum's bits hold n already.
    let n = (n + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
    let scaled = f32::from_bits(value.to_bits().wrapping_add(n << 23));
    let value = if x < -87.3 { 0.0 } else { scaled };
    if x.is_nan() { x } else { value }
}

/// The error function within 3 ulp: a rational approximation on [−4, 4].
#[inline]
pub fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let x2 = x * x;
    let p = -2.726_142_3e-10;
    let p = p * x2 + 2.770_681_4e-8;
    let p = p * x2 + -2.101_024e-6;
    let p = p * x2 + -5.692_506_4e-5;
    let p = p * x2 + -7.349_906_3e-4;
    let p = p * x2 + -2.954_599_8e-3;
    let p = p * x2 + -1.609_603_3e-2;
    let q = -1.456_607_2e-5;
    let q = q * x2 + -2.133_740_6e-4;
    let q = q * x2 + -1.682_827e-3;
    let q = q * x2 + -7.373_329e-3;
    let q = q * x2 + -1.426_473_9e-2;
    x * p / q
}

/// 1 / (1 + e^−x).
#[inline]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x · Φ(x), the exact form.
#[inline]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

multiversion! {
    pub(crate) fn silu_chunk(isa: Isa, values: &mut [f32]) {
        for value in values {
            *value *= sigmoid(*value);
        }
    }
}

multiversion! {
    pub(crate) fn quick_gelu_chunk(isa: Isa, values: &mut [f32]) {
        for value in values {
            *value *= sigmoid(1.702 * *value);
        }
    }
}

multiversion! {
    pub(crate) fn geglu_row(isa: Isa, value: &[f32], gate: &[f32], out: &mut [f32]) {
        for ((out, value), gate) in out.iter_mut().zip(value).zip(gate) {
            *out = value * gelu(*gate);
        }
    }
}

/// `x · sigmoid(x)` in place.
pub fn silu(isa: Isa, values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| silu_chunk(isa, chunk));
}
