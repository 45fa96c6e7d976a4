//! What DAT computes beside products and convolutions, on the host in f32: convolutions of each channel by itself, attention between
//! channels, and what the two ways of a block tell each other. Rows are pixels, with their channels side by side.

use rayon::prelude::*;

use crate::error::Result;
use crate::nn::Loader;

/// Added to variances, as torch's norms have it.
const EPSILON: f32 = 1e-5;

/// Rows whose products are added up in f32 before they are in f64.
const CHUNK: usize = 256;

/// Rows of one task.
const TASK: usize = 64;

/// Sizes of what is looked at: pictures, their rows and columns.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
}

impl Extent {
    pub(super) fn pixels(self) -> usize {
        self.height * self.width
    }
}

fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    (x * 0.5 * libm_erfc(-x / std::f64::consts::SQRT_2)) as f32
}

/// The complementary error function, within 2e-7 (Numerical Recipes' rational Chebyshev fit has 1.2e-7).
fn libm_erfc(x: f64) -> f64 {
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.5 * z);
    let fit = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let sum = fit.iter().rev().fold(0.0, |sum, value| sum * t + value);
    let value = t * (sum - z * z).exp();
    if x >= 0.0 { value } else { 2.0 - value }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// What a batch norm multiplies a channel by, and adds to it then.
fn batch_norm(loader: &Loader, name: &str, channels: usize) -> Result<Vec<(f32, f32)>> {
    let numbers = |part: &str| loader.numbers(&format!("{name}.{part}"), &[channels]);
    let (weight, bias) = (numbers("weight")?, numbers("bias")?);
    let (mean, variance) = (numbers("running_mean")?, numbers("running_var")?);
    let each = weight.iter().zip(&bias).zip(mean.iter().zip(&variance));
    let each = each.map(|((weight, bias), (mean, variance))| {
        let factor = weight / (variance + EPSILON).sqrt();
        (factor, bias - mean * factor)
    });
    Ok(each.collect())
}

/// A 3×3 convolution of each channel by itself.
pub(super) struct Depthwise {
    channels: usize,
    /// `(9, channels)`.
    taps: Vec<f32>,
    bias: Vec<f32>,
}

impl Depthwise {
    /// Tensors `{name}.weight (channels, 1, 3, 3)` and `{name}.bias`.
    pub(super) fn load(loader: &Loader, name: &str, channels: usize) -> Result<Self> {
        let weight = loader.numbers(&format!("{name}.weight"), &[channels, 1, 3, 3])?;
        let bias = loader.numbers(&format!("{name}.bias"), &[channels])?;
        let taps = (0..9 * channels).map(|at| weight[at % channels * 9 + at / channels]).collect();
        Ok(Self { channels, taps, bias })
    }

    /// With a batch norm that follows.
    pub(super) fn normed(mut self, loader: &Loader, name: &str) -> Result<Self> {
        for (channel, (factor, more)) in batch_norm(loader, name, self.channels)?.into_iter().enumerate() {
            self.taps.iter_mut().skip(channel).step_by(self.channels).for_each(|tap| *tap *= factor);
            self.bias[channel] = self.bias[channel] * factor + more;
        }
        Ok(self)
    }

    /// Of the channels from `first` on of rows of `all` → rows of its own channels.
    pub(super) fn forward(&self, x: &[f32], extent: Extent, all: usize, first: usize) -> Vec<f32> {
        let Extent { height, width, .. } = extent;
        let channels = self.channels;
        let mut out = vec![0.0; extent.batch * extent.pixels() * channels];
        out.par_chunks_mut(width * channels).enumerate().for_each(|(line, out)| {
            let (picture, y) = (line / height, line % height);
            for (column, out) in out.chunks_exact_mut(channels).enumerate() {
                out.copy_from_slice(&self.bias);
                for (tap, taps) in self.taps.chunks_exact(channels).enumerate() {
                    let (Some(row), Some(place)) =
                        ((y + tap / 3).checked_sub(1), (column + tap % 3).checked_sub(1))
                    else {
                        continue;
                    };
                    if row >= height || place >= width {
                        continue;
                    }
                    let at = ((picture * height + row) * width + place) * all + first;
                    let values = x[at..][..channels].iter().zip(taps);
                    out.iter_mut().zip(values).for_each(|(sum, (value, tap))| *sum += value * tap);
                }
            }
        });
        out
    }
}

/// GELU of each.
pub(super) fn gelu_all(values: &mut [f32]) {
    values
        .par_chunks_mut(TASK * 64)
        .for_each(|chunk| chunk.iter_mut().for_each(|value| *value = gelu(*value)));
}

/// A layer norm, kept on the host.
pub(super) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Norm {
    pub(super) fn load(loader: &Loader, name: &str, width: usize) -> Result<Self> {
        let numbers = |part: &str| loader.numbers(&format!("{name}.{part}"), &[width]);
        Ok(Self { weight: numbers("weight")?, bias: numbers("bias")? })
    }

    pub(super) fn apply(&self, row: &mut [f32]) {
        let count = row.len() as f64;
        let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let variance = row.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
        let factor = 1.0 / (variance + f64::from(EPSILON)).sqrt();
        for (value, (weight, bias)) in row.iter_mut().zip(self.weight.iter().zip(&self.bias)) {
            *value = ((f64::from(*value) - mean) * factor) as f32 * weight + bias;
        }
    }
}

/// The first half of the channels of `x`, each times what a convolution makes of the second half after a norm.
pub(super) fn gated(x: &[f32], extent: Extent, norm: &Norm, convolution: &Depthwise) -> Vec<f32> {
    let half = convolution.channels;
    let mut second = vec![0.0; x.len() / 2];
    second.par_chunks_mut(TASK * half).zip(x.par_chunks(TASK * 2 * half)).for_each(|(to, from)| {
        for (to, from) in to.chunks_exact_mut(half).zip(from.chunks_exact(2 * half)) {
            to.copy_from_slice(&from[half..]);
            norm.apply(to);
        }
    });
    let mut made = convolution.forward(&second, extent, half, 0);
    made.par_chunks_mut(TASK * half).zip(x.par_chunks(TASK * 2 * half)).for_each(|(to, from)| {
        for (to, from) in to.chunks_exact_mut(half).zip(from.chunks_exact(2 * half)) {
            to.iter_mut().zip(from).for_each(|(value, first)| *value *= first);
        }
    });
    made
}

/// Attention between the channels of each head over all pixels: rows `(3 · channels)` of queries, keys and values → rows of
/// channels. Queries and keys are of length 1 over the pixels; `temperature` is a number for each head.
pub(super) fn attention_of_channels(
    qkv: &[f32],
    extent: Extent,
    channels: usize,
    temperature: &[f32],
) -> Vec<f32> {
    let (pixels, width) = (extent.pixels(), channels / temperature.len().max(1));
    let of_picture = |picture: usize| &qkv[picture * pixels * 3 * channels..][..pixels * 3 * channels];
    let heads = temperature.len();
    // (batch, heads, width, width)
    let weights: Vec<Vec<f32>> = (0..extent.batch * heads)
        .into_par_iter()
        .map(|at| {
            weights(of_picture(at / heads), channels, at % heads * width, width, temperature[at % heads])
        })
        .collect();
    let mut out = vec![0.0; extent.batch * pixels * channels];
    out.par_chunks_mut(channels).with_min_len(TASK).enumerate().for_each(|(row, out)| {
        let (picture, pixel) = (row / pixels, row % pixels);
        let values = &of_picture(picture)[pixel * 3 * channels + 2 * channels..][..channels];
        for (head, (out, values)) in out.chunks_exact_mut(width).zip(values.chunks_exact(width)).enumerate() {
            for (out, weights) in out.iter_mut().zip(weights[picture * heads + head].chunks_exact(width)) {
                *out = weights.iter().zip(values).map(|(weight, value)| weight * value).sum();
            }
        }
    });
    out
}

/// Of one head of one picture.
fn weights(rows: &[f32], channels: usize, first: usize, width: usize, temperature: f32) -> Vec<f32> {
    let mut products = vec![0.0_f64; width * width];
    let (mut q_squares, mut k_squares) = (vec![0.0_f64; width], vec![0.0_f64; width]);
    let mut sums = vec![0.0_f32; width * width];
    for chunk in rows.chunks(CHUNK * 3 * channels) {
        sums.fill(0.0);
        for row in chunk.chunks_exact(3 * channels) {
            let (q, k) = (&row[first..][..width], &row[channels + first..][..width]);
            for (sums, q) in sums.chunks_exact_mut(width).zip(q) {
                sums.iter_mut().zip(k).for_each(|(sum, k)| *sum += q * k);
            }
            q_squares.iter_mut().zip(q).for_each(|(sum, q)| *sum += f64::from(*q).powi(2));
            k_squares.iter_mut().zip(k).for_each(|(sum, k)| *sum += f64::from(*k).powi(2));
        }
        products.iter_mut().zip(&sums).for_each(|(product, sum)| *product += f64::from(*sum));
    }
    let length = |square: f64| square.sqrt().max(1e-12);
    let mut weights = Vec::with_capacity(width * width);
    for (products, q) in products.chunks_exact(width).zip(&q_squares) {
        let scores = products.iter().zip(&k_squares);
        let scores: Vec<f64> =
            scores.map(|(product, k)| product / length(*q) / length(*k) * f64::from(temperature)).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
        weights.extend(scores.iter().map(|score| ((score - most).exp() / total) as f32));
    }
    weights
}

/// A 1×1 convolution, a batch norm, GELU and another 1×1 convolution, of one row.
struct Narrow {
    inputs: usize,
    /// `(hidden, inputs)`, normed.
    first: Vec<f32>,
    first_bias: Vec<f32>,
    /// `(outputs, hidden)`.
    last: Vec<f32>,
    last_bias: Vec<f32>,
}

impl Narrow {
    /// Tensors `{name}.{at}…`, `{name}.{at + 1}…`, `{name}.{at + 3}…`.
    fn load(
        loader: &Loader,
        name: &str,
        at: usize,
        (inputs, hidden, outputs): (usize, usize, usize),
    ) -> Result<Self> {
        let numbers = |index: usize, part: &str, shape: &[usize]| {
            loader.numbers(&format!("{name}.{index}.{part}"), shape)
        };
        let mut first = numbers(at, "weight", &[hidden, inputs, 1, 1])?;
        let mut first_bias = numbers(at, "bias", &[hidden])?;
        let norm = batch_norm(loader, &format!("{name}.{}", at + 1), hidden)?;
        for ((row, bias), (factor, more)) in first.chunks_exact_mut(inputs).zip(&mut first_bias).zip(norm) {
            for weight in row.iter_mut() {
                *weight *= factor;
            }
            *bias = *bias * factor + more;
        }
        let last = numbers(at + 3, "weight", &[outputs, hidden, 1, 1])?;
        Ok(Self { inputs, first, first_bias, last, last_bias: numbers(at + 3, "bias", &[outputs])? })
    }

    fn forward(&self, row: &[f32], hidden: &mut Vec<f32>) -> impl Iterator<Item = f32> {
        let product = |weights: &[f32], values: &[f32]| -> f32 {
            weights.iter().zip(values).map(|(weight, value)| weight * value).sum()
        };
        hidden.clear();
        let inner = self.first.chunks_exact(self.inputs).zip(&self.first_bias);
        hidden.extend(inner.map(|(weights, bias)| gelu(product(weights, row) + bias)));
        let outer = self.last.chunks_exact(hidden.len().max(1)).zip(&self.last_bias);
        outer.map(move |(weights, bias)| product(weights, hidden) + bias)
    }
}

/// What the way of attention and that of a convolution tell each other: how much of each channel, and of each pixel, counts.
pub(super) struct Interaction {
    channels: usize,
    of_channels: Narrow,
    of_pixels: Narrow,
}

impl Interaction {
    pub(super) fn load(loader: &Loader, name: &str, channels: usize) -> Result<Self> {
        let named = |part: &str| format!("{name}.{part}");
        let of_channels =
            Narrow::load(loader, &named("channel_interaction"), 1, (channels, channels / 8, channels))?;
        let of_pixels = Narrow::load(loader, &named("spatial_interaction"), 0, (channels, channels / 16, 1))?;
        Ok(Self { channels, of_channels, of_pixels })
    }

    /// `by_channels`, each channel by how much the mean of `by_pixels` says, plus `by_pixels`, each pixel by how much that of
    /// `by_channels` says.
    pub(super) fn joined(&self, mut by_channels: Vec<f32>, by_pixels: &[f32], extent: Extent) -> Vec<f32> {
        let (pixels, channels) = (extent.pixels(), self.channels);
        let shares: Vec<Vec<f32>> = by_pixels
            .par_chunks_exact((pixels * channels).max(1))
            .map(|picture| {
                let mut sums = vec![0.0_f64; channels];
                for row in picture.chunks_exact(channels) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                let mean: Vec<f32> = sums.iter().map(|sum| (sum / pixels as f64) as f32).collect();
                self.of_channels.forward(&mean, &mut vec![]).map(sigmoid).collect()
            })
            .collect();
        let rows = by_channels.par_chunks_mut(channels).with_min_len(TASK).enumerate();
        rows.zip(by_pixels.par_chunks(channels)).for_each_init(Vec::new, |hidden, ((row, to), other)| {
            let share = self.of_pixels.forward(to, hidden).next().map_or(1.0, sigmoid);
            for ((value, of_channel), other) in to.iter_mut().zip(&shares[row / pixels]).zip(other) {
                *value = *value * of_channel + other * share;
            }
        });
        by_channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_exact_enough() {
        for (x, expected) in
            [(0.0, 0.0), (1.0, 0.841_344_75), (-1.0, -0.158_655_25), (3.0, 2.995_950_2), (-3.0, -0.004_049_7)]
        {
            assert!((gelu(x) - expected).abs() < 2e-6, "{x}: {}", gelu(x));
        }
    }
}
