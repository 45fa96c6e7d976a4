//! Linear layers.

use candle_core::{Result, bail};
use latentd_kernels::tiled::{self, TiledMatrix};
use latentd_kernels::{Activation, Isa, PackedMatrix};

use super::activations::Values;
use super::{Activations, Ends, Precision};
use crate::files::Loader;

/// Packed weights, which say what they are multiplied in.
pub(super) enum Weight {
    F32(PackedMatrix),
    Bf16(TiledMatrix),
}

impl Weight {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(weight) => weight.bytes(),
            Self::Bf16(weight) => weight.bytes(),
        }
    }
}

/// `y = x Wᵀ + b` over the last dimension. A 1×1 convolution is one too.
pub struct Linear {
    inputs: usize,
    outputs: usize,
    weight: Weight,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// With bias: tensors `{name}.weight` and `{name}.bias`; computed in the loader's precision.
    pub fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> crate::Result<Self> {
        Self::with_bias(Self::load_no_bias(loader, name, inputs, outputs)?, loader, name)
    }

    /// Without bias: tensor `{name}.weight`.
    pub fn load_no_bias(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> crate::Result<Self> {
        match loader.precision() {
            Precision::F32 => Self::plain(loader, name, inputs, outputs),
            Precision::Bf16 => {
                let weight = loader.tiled_linear(&format!("{name}.weight"), outputs, inputs)?;
                Ok(Self { inputs, outputs, weight: Weight::Bf16(weight), bias: None })
            }
        }
    }

    /// With bias, computed in f32 in any case.
    pub fn load_f32(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> crate::Result<Self> {
        Self::with_bias(Self::plain(loader, name, inputs, outputs)?, loader, name)
    }

    fn plain(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> crate::Result<Self> {
        let weight = loader.linear(&format!("{name}.weight"), outputs, inputs)?;
        Ok(Self { inputs, outputs, weight: Weight::F32(weight), bias: None })
    }

    fn with_bias(self, loader: &Loader, name: &str) -> crate::Result<Self> {
        let bias = loader.vector(&format!("{name}.bias"), self.outputs)?;
        Ok(Self { bias: Some(bias), ..self })
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
    }

    /// `(…, inputs) → (…, outputs)`.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        self.forward_with(x, &Ends::default())
    }

    /// `(…, inputs) → (…, outputs)`, finished by `ends`.
    pub fn forward_with(&self, x: &Activations, ends: &Ends) -> Result<Activations> {
        let mut dims = x.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == self.inputs => *last = self.outputs,
            _ => bail!("linear: input {:?} for {} inputs", x.dims(), self.inputs),
        }
        ends.check(&dims)?;
        let rows = x.rows();
        let bias = self.bias.as_deref();
        let mut out = Values::new(ends.output(x.precision()), rows * self.outputs);
        match (&self.weight, &mut out) {
            (Weight::F32(weight), Values::F32(out)) => {
                latentd_kernels::linear(Isa::current(), x.f32()?, rows, weight, &ends.f32(bias, rows)?, out);
            }
            (Weight::Bf16(weight), Values::F32(out)) => {
                tiled::linear(Isa::current(), x.bf16()?, rows, weight, &ends.f32(bias, rows)?, out);
            }
            (Weight::Bf16(weight), Values::Bf16(out)) => {
                tiled::linear(Isa::current(), x.bf16()?, rows, weight, &ends.bf16(bias, rows)?, out);
            }
            (Weight::F32(_), Values::Bf16(_)) => bail!("linear: f32 weights for bf16 activations"),
        }
        Ok(Activations::new(out, dims))
    }
}

/// A linear layer to twice as many outputs, whose first half is multiplied by the exact (erf) GELU of the second.
pub struct GatedLinear(Linear);

impl GatedLinear {
    /// Tensors `{name}.weight` and `{name}.bias`, for `2 · outputs`; `outputs` a multiple of 16.
    pub fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> crate::Result<Self> {
        let linear = match loader.precision() {
            Precision::F32 => {
                let weight = loader.gated(&format!("{name}.weight"), outputs * 2, inputs)?;
                Linear { inputs, outputs: outputs * 2, weight: Weight::F32(weight), bias: None }
            }
            Precision::Bf16 => {
                let weight = loader.tiled_gated(&format!("{name}.weight"), outputs * 2, inputs)?;
                Linear { inputs, outputs: outputs * 2, weight: Weight::Bf16(weight), bias: None }
            }
        };
        linear.with_bias(loader, name).map(Self)
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// `(…, inputs) → (…, outputs)`.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        if x.channels() != self.0.inputs {
            bail!("linear: input {:?} for {} inputs", x.dims(), self.0.inputs);
        }
        let (rows, bias) = (x.rows(), self.0.bias.as_deref());
        let ends = Ends { activation: Activation::Geglu, ..Ends::default() };
        let mut out = Values::new(x.precision(), rows * self.0.outputs / 2);
        match (&self.0.weight, &mut out) {
            (Weight::F32(weight), Values::F32(out)) => {
                latentd_kernels::linear(Isa::current(), x.f32()?, rows, weight, &ends.f32(bias, rows)?, out);
            }
            (Weight::Bf16(weight), Values::Bf16(out)) => {
                tiled::linear(Isa::current(), x.bf16()?, rows, weight, &ends.bf16(bias, rows)?, out);
            }
            _ => bail!("linear: weights and activations of different precision"),
        }
        let mut dims = x.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.0.outputs / 2;
        }
        Ok(Activations::new(out, dims))
    }
}
