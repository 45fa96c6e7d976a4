//! Convolutions.

use candle_core::{Result, bail};
use half::bf16;
use latentd_kernels::tiled::{self, ChannelScales, TiledMatrix};
use latentd_kernels::{ConvShape, Epilogue, Isa};

use super::activations::Values;
use super::linear::Weight;
use super::{Activations, Ends, GroupNorm, Precision};
use crate::files::Loader;

/// The geometry of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvConfig {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Kernel rows and columns.
    pub kernel: usize,
    /// Step of the kernel.
    pub stride: usize,
    /// Zeros above and to the left.
    pub pad_before: usize,
    /// Zeros below and to the right.
    pub pad_after: usize,
    /// The input is enlarged by this factor first, nearest neighbour.
    pub upsample: usize,
}

impl ConvConfig {
    /// A 3×3 convolution that keeps the size.
    pub fn same(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, kernel: 3, stride: 1, pad_before: 1, pad_after: 1, upsample: 1 }
    }
}

/// A convolution over `(batch, height, width, channels)`.
pub struct Conv2d {
    config: ConvConfig,
    weight: Weight,
    bias: Vec<f32>,
}

impl Conv2d {
    /// Tensors `{name}.weight` and `{name}.bias`; computed in the loader's precision.
    pub fn load(loader: &Loader, name: &str, config: ConvConfig) -> crate::Result<Self> {
        let ConvConfig { inputs, outputs, kernel, .. } = config;
        if loader.precision() == Precision::F32 {
            return Self::load_f32(loader, name, config);
        }
        let weight = loader.tiled_convolution(&format!("{name}.weight"), outputs, inputs, kernel)?;
        let bias = loader.vector(&format!("{name}.bias"), outputs)?;
        Ok(Self { config, weight: Weight::Bf16(weight), bias })
    }

    /// Computed in f32 in any case: where what comes in is f32 and has few channels.
    pub fn load_f32(loader: &Loader, name: &str, config: ConvConfig) -> crate::Result<Self> {
        let ConvConfig { inputs, outputs, kernel, .. } = config;
        let weight = loader.convolution(&format!("{name}.weight"), outputs, inputs, kernel)?;
        let bias = loader.vector(&format!("{name}.bias"), outputs)?;
        Ok(Self { config, weight: Weight::F32(weight), bias })
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.len() * 4
    }

    /// `(batch, height, width, inputs) → (batch, rows, columns, outputs)`.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        self.forward_with(x, &Ends::default())
    }

    /// `(batch, height, width, inputs) → (batch, rows, columns, outputs)`, finished by `ends`.
    pub fn forward_with(&self, x: &Activations, ends: &Ends) -> Result<Activations> {
        self.run(x, None, ends)
    }

    /// As [`Self::forward_with`] of `x` after a norm and SiLU.
    pub fn forward_normed(&self, norm: &GroupNorm, x: &Activations, ends: &Ends) -> Result<Activations> {
        match self.weight {
            Weight::F32(_) => self.run(&norm.forward_silu(x)?, None, ends),
            Weight::Bf16(_) => self.run(x, Some(&norm.scales_silu(x)?), ends),
        }
    }

    fn run(&self, x: &Activations, norm: Option<&ChannelScales>, ends: &Ends) -> Result<Activations> {
        let (batch, height, width, channels) = x.dims4()?;
        let ConvConfig { inputs, outputs, kernel, stride, pad_before, pad_after, upsample } = self.config;
        if channels != inputs {
            bail!("convolution: input {:?} has not {inputs} channels", x.dims());
        }
        let shape =
            ConvShape { batch, height, width, channels, kernel, stride, pad_before, pad_after, upsample };
        let (rows, columns) = shape.output();
        let dims = [batch, rows, columns, outputs];
        ends.check(&dims)?;
        let pixels = batch * rows * columns;
        let bias = Some(self.bias.as_slice());
        let mut out = Values::new(ends.output(x.precision()), pixels * outputs);
        match (&self.weight, &mut out) {
            (Weight::F32(weight), Values::F32(out)) => {
                let ends = ends.f32(bias, pixels)?;
                latentd_kernels::conv2d(Isa::current(), x.f32()?, shape, weight, &ends, out);
            }
            (Weight::Bf16(weight), Values::F32(out)) => {
                tiled_conv2d(x.bf16()?, norm, shape, weight, &ends.f32(bias, pixels)?, out);
            }
            (Weight::Bf16(weight), Values::Bf16(out)) => {
                tiled_conv2d(x.bf16()?, norm, shape, weight, &ends.bf16(bias, pixels)?, out);
            }
            (Weight::F32(_), Values::Bf16(_)) => bail!("convolution: f32 weights for bf16 activations"),
        }
        Ok(Activations::new(out, dims))
    }
}

fn tiled_conv2d<O: tiled::Element>(
    x: &[bf16],
    norm: Option<&ChannelScales>,
    shape: ConvShape,
    weight: &TiledMatrix,
    epilogue: &Epilogue<O>,
    out: &mut [O],
) {
    match norm {
        Some(norm) => tiled::conv2d_normed(Isa::current(), x, norm, shape, weight, epilogue, out),
        None => tiled::conv2d(Isa::current(), x, shape, weight, epilogue, out),
    }
}
