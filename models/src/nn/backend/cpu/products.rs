//! Products and convolutions on packed weights.

use half::bf16;
use latentd_kernels::tiled::{self, ChannelScales, TiledMatrix};
use latentd_kernels::{Activation, ConvShape, Isa, PackedMatrix};

use super::values::{self, Values};
use crate::error::{Result, bail};
use crate::nn::backend::{Activations, ConvConfig, Epilogue, Layout, Matrix};

/// Packed weights, which say what they are multiplied in.
pub(super) enum Packed {
    F32(PackedMatrix),
    Bf16(TiledMatrix),
}

impl Packed {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(matrix) => matrix.bytes(),
            Self::Bf16(matrix) => matrix.bytes(),
        }
    }
}

/// The numbers of an epilogue's bias and slopes.
#[derive(Clone, Copy)]
pub(super) struct Vectors<'a> {
    pub bias: Option<&'a [f32]>,
    pub slopes: Option<&'a [f32]>,
}

/// With the numbers behind it, for kernels whose output is f32.
fn epilogue_f32<'a>(
    epilogue: &Epilogue<'a>,
    Vectors { bias, slopes }: Vectors<'a>,
    activation: Activation,
) -> Result<latentd_kernels::Epilogue<'a, f32>> {
    let residual = epilogue.residual.map(values::f32).transpose()?;
    let image_bias = epilogue.image_bias.map(values::f32).transpose()?;
    Ok(latentd_kernels::Epilogue { bias, image_bias, activation, slopes, scale: epilogue.scale, residual })
}

/// With the numbers behind it, for kernels whose output is bf16.
fn epilogue_bf16<'a>(
    epilogue: &Epilogue<'a>,
    Vectors { bias, slopes }: Vectors<'a>,
    activation: Activation,
) -> Result<latentd_kernels::Epilogue<'a, bf16>> {
    let residual = epilogue.residual.map(values::bf16).transpose()?;
    let image_bias = epilogue.image_bias.map(values::f32).transpose()?;
    Ok(latentd_kernels::Epilogue { bias, image_bias, activation, slopes, scale: epilogue.scale, residual })
}

/// What follows the sums: of weights with gates, the gates.
fn activation(weight: &Matrix, epilogue: &Epilogue) -> Activation {
    match weight.layout {
        Layout::Gated { .. } => Activation::Geglu,
        Layout::Linear { .. } | Layout::Convolution { .. } => epilogue.activation,
    }
}

pub(super) fn product(
    isa: Isa,
    x: &Activations,
    weight: &Matrix,
    epilogue: &Epilogue,
    vectors: Vectors<'_>,
    out: &mut Values,
) -> Result<()> {
    let (rows, activation) = (x.rows(), activation(weight, epilogue));
    match (weight.packed()?, out) {
        (Packed::F32(weight), Values::F32(out)) => {
            let with_numbers = epilogue_f32(epilogue, vectors, activation)?;
            latentd_kernels::linear(isa, values::f32(x)?, rows, weight, &with_numbers, out);
        }
        (Packed::Bf16(weight), Values::F32(out)) => {
            let with_numbers = epilogue_f32(epilogue, vectors, activation)?;
            tiled::linear(isa, values::bf16(x)?, rows, weight, &with_numbers, out);
        }
        (Packed::Bf16(weight), Values::Bf16(out)) => {
            let with_numbers = epilogue_bf16(epilogue, vectors, activation)?;
            tiled::linear(isa, values::bf16(x)?, rows, weight, &with_numbers, out);
        }
        (Packed::F32(_), Values::Bf16(_)) => bail!("linear: f32 weights for bf16 activations"),
    }
    Ok(())
}

pub(super) fn convolution(
    isa: Isa,
    x: &Activations,
    norm: Option<&ChannelScales>,
    weight: &Matrix,
    config: &ConvConfig,
    epilogue: &Epilogue,
    vectors: Vectors<'_>,
    out: &mut Values,
) -> Result<()> {
    let (batch, height, width, channels) = x.dims4()?;
    let ConvConfig { kernel, stride, pad_before, pad_after, upsample, wrap, .. } = *config;
    let shape =
        ConvShape { batch, height, width, channels, kernel, stride, pad_before, pad_after, upsample, wrap };
    let activation = activation(weight, epilogue);
    match (weight.packed()?, out) {
        (Packed::F32(weight), Values::F32(out)) => {
            let with_numbers = epilogue_f32(epilogue, vectors, activation)?;
            latentd_kernels::conv2d(isa, values::f32(x)?, shape, weight, &with_numbers, out);
        }
        (Packed::Bf16(weight), Values::F32(out)) => {
            tiled_conv2d(
                isa,
                values::bf16(x)?,
                norm,
                shape,
                weight,
                &epilogue_f32(epilogue, vectors, activation)?,
                out,
            );
        }
        (Packed::Bf16(weight), Values::Bf16(out)) => {
            tiled_conv2d(
                isa,
                values::bf16(x)?,
                norm,
                shape,
                weight,
                &epilogue_bf16(epilogue, vectors, activation)?,
                out,
            );
        }
        (Packed::F32(_), Values::Bf16(_)) => bail!("convolution: f32 weights for bf16 activations"),
    }
    Ok(())
}

fn tiled_conv2d<O: tiled::Element>(
    isa: Isa,
    x: &[bf16],
    norm: Option<&ChannelScales>,
    shape: ConvShape,
    weight: &TiledMatrix,
    epilogue: &latentd_kernels::Epilogue<O>,
    out: &mut [O],
) {
    match norm {
        Some(norm) => tiled::conv2d_normed(isa, x, norm, shape, weight, epilogue, out),
        None => tiled::conv2d(isa, x, shape, weight, epilogue, out),
    }
}
