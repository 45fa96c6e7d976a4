//! Convolutions.

use candle_core::{Result, Tensor, bail};
use latentd_kernels::{ConvShape, Isa, PackedMatrix};

use super::op;
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
    weight: PackedMatrix,
    bias: Vec<f32>,
}

impl Conv2d {
    /// Tensors `{name}.weight` and `{name}.bias`.
    pub fn load(loader: &Loader, name: &str, config: ConvConfig) -> crate::Result<Self> {
        let ConvConfig { inputs, outputs, kernel, .. } = config;
        let weight = loader.convolution(&format!("{name}.weight"), outputs, inputs, kernel)?;
        let bias = loader.vector(&format!("{name}.bias"), outputs)?;
        Ok(Self { config, weight, bias })
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.len() * 4
    }

    /// `(batch, height, width, inputs) → (batch, rows, columns, outputs)`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let ConvConfig { inputs, outputs, kernel, stride, pad_before, pad_after, upsample } = self.config;
        if channels != inputs {
            bail!("convolution: input {:?} has not {inputs} channels", x.shape());
        }
        let shape =
            ConvShape { batch, height, width, channels, kernel, stride, pad_before, pad_after, upsample };
        let (rows, columns) = shape.output();
        op::unary("convolution", x, (batch, rows, columns, outputs), |x, out| {
            latentd_kernels::conv2d(Isa::current(), x, shape, &self.weight, Some(&self.bias), out);
        })
    }
}
