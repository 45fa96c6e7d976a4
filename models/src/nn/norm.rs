//! Normalisation layers.

use candle_core::{D, Result, Tensor, bail};
use latentd_kernels::{GroupNormShape, Isa};

use super::op;
use crate::files::Loader;

/// Group norm over channels-last pictures or sequences.
pub struct GroupNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    groups: usize,
    epsilon: f32,
}

impl GroupNorm {
    /// Tensors `{name}.weight` and `{name}.bias`; 32 groups, as all Stable Diffusion networks have.
    pub fn load(loader: &Loader, name: &str, channels: usize, epsilon: f32) -> crate::Result<Self> {
        let weight = loader.vector(&format!("{name}.weight"), channels)?;
        let bias = loader.vector(&format!("{name}.bias"), channels)?;
        Ok(Self { weight, bias, groups: 32, epsilon })
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        (self.weight.len() + self.bias.len()) * 4
    }

    /// `(batch, …, channels)` of the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, false)
    }

    /// The norm, then SiLU.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, true)
    }

    fn run(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        let channels = self.weight.len();
        let batch = x.dim(0)?;
        if x.dim(D::Minus1)? != channels || !channels.is_multiple_of(self.groups) {
            bail!("group norm: input {:?} for {channels} channels in {} groups", x.shape(), self.groups);
        }
        let positions = x.elem_count() / (batch * channels).max(1);
        let shape =
            GroupNormShape { batch, positions, channels, groups: self.groups, epsilon: self.epsilon, silu };
        op::unary("group norm", x, x.shape(), |x, out| {
            latentd_kernels::group_norm(Isa::current(), x, shape, &self.weight, &self.bias, out);
        })
    }
}

/// Layer norm over the last dimension.
pub struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl LayerNorm {
    const EPSILON: f32 = 1e-5;

    /// Tensors `{name}.weight` and `{name}.bias`.
    pub fn load(loader: &Loader, name: &str, width: usize) -> crate::Result<Self> {
        let weight = loader.vector(&format!("{name}.weight"), width)?;
        let bias = loader.vector(&format!("{name}.bias"), width)?;
        Ok(Self { weight, bias })
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        (self.weight.len() + self.bias.len()) * 4
    }

    /// `(…, width)` of the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.dim(D::Minus1)? != self.weight.len() {
            bail!("layer norm: input {:?} for width {}", x.shape(), self.weight.len());
        }
        op::unary("layer norm", x, x.shape(), |x, out| {
            latentd_kernels::layer_norm(Isa::current(), x, &self.weight, &self.bias, Self::EPSILON, out);
        })
    }
}
