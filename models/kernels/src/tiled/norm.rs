//! Group and layer norm of bf16 activations, statistics in f32 and f64.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use crate::lanes::{Element, LANES, Lanes, with_lanes};
use crate::{GroupNormShape, Isa};

/// Positions whose sums are taken together in f32. Fixed, so that the order of additions never changes.
const POSITIONS: usize = 64;

/// A group norm of known activations as what it does to them: `x · scale + shift` per picture and channel, then SiLU
/// where it follows.
pub struct ChannelScales {
    channels: usize,
    /// `(batch, channels)`
    scale: Vec<f32>,
    /// `(batch, channels)`
    shift: Vec<f32>,
    silu: bool,
}

impl ChannelScales {
    /// That of `x (batch, positions, channels)` normalised per picture and group, times `weight` plus `bias` per
    /// channel.
    ///
    /// # Panics
    /// If lengths do not fit the shape.
    pub fn group_norm(isa: Isa, x: &[bf16], shape: GroupNormShape, weight: &[f32], bias: &[f32]) -> Self {
        let GroupNormShape { batch, positions, channels, groups, epsilon, silu } = shape;
        assert!(
            groups > 0 && channels > 0 && channels.is_multiple_of(groups),
            "group norm: {channels} / {groups}"
        );
        assert_eq!(x.len(), crate::elements(&[batch, positions, channels]), "group norm: input");
        assert!(weight.len() == channels && bias.len() == channels, "group norm: weights");
        let mut scales = Self { channels, scale: vec![], shift: vec![], silu };
        let count = (positions * channels / groups) as f64;
        for x in x.chunks_exact((positions * channels).max(1)) {
            let (sums, squares) = group_sums(isa, x, channels, groups);
            for channel in 0..channels {
                let group = channel / (channels / groups);
                let mean = sums[group] / count;
                let variance = (squares[group] / count - mean * mean).max(0.0);
                let factor = f64::from(weight[channel]) / (variance + f64::from(epsilon)).sqrt();
                scales.scale.push(factor as f32);
                scales.shift.push((f64::from(bias[channel]) - mean * factor) as f32);
            }
        }
        scales
    }

    /// Whether it is of this many pictures with this many channels.
    pub(crate) fn fits(&self, batch: usize, channels: usize) -> bool {
        self.channels == channels && self.scale.len() == batch * channels
    }

    /// Whole positions of one picture, from the first channel on or fewer than all: `channels` of them to `to`.
    pub(crate) fn apply(
        &self,
        isa: Isa,
        image: usize,
        channels: Range<usize>,
        from: &[bf16],
        to: &mut [bf16],
    ) {
        let first = image * self.channels;
        let range = first + channels.start..first + channels.end;
        let (scale, shift) = (&self.scale[range.clone()], &self.shift[range]);
        // SAFETY: `isa` is one this processor has.
        unsafe {
            with_lanes!(isa, scale_shift(
                x: &[bf16] = from, scale: &[f32] = scale, shift: &[f32] = shift, silu: bool = self.silu,
                out: &mut [bf16] = to
            ));
        }
    }
}

/// `x (batch, positions, channels)` normalised per picture and group, times `weight` plus `bias` per channel, then
/// SiLU where the shape says so.
///
/// # Panics
/// If lengths do not fit the shape.
pub fn group_norm(
    isa: Isa,
    x: &[bf16],
    shape: GroupNormShape,
    weight: &[f32],
    bias: &[f32],
    out: &mut [bf16],
) {
    let scales = ChannelScales::group_norm(isa, x, shape, weight, bias);
    scale(isa, x, &scales, out);
}

/// Activations as their norm makes them.
pub(crate) fn scale(isa: Isa, x: &[bf16], scales: &ChannelScales, out: &mut [bf16]) {
    assert_eq!(out.len(), x.len(), "group norm: output");
    let channels = scales.channels;
    let image = (x.len() * channels / scales.scale.len().max(1)).max(1);
    for (index, (x, out)) in x.chunks_exact(image).zip(out.chunks_exact_mut(image)).enumerate() {
        out.par_chunks_mut(POSITIONS * channels).zip(x.par_chunks(POSITIONS * channels)).for_each(
            |(out, x)| {
                scales.apply(isa, index, 0..channels, x, out);
            },
        );
    }
}

/// One picture's sums and sums of squares of each group.
fn group_sums(isa: Isa, x: &[bf16], channels: usize, groups: usize) -> (Vec<f64>, Vec<f64>) {
    let parts: Vec<Vec<f32>> = x
        .par_chunks(POSITIONS * channels)
        .map(|x| {
            let mut sums = vec![0f32; 2 * channels];
            // SAFETY: `isa` is one this processor has.
            unsafe { with_lanes!(isa, channel_sums(x: &[bf16] = x, sums: &mut [f32] = &mut sums)) };
            sums
        })
        .collect();
    let per_group = channels / groups;
    let total = |first: usize| {
        let part =
            |part: &Vec<f32>| part[first..first + per_group].iter().map(|x| f64::from(*x)).sum::<f64>();
        parts.iter().map(part).sum::<f64>()
    };
    let of_all = |offset: usize| (0..groups).map(|group| total(offset + group * per_group)).collect();
    (of_all(0), of_all(channels))
}

/// Adds up each channel, and its squares behind them.
#[inline(always)]
unsafe fn channel_sums<L: Lanes>(x: &[bf16], sums: &mut [f32]) {
    let channels = sums.len() / 2;
    for channel in (0..channels).step_by(LANES) {
        let count = LANES.min(channels - channel);
        // SAFETY: `count` channels of each position, and of both halves of the sums.
        unsafe {
            let (mut sum, mut squares) = (L::splat(0.0), L::splat(0.0));
            for position in x.chunks_exact(channels) {
                let value = L::load_bf16(position.as_ptr().add(channel), count);
                sum = sum.add(value);
                squares = value.mul_add(value, squares);
            }
            sum.store(sums.as_mut_ptr().add(channel), count);
            squares.store(sums.as_mut_ptr().add(channels + channel), count);
        }
    }
}

#[inline(always)]
unsafe fn scale_shift<L: Lanes>(x: &[bf16], scale: &[f32], shift: &[f32], silu: bool, out: &mut [bf16]) {
    let channels = scale.len();
    for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        for channel in (0..channels).step_by(LANES) {
            let count = LANES.min(channels - channel);
            // SAFETY: `count` channels of this position, the scales and the shifts.
            unsafe {
                let value = L::load_bf16(x.as_ptr().add(channel), count);
                let scale = L::load(scale.as_ptr().add(channel), count);
                let mut value = value.mul_add(scale, L::load(shift.as_ptr().add(channel), count));
                if silu {
                    value = value.mul(value.sigmoid(1.0));
                }
                value.store_bf16(out.as_mut_ptr().add(channel), count);
            }
        }
    }
}

/// Each row of `x (rows, width)` to mean 0 and variance 1, times `weight` plus `bias`.
///
/// # Panics
/// If lengths do not fit.
pub fn layer_norm<X: Element>(
    isa: Isa,
    x: &[X],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    out: &mut [bf16],
) {
    let width = weight.len();
    assert!(width > 0 && bias.len() == width, "layer norm: weights");
    assert!(x.len() == out.len() && x.len().is_multiple_of(width), "layer norm: rows of {width}");
    let rows = (16384 / width).max(1);
    out.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).for_each(|(out, x)| {
        // SAFETY: `isa` is one this processor has.
        unsafe {
            with_lanes!(isa, layer_norm_rows<X>(
                x: &[X] = x, weight: &[f32] = weight, bias: &[f32] = bias, epsilon: f32 = epsilon,
                out: &mut [bf16] = out
            ));
        }
    });
}

#[inline(always)]
unsafe fn layer_norm_rows<L: Lanes, X: Element>(
    x: &[X],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    out: &mut [bf16],
) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        // SAFETY: at most `width` values from each row's start.
        unsafe {
            let read = |at: usize| X::read::<L>(x.as_ptr().add(at), LANES.min(width - at));
            let mut lanes = [0f32; LANES];
            let mut sum = L::splat(0.0);
            for at in (0..width).step_by(LANES) {
                sum = sum.add(read(at));
            }
            sum.store(lanes.as_mut_ptr(), LANES);
            let mean = (lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() / width as f64) as f32;
            // Lanes beyond the row count as the mean.
            let mut sum = L::splat(0.0);
            for at in (0..width).step_by(LANES) {
                let count = LANES.min(width - at);
                let mut row = L::splat(mean);
                if count == LANES {
                    row = read(at);
                } else {
                    row.store(lanes.as_mut_ptr(), LANES);
                    read(at).store(lanes.as_mut_ptr(), count);
                    row = L::load(lanes.as_ptr(), LANES);
                }
                let difference = row.sub(L::splat(mean));
                sum = difference.mul_add(difference, sum);
            }
            sum.store(lanes.as_mut_ptr(), LANES);
            let variance = lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() / width as f64;
            let inverse = (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32;
            for at in (0..width).step_by(LANES) {
                let count = LANES.min(width - at);
                let value = read(at).sub(L::splat(mean)).mul(L::splat(inverse));
                let weight = L::load(weight.as_ptr().add(at), count);
                let value = value.mul_add(weight, L::load(bias.as_ptr().add(at), count));
                value.store_bf16(out.as_mut_ptr().add(at), count);
            }
        }
    }
}
