//! Linear layers.

use candle_core::{D, Result, Tensor, bail};
use latentd_kernels::{Isa, PackedMatrix};

use super::op;
use crate::files::Loader;

/// `y = x Wᵀ + b` over the last dimension. A 1×1 convolution is one too.
pub struct Linear {
    weight: PackedMatrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// With bias: tensors `{name}.weight` and `{name}.bias`.
    pub fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> crate::Result<Self> {
        let bias = loader.vector(&format!("{name}.bias"), outputs)?;
        Ok(Self { bias: Some(bias), ..Self::load_no_bias(loader, name, inputs, outputs)? })
    }

    /// Without bias: tensor `{name}.weight`.
    pub fn load_no_bias(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> crate::Result<Self> {
        let weight = loader.linear(&format!("{name}.weight"), outputs, inputs)?;
        Ok(Self { weight, bias: None })
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
    }

    /// `(…, inputs) → (…, outputs)`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.shape();
        if x.dim(D::Minus1)? != inputs {
            bail!("linear: input {:?} for weights ({outputs}, {inputs})", x.shape());
        }
        let rows = x.elem_count() / inputs.max(1);
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        op::unary("linear", x, shape, |x, out| {
            latentd_kernels::linear(Isa::current(), x, rows, &self.weight, self.bias.as_deref(), out);
        })
    }
}
