//! SPAN: attention without parameters, for speed.
//!
//! Source: Wan et al. 2023, "Swift Parameter-free Attention Network for Efficient Super-Resolution"; github.com/hongyuanyu/SPAN.
//! Files have each convolution as the four that it was trained as; they are made one here, and an `eval_conv` that stands beside
//! them is not believed. A tensor `no_norm` says that colours come in as they are.

use super::kind::{Facts, UpscalerNetwork};
use super::picture::{Bringing, MEAN};
use super::shuffled::shuffled_scale;
use crate::error::Result;
use crate::files::Tensors;
use crate::networks::detect::dim;
use crate::nn::{
    Activation, Activations, Conv2d, ConvConfig, Device, Epilogue, Loader, Pointwise, Run, add, cat_channels,
    multiply, pixel_shuffle,
};

/// Blocks; there is no other number of them.
const BLOCKS: usize = 6;

/// How many times as wide convolutions are while they are trained.
const GAIN: usize = 2;

/// What colours are multiplied by.
const RANGE: f32 = 255.0;

/// What can be told from the tensors.
pub(in crate::networks) struct Config {
    inputs: usize,
    outputs: usize,
    width: usize,
    scale: usize,
    normed: bool,
}

/// The network.
pub(in crate::networks) struct Span {
    first: Conv2d,
    blocks: Vec<[Conv2d; 3]>,
    second: Conv2d,
    joined: Conv2d,
    last: Conv2d,
    scale: usize,
}

/// A convolution that was trained as 1×1, 3×3 and 1×1 in a row and a 1×1 beside them.
fn convolution(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> Result<Conv2d> {
    let (early, late) = (GAIN * inputs, GAIN * outputs);
    let numbers = |part: &str, shape: &[usize]| loader.numbers(&format!("{name}.{part}"), shape);
    let (beside, beside_bias) =
        (numbers("sk.weight", &[outputs, inputs, 1, 1])?, numbers("sk.bias", &[outputs])?);
    let (first, first_bias) =
        (numbers("conv.0.weight", &[early, inputs, 1, 1])?, numbers("conv.0.bias", &[early])?);
    let (middle, middle_bias) =
        (numbers("conv.1.weight", &[late, early, 3, 3])?, numbers("conv.1.bias", &[late])?);
    let (last, last_bias) =
        (numbers("conv.2.weight", &[outputs, late, 1, 1])?, numbers("conv.2.bias", &[outputs])?);
    let taps = 9;
    let config = ConvConfig::same(inputs, outputs);
    let (mut weight, mut bias) = (Vec::with_capacity(outputs * inputs * taps), Vec::with_capacity(outputs));
    if loader.device().computes() {
        for output in 0..outputs {
            // The last two as one: (early, taps).
            let mut later = vec![0.0_f64; early * taps];
            let mut of_output = f64::from(last_bias[output]) + f64::from(beside_bias[output]);
            for (wide, middle) in middle.chunks_exact(early * taps).enumerate() {
                let share = f64::from(last[output * late + wide]);
                later.iter_mut().zip(middle).for_each(|(sum, value)| *sum += share * f64::from(*value));
                of_output += share * f64::from(middle_bias[wide]);
            }
            for (of_early, taps) in first_bias.iter().zip(later.chunks_exact(taps)) {
                of_output += f64::from(*of_early) * taps.iter().sum::<f64>();
            }
            bias.push(of_output as f32);
            for input in 0..inputs {
                for tap in 0..taps {
                    let parts =
                        (0..early).map(|e| later[e * taps + tap] * f64::from(first[e * inputs + input]));
                    let middle =
                        if tap == taps / 2 { f64::from(beside[output * inputs + input]) } else { 0.0 };
                    weight.push((parts.sum::<f64>() + middle) as f32);
                }
            }
        }
    }
    Conv2d::of_numbers(loader, name, config, &weight, bias)
}

impl UpscalerNetwork for Span {
    const KIND: &'static str = "span";

    type Config = Config;

    fn is_in(file: &Tensors, prefix: &str) -> bool {
        ["conv_1.sk.weight", "block_1.c1_r.sk.weight", "upsampler.0.weight"]
            .iter()
            .all(|name| file.shape(&format!("{prefix}{name}")).is_some())
    }

    fn config(file: &Tensors, prefix: &str) -> Result<Config> {
        let size = |index: usize| dim(file, &format!("{prefix}conv_1.sk.weight"), index);
        let inputs = size(1)?;
        let (scale, outputs) = shuffled_scale(file, &format!("{prefix}upsampler.0.weight"), inputs)?;
        let normed = file.shape(&format!("{prefix}no_norm")).is_none();
        Ok(Config { inputs, outputs, width: size(0)?, scale, normed })
    }

    fn facts(config: &Config) -> Facts {
        let Config { scale, inputs, outputs, normed, .. } = *config;
        let normal = Bringing { mean: MEAN, range: RANGE, ..Bringing::PLAIN };
        Facts { scale, inputs, outputs, bringing: if normed { normal } else { Bringing::PLAIN } }
    }

    fn load(loader: &Loader, prefix: &str, config: &Config) -> Result<Self> {
        let Config { inputs, outputs, width, scale, .. } = *config;
        let named = |name: &str| format!("{prefix}{name}");
        let inner = |name: &str| convolution(loader, &named(name), width, width);
        let part = |block: usize, part: usize| inner(&format!("block_{block}.c{part}_r"));
        let alone =
            ConvConfig { kernel: 1, pad_before: 0, pad_after: 0, ..ConvConfig::same(4 * width, width) };
        let last = ConvConfig::same(width, outputs * scale * scale);
        Ok(Self {
            first: convolution(loader, &named("conv_1"), inputs, width)?,
            blocks: (1..=BLOCKS)
                .map(|block| Ok([part(block, 1)?, part(block, 2)?, part(block, 3)?]))
                .collect::<Result<_>>()?,
            second: inner("conv_2")?,
            joined: Conv2d::load(loader, &named("conv_cat"), alone)?,
            last: Conv2d::load_shuffled(loader, &named("upsampler.0"), last, scale)?,
            scale,
        })
    }

    fn may_be_left(name: &str) -> bool {
        name == "no_norm" || name.contains(".eval_conv.")
    }

    fn forward(&self, x: Activations, device: &Device, run: &Run) -> Result<Activations> {
        run.enter(device, format_args!("span.first"))?;
        let first = self.first.forward(&device.convert(&x, self.first.precision())?)?;
        let silu = Epilogue { activation: Activation::Silu, ..Epilogue::default() };
        let (mut h, mut of_first, mut within) = (first.clone(), None, None);
        for (index, [one, two, three]) in self.blocks.iter().enumerate() {
            run.enter(device, format_args!("span.{index}"))?;
            let inner = one.forward_with(&h, &silu)?;
            let made = three.forward(&two.forward_with(&inner, &silu)?)?;
            let sum = add(device, &made, &h)?;
            // Times how far its sigmoid is from the middle.
            let share = device.pointwise(&made, Pointwise::Sigmoid)?;
            h = device.blend((&multiply(device, &sum, &share)?, 1.0, None), Some((&sum, -0.5, None)))?;
            of_first.get_or_insert_with(|| h.clone());
            within = Some(inner);
        }
        run.enter(device, format_args!("span.last"))?;
        let mut all = cat_channels(device, &first, &self.second.forward(&h)?)?;
        for part in [of_first, within].into_iter().flatten() {
            all = cat_channels(device, &all, &part)?;
        }
        let made = self.last.forward_with(&self.joined.forward(&all)?, &Epilogue::widened())?;
        pixel_shuffle(device, &made, self.scale)
    }
}
