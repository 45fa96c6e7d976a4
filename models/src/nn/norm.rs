//! Normalisation layers.

use candle_core::{Result, bail};
use latentd_kernels::tiled::{self, ChannelScales};
use latentd_kernels::{Buffer, GroupNormShape, Isa};

use super::activations::Values;
use super::{Activations, Precision};
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
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        self.run(x, false)
    }

    /// The norm, then SiLU.
    pub fn forward_silu(&self, x: &Activations) -> Result<Activations> {
        self.run(x, true)
    }

    /// What the norm and SiLU do to these bf16 activations, for a convolution to apply.
    pub(super) fn scales_silu(&self, x: &Activations) -> Result<ChannelScales> {
        let shape = self.shape(x, true)?;
        Ok(ChannelScales::group_norm(Isa::current(), x.bf16()?, shape, &self.weight, &self.bias))
    }

    fn shape(&self, x: &Activations, silu: bool) -> Result<GroupNormShape> {
        let channels = self.weight.len();
        let batch = x.dims().first().copied().unwrap_or(1);
        if x.channels() != channels || !channels.is_multiple_of(self.groups) {
            bail!("group norm: input {:?} for {channels} channels in {} groups", x.dims(), self.groups);
        }
        let positions = x.rows() / batch.max(1);
        Ok(GroupNormShape { batch, positions, channels, groups: self.groups, epsilon: self.epsilon, silu })
    }

    fn run(&self, x: &Activations, silu: bool) -> Result<Activations> {
        let shape = self.shape(x, silu)?;
        let (isa, weight, bias) = (Isa::current(), &self.weight, &self.bias);
        let out = match x.values() {
            Values::F32(x) => {
                let mut out = Buffer::new(x.len());
                latentd_kernels::group_norm(isa, x, shape, weight, bias, &mut out);
                Values::F32(out)
            }
            Values::Bf16(x) => {
                let mut out = Buffer::new(x.len());
                tiled::group_norm(isa, x, shape, weight, bias, &mut out);
                Values::Bf16(out)
            }
        };
        Ok(Activations::new(out, x.dims()))
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

    /// `(…, width)` of the same shape, in `precision`.
    pub fn forward(&self, x: &Activations, precision: Precision) -> Result<Activations> {
        if x.channels() != self.weight.len() {
            bail!("layer norm: input {:?} for width {}", x.dims(), self.weight.len());
        }
        let mut out = Values::new(precision, x.rows() * x.channels());
        let (isa, weight, bias) = (Isa::current(), &self.weight, &self.bias);
        match (x.values(), &mut out) {
            (Values::F32(x), Values::F32(out)) => {
                latentd_kernels::layer_norm(isa, x, weight, bias, Self::EPSILON, out);
            }
            (Values::F32(x), Values::Bf16(out)) => {
                tiled::layer_norm(isa, &x[..], weight, bias, Self::EPSILON, out);
            }
            (Values::Bf16(x), Values::Bf16(out)) => {
                tiled::layer_norm(isa, &x[..], weight, bias, Self::EPSILON, out);
            }
            (Values::Bf16(_), Values::F32(_)) => bail!("layer norm: bf16 activations to f32"),
        }
        Ok(Activations::new(out, x.dims()))
    }
}
