//! `ResNet`s of bottlenecks, as torchvision has them since 1.5: of which features of three sizes are wanted.
//!
//! Source: He et al. 2016, "Deep Residual Learning for Image Recognition".

use rayon::prelude::*;

use super::parts::{alone, normed};
use crate::error::Result;
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::nn::{Activation, Activations, Conv2d, ConvConfig, Device, Epilogue, Loader, Precision, Run};

/// Groups of blocks.
const GROUPS: usize = 4;

/// What can be told from the tensors.
pub(super) struct Config {
    /// Channels of the first convolution.
    first: usize,
    /// Of each group: blocks, channels within and channels that come out.
    groups: Vec<(usize, usize, usize)>,
}

impl Config {
    /// Of the tensors after a prefix.
    pub(super) fn detect(file: &Tensors, prefix: &str) -> Result<Self> {
        let size = |name: &str| dim(file, &format!("{prefix}{name}.weight"), 0);
        let group = |group: usize| {
            let name = format!("layer{group}");
            let blocks = count(file, |block| format!("{prefix}{name}.{block}."));
            Ok((blocks, size(&format!("{name}.0.conv1"))?, size(&format!("{name}.0.conv3"))?))
        };
        Ok(Self { first: size("conv1")?, groups: (1..=GROUPS).map(group).collect::<Result<_>>()? })
    }

    /// Channels of the three last groups.
    pub(super) fn outputs(&self) -> Vec<usize> {
        self.groups.iter().skip(1).map(|(_, _, outputs)| *outputs).collect()
    }
}

/// Three convolutions and a way around.
struct Bottleneck {
    convolutions: [Conv2d; 3],
    around: Option<Conv2d>,
}

impl Bottleneck {
    fn load(
        loader: &Loader,
        name: &str,
        (inputs, within, outputs): (usize, usize, usize),
        stride: usize,
        is_first: bool,
    ) -> Result<Self> {
        let part = |index: usize, config| {
            normed(loader, &format!("{name}.conv{index}"), &format!("{name}.bn{index}"), config)
        };
        let around = || {
            let config = ConvConfig { stride, ..alone(inputs, outputs) };
            normed(loader, &format!("{name}.downsample.0"), &format!("{name}.downsample.1"), config)
        };
        Ok(Self {
            convolutions: [
                part(1, alone(inputs, within))?,
                part(2, ConvConfig { stride, ..ConvConfig::same(within, within) })?,
                part(3, alone(within, outputs))?,
            ],
            around: is_first.then(around).transpose()?,
        })
    }

    fn forward(&self, x: &Activations) -> Result<Activations> {
        let positive = Epilogue { activation: Activation::Relu, ..Epilogue::default() };
        let [first, second, third] = &self.convolutions;
        let h = second.forward_with(&first.forward_with(x, &positive)?, &positive)?;
        let around = self.around.as_ref().map(|around| around.forward(x)).transpose()?;
        third.forward_with(&h, &Epilogue { residual: Some(around.as_ref().unwrap_or(x)), ..positive })
    }
}

/// The network up to the last group.
pub(super) struct ResNet {
    first: Conv2d,
    groups: Vec<Vec<Bottleneck>>,
    precision: Precision,
}

impl ResNet {
    pub(super) fn load(loader: &Loader, prefix: &str, config: &Config) -> Result<Self> {
        let named = |name: &str| format!("{prefix}{name}");
        let Config { first, groups } = config;
        let mut inputs = *first;
        let mut load = |(group, (blocks, within, outputs)): (usize, &(usize, usize, usize))| {
            let mut of_group = vec![];
            for block in 0..*blocks {
                let name = named(&format!("layer{}.{block}", group + 1));
                let stride = if group > 0 && block == 0 { 2 } else { 1 };
                let sizes = (inputs, *within, *outputs);
                of_group.push(Bottleneck::load(loader, &name, sizes, stride, block == 0)?);
                inputs = *outputs;
            }
            Ok(of_group)
        };
        let wide =
            ConvConfig { kernel: 7, stride: 2, pad_before: 3, pad_after: 3, ..ConvConfig::same(3, *first) };
        Ok(Self {
            first: normed(loader, &named("conv1"), &named("bn1"), wide)?,
            groups: groups.iter().enumerate().map(&mut load).collect::<Result<_>>()?,
            precision: loader.precision(),
        })
    }

    /// `(1, height, width, 3)` f32 → what the three last groups make, an eighth, a sixteenth and a thirty-second as large,
    /// rounded up.
    pub(super) fn forward(&self, x: &Activations, device: &Device, run: &Run) -> Result<Vec<Activations>> {
        run.enter(device, format_args!("resnet.first"))?;
        let positive = Epilogue { activation: Activation::Relu, ..Epilogue::default() };
        let x = device.convert(x, self.precision)?;
        let mut h = largest_of_nine(device, &self.first.forward_with(&x, &positive)?)?;
        let mut made = vec![];
        for (index, group) in self.groups.iter().enumerate() {
            for block in group {
                run.enter(device, format_args!("resnet.{index}"))?;
                h = block.forward(&h)?;
            }
            if index > 0 {
                made.push(h.clone());
            }
        }
        Ok(made)
    }
}

/// The largest of squares of 3 around every other pixel, of numbers that are not negative: `(1, height, width, channels)` → `(1,
/// ⌈height / 2⌉, ⌈width / 2⌉, channels)`. On the host: it is done once in a network, and needs no kernel of its own.
fn largest_of_nine(device: &Device, x: &Activations) -> Result<Activations> {
    let (batch, height, width, channels) = x.dims4()?;
    let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
    let values = device.download(x)?;
    // What lies beyond the border counts as 0, which is nothing to what is not negative.
    let mut made = vec![0.0_f32; batch * rows * columns * channels];
    made.par_chunks_mut((columns * channels).max(1)).enumerate().for_each(|(line, made)| {
        let (picture, row) = (line / rows, line % rows);
        for y in (2 * row).saturating_sub(1)..(2 * row + 2).min(height) {
            let from = &values[(picture * height + y) * width * channels..][..width * channels];
            for (column, made) in made.chunks_mut(channels).enumerate() {
                for x in (2 * column).saturating_sub(1)..(2 * column + 2).min(width) {
                    let from = &from[x * channels..][..channels];
                    made.iter_mut().zip(from).for_each(|(made, from)| *made = made.max(*from));
                }
            }
        }
    });
    device.convert(&device.upload(&made, &[batch, rows, columns, channels])?, x.precision())
}
