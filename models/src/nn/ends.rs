//! What layers do to a product's sums before they store them.

use candle_core::{Result, bail};
use latentd_kernels::{Activation, Epilogue};

use super::{Activations, Precision};

/// `activation(sums + bias of the image) + residual`, all of it optional.
#[derive(Clone, Copy, Default)]
pub struct Ends<'a> {
    /// `(batch, outputs)` f32, added to every row of the batch's entry.
    pub image_bias: Option<&'a Activations>,
    /// Applied to the biased sums.
    pub activation: Activation,
    /// Of the output's shape, and in the output's precision.
    pub residual: Option<&'a Activations>,
    /// The output is f32 even if the input is bf16.
    pub widen: bool,
}

impl<'a> Ends<'a> {
    /// With a residual, which says what the output is.
    pub fn add(residual: &'a Activations) -> Self {
        Self { residual: Some(residual), ..Self::default() }
    }

    /// What the output is, for this input.
    pub(super) fn output(&self, input: Precision) -> Precision {
        match self.residual {
            Some(residual) => residual.precision(),
            None if self.widen => Precision::F32,
            None => input,
        }
    }

    /// For the kernels; with a residual of bf16 only where the output is, and so on.
    pub(super) fn f32(&self, bias: Option<&'a [f32]>, rows: usize) -> Result<Epilogue<'a, f32>> {
        let residual = self.residual.map(Activations::f32).transpose()?;
        let image_bias = self.image_bias(rows)?;
        Ok(Epilogue { bias, image_bias, activation: self.activation, residual, ..Epilogue::default() })
    }

    /// As [`Self::f32`] for bf16 outputs.
    pub(super) fn bf16(&self, bias: Option<&'a [f32]>, rows: usize) -> Result<Epilogue<'a, half::bf16>> {
        let residual = self.residual.map(Activations::bf16).transpose()?;
        let image_bias = self.image_bias(rows)?;
        Ok(Epilogue { bias, image_bias, activation: self.activation, residual, ..Epilogue::default() })
    }

    fn image_bias(&self, rows: usize) -> Result<Option<&'a [f32]>> {
        let Some(bias) = self.image_bias else { return Ok(None) };
        if bias.rows() == 0 || !rows.is_multiple_of(bias.rows()) {
            bail!("biases {:?} of images for {rows} rows", bias.dims());
        }
        bias.f32().map(Some)
    }

    /// An error unless a residual has these sizes.
    pub(super) fn check(&self, dims: &[usize]) -> Result<()> {
        match self.residual {
            Some(residual) if residual.dims() != dims => {
                bail!("a residual {:?} cannot be added to {dims:?}", residual.dims())
            }
            _ => Ok(()),
        }
    }
}
