//! Group and layer normalisation.
#![allow(unsafe_code)]

use rayon::prelude::*;

use crate::isa::multiversion;
use crate::lanes::{LANES, Lanes, with_lanes};
use crate::{Isa, elements};

/// Positions whose sums are taken together. Fixed, so that the order of additions never changes.
const POSITIONS: usize = 64;

/// What a group norm normalises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormShape {
    /// Pictures.
    pub batch: usize,
    /// Pixels of one picture.
    pub positions: usize,
    /// Channels, a multiple of `groups`.
    pub channels: usize,
    /// Groups of channels normalised together.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether SiLU follows.
    pub silu: bool,
}

multiversion! {
    fn channel_sums(isa: Isa, x: &[f32], sums: &mut [f64], squares: &mut [f64]) {
        let channels = sums.len();
        for row in x.chunks_exact(channels) {
            for ((x, sum), square) in row.iter().zip(sums.iter_mut()).zip(squares.iter_mut()) {
                let x = f64::from(*x);
                *sum += x;
                *square += x * x;
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]
unsafe fn scale_shift<L: Lanes>(x: &[f32], scale: &[f32], shift: &[f32], silu: bool, out: &mut [f32]) {
    let channels = scale.len();
    for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        for channel in (0..channels).step_by(LANES) {
            let count = LANES.min(channels - channel);
            // SAFETY: `count` channels of this position, the scales and the shifts.
            unsafe {
                let value = L::load(x.as_ptr().add(channel), count);
                let scale = L::load(scale.as_ptr().add(channel), count);
                let mut value = value.mul_add(scale, L::load(shift.as_ptr().add(channel), count));
                if silu {
                    value = value.mul(value.sigmoid_f32(1.0));
                }
                value.store(out.as_mut_ptr().add(channel), count);
            }
        }
    }
}

/// `x (batch, positions, channels)` normalised per picture and group, times `weight` plus `bias` per channel,
/// SiLU if asked. Statistics are taken in f64.
///
/// # Panics
/// If lengths do not fit the shape.
pub fn group_norm(isa: Isa, x: &[f32], shape: GroupNormShape, weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let GroupNormShape { batch, positions, channels, groups, epsilon, silu } = shape;
    assert!(
        groups > 0 && channels > 0 && channels.is_multiple_of(groups),
        "group norm: {channels} / {groups}"
    );
    assert_eq!(x.len(), elements(&[batch, positions, channels]), "group norm: input");
    assert_eq!(out.len(), x.len(), "group norm: output");
    assert!(weight.len() == channels && bias.len() == channels, "group norm: weights");
    if x.is_empty() {
        return;
    }
    let per_group = channels / groups;
    for (x, out) in x.chunks_exact(positions * channels).zip(out.chunks_exact_mut(positions * channels)) {
        let parts: Vec<(Vec<f64>, Vec<f64>)> = x
            .par_chunks(POSITIONS * channels)
            .map(|x| {
                let (mut sums, mut squares) = (vec![0f64; channels], vec![0f64; channels]);
                channel_sums(isa, x, &mut sums, &mut squares);
                (sums, squares)
            })
            .collect();
        let (mut scale, mut shift) = (vec![0f32; channels], vec![0f32; channels]);
        let count = (positions * per_group) as f64;
        for group in 0..groups {
            let range = group * per_group..(group + 1) * per_group;
            let (mut sum, mut squares) = (0f64, 0f64);
            for part in &parts {
                sum += part.0[range.clone()].iter().sum::<f64>();
                squares += part.1[range.clone()].iter().sum::<f64>();
            }
            let mean = sum / count;
            let variance = (squares / count - mean * mean).max(0.0);
            let inverse = 1.0 / (variance + f64::from(epsilon)).sqrt();
            for channel in range {
                let factor = inverse * f64::from(weight[channel]);
                scale[channel] = factor as f32;
                shift[channel] = (f64::from(bias[channel]) - mean * factor) as f32;
            }
        }
        out.par_chunks_mut(POSITIONS * channels).zip(x.par_chunks(POSITIONS * channels)).for_each(
            |(out, x)| {
                // SAFETY: `isa` is one this processor has.
                unsafe {
                    with_lanes!(isa, scale_shift(
                        x: &[f32] = x, scale: &[f32] = &scale, shift: &[f32] = &shift, silu: bool = silu,
                        out: &mut [f32] = out
                    ));
                }
            },
        );
    }
}

/// The sum of `f` over `values`: sixteen f32 lanes, added up in f64.
#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant of its caller")]
fn sum_of(values: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0f32; 16];
    let chunks = values.chunks_exact(lanes.len());
    let rest: f64 = chunks.remainder().iter().map(|x| f64::from(f(*x))).sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f(*x);
        }
    }
    rest + lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>()
}

multiversion! {
    fn layer_norm_rows(isa: Isa, x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        let width = weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = (sum_of(x, |x| x) / width as f64) as f32;
            let variance = sum_of(x, |x| (x - mean) * (x - mean)) / width as f64;
            let inverse = (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32;
            for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = (x - mean) * inverse * weight + bias;
            }
        }
    }
}

/// Each row of `x (rows, width)` to mean 0 and variance 1, times `weight` plus `bias`.
///
/// # Panics
/// If lengths do not fit.
pub fn layer_norm(isa: Isa, x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = weight.len();
    assert!(width > 0 && bias.len() == width, "layer norm: weights");
    assert!(x.len() == out.len() && x.len().is_multiple_of(width), "layer norm: rows of {width}");
    let rows = (4096 / width).max(1);
    out.par_chunks_mut(rows * width)
        .zip(x.par_chunks(rows * width))
        .for_each(|(out, x)| layer_norm_rows(isa, x, weight, bias, epsilon, out));
}
