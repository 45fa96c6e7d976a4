//! What follows a product before its result is stored.

use latentd_kernels::Activation;

use super::activations::Activations;
use super::packed::Vector;
use super::precision::Precision;
use crate::error::{Result, bail};

/// `scale · activation(sums + bias + bias of the image) + residual`, all of it optional; ReLU comes last.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// One number per output: the layer's own.
    pub bias: Option<&'a Vector>,
    /// `(batch, outputs)` f32, added to every row of the batch's entry.
    pub image_bias: Option<&'a Activations>,
    /// Applied to the biased sums.
    pub activation: Activation,
    /// One per output: what biased sums below zero are multiplied by, as `PReLU` does. Before the activation.
    pub slopes: Option<&'a Vector>,
    /// What that is multiplied by: 1 by default.
    pub scale: f32,
    /// Of the output's shape, and in the output's precision.
    pub residual: Option<&'a Activations>,
    /// The output is f32 even if the input is bf16.
    pub widen: bool,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        let activation = Activation::default();
        Self {
            bias: None,
            image_bias: None,
            activation,
            slopes: None,
            scale: 1.0,
            residual: None,
            widen: false,
        }
    }
}

impl<'a> Epilogue<'a> {
    /// With a residual, which says what the output is.
    pub fn add(residual: &'a Activations) -> Self {
        Self { residual: Some(residual), ..Self::default() }
    }

    /// With a result in f32.
    pub fn widened() -> Self {
        Self { widen: true, ..Self::default() }
    }

    /// What the output is, for this input.
    pub fn output(&self, input: Precision) -> Precision {
        match self.residual {
            Some(residual) => residual.precision(),
            None if self.widen => Precision::F32,
            None => input,
        }
    }

    /// An error unless a residual and biases fit an output of these sizes.
    pub fn check(&self, dims: &[usize]) -> Result<()> {
        if let Some(residual) = self.residual.filter(|residual| residual.dims() != dims) {
            bail!("a residual {:?} cannot be added to {dims:?}", residual.dims());
        }
        let rows: usize = dims.split_last().map_or(1, |(_, rest)| rest.iter().product());
        let columns = dims.last().copied().unwrap_or(1);
        if let Some(slopes) = self.slopes.filter(|slopes| slopes.length != columns) {
            bail!("{} slopes for {columns} outputs", slopes.length);
        }
        match self.image_bias {
            Some(bias)
                if bias.rows() == 0 || !rows.is_multiple_of(bias.rows()) || bias.channels() != columns =>
            {
                bail!("biases {:?} of images for {rows} rows of {columns}", bias.dims())
            }
            _ => Ok(()),
        }
    }
}
