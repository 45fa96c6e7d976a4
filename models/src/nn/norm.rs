//! Normalisation layers.

use super::backend::{Activations, Device, Norm, Precision, Vector};
use super::loader::Loader;
use crate::error::{Result, bail};

/// Group norm over channels-last pictures or sequences.
#[derive(Clone)]
pub struct GroupNorm {
    device: Device,
    weight: Vector,
    bias: Vector,
    groups: usize,
    epsilon: f32,
}

impl GroupNorm {
    /// Tensors `{name}.weight` and `{name}.bias`; 32 groups, as all Stable Diffusion networks have.
    pub fn load(loader: &Loader, name: &str, channels: usize, epsilon: f32) -> Result<Self> {
        let weight = loader.vector(&format!("{name}.weight"), channels)?;
        let bias = loader.vector(&format!("{name}.bias"), channels)?;
        Ok(Self { device: loader.device().clone(), weight, bias, groups: 32, epsilon })
    }

    /// `(batch, …, channels)` of the same shape.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        self.device.group_norm(x, &self.norm(x, false)?)
    }

    /// The norm, then SiLU, of such activations, for a convolution to apply.
    pub(super) fn silu(&self, x: &Activations) -> Result<Norm<'_>> {
        self.norm(x, true)
    }

    fn norm(&self, x: &Activations, silu: bool) -> Result<Norm<'_>> {
        let Self { weight, bias, groups, epsilon, .. } = self;
        let channels = weight.length;
        if x.channels() != channels || !channels.is_multiple_of(*groups) {
            bail!("group norm: input {:?} for {channels} channels in {groups} groups", x.dims());
        }
        Ok(Norm { weight, bias, groups: *groups, epsilon: *epsilon, silu })
    }
}

/// Layer norm over the last dimension.
#[derive(Clone)]
pub struct LayerNorm {
    device: Device,
    weight: Vector,
    bias: Vector,
}

impl LayerNorm {
    const EPSILON: f32 = 1e-5;

    /// Tensors `{name}.weight` and `{name}.bias`.
    pub fn load(loader: &Loader, name: &str, width: usize) -> Result<Self> {
        let weight = loader.vector(&format!("{name}.weight"), width)?;
        let bias = loader.vector(&format!("{name}.bias"), width)?;
        Ok(Self { device: loader.device().clone(), weight, bias })
    }

    /// `(…, width)` of the same shape, in `precision`.
    pub fn forward(&self, x: &Activations, precision: Precision) -> Result<Activations> {
        if x.channels() != self.weight.length {
            bail!("layer norm: input {:?} for width {}", x.dims(), self.weight.length);
        }
        self.device.layer_norm(x, &self.weight, &self.bias, Self::EPSILON, precision)
    }
}
