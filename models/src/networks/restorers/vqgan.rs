//! The blocks of `CodeFormer`'s encoder and generator, which stand one after the other in files: `{name}.{index}`. What each is shows
//! in the names of its tensors.
//!
//! Source: Esser et al. 2021, "Taming Transformers for High-Resolution Image Synthesis".

use crate::error::{Error, Result, bail};
use crate::files::Tensors;
use crate::networks::detect::{MOST_IN_A_ROW, dim};
use crate::networks::vae::{PixelAttention, Residual};
use crate::nn::{Activations, Conv2d, ConvConfig, Device, Epilogue, GroupNorm, Loader, Precision};

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A convolution at the begin.
    First,
    /// Two convolutions and a way around.
    Residual,
    /// Attention over all pixels.
    Attention,
    /// A convolution that halves or doubles the sides.
    Resize,
    /// A norm, with the convolution after it.
    Last,
}

/// A block before it is read: what it is, and what goes in and comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub kind: Kind,
    pub inputs: usize,
    pub outputs: usize,
}

/// The blocks of a file whose names begin so, up to the last.
pub(super) fn shapes(file: &Tensors, name: &str) -> Result<Vec<Shape>> {
    let has = |index: usize, part: &str| file.shape(&format!("{name}.{index}.{part}")).is_some();
    let size = |index: usize, part: &str| dim(file, &format!("{name}.{index}.{part}"), 0);
    let mut shapes = vec![];
    let mut inputs = dim(file, &format!("{name}.0.weight"), 1)?;
    for index in 0..MOST_IN_A_ROW {
        let (kind, outputs) = if index == 0 {
            (Kind::First, size(0, "weight")?)
        } else if has(index, "conv1.weight") {
            (Kind::Residual, size(index, "conv1.weight")?)
        } else if has(index, "q.weight") {
            (Kind::Attention, inputs)
        } else if has(index, "conv.weight") {
            (Kind::Resize, inputs)
        } else {
            shapes.push(Shape { kind: Kind::Last, inputs, outputs: size(index + 1, "weight")? });
            return Ok(shapes);
        };
        shapes.push(Shape { kind, inputs, outputs });
        inputs = outputs;
    }
    let reason = format!("has more than {MOST_IN_A_ROW} blocks {name}, more than any network");
    Err(Error::model(file.path(), reason))
}

/// Blocks that change the sides.
pub(super) fn resizes(shapes: &[Shape]) -> usize {
    shapes.iter().filter(|shape| shape.kind == Kind::Resize).count()
}

/// A block.
pub(super) enum Block {
    First(Conv2d),
    Residual(Residual),
    Attention(PixelAttention),
    Resize(Conv2d),
    Last(GroupNorm, Conv2d),
}

impl Block {
    /// Reads one; of those that change the sides, whether they halve them.
    pub(super) fn load(
        loader: &Loader,
        name: &str,
        (index, shape): (usize, Shape),
        halves: bool,
    ) -> Result<Self> {
        let Shape { kind, inputs, outputs } = shape;
        let own = format!("{name}.{index}");
        let same = ConvConfig::same(inputs, outputs);
        Ok(match kind {
            Kind::First => Self::First(Conv2d::load_f32(loader, &own, same)?),
            Kind::Residual => {
                Self::Residual(Residual::load_around(loader, &own, "conv_out", (inputs, outputs))?)
            }
            Kind::Attention => Self::Attention(PixelAttention::load(loader, &own, inputs)?),
            Kind::Resize => {
                // Halved with a border below and to the right only.
                let config = if halves {
                    ConvConfig { stride: 2, pad_before: 0, ..same }
                } else {
                    ConvConfig { upsample: 2, ..same }
                };
                Self::Resize(Conv2d::load(loader, &format!("{own}.conv"), config)?)
            }
            Kind::Last => Self::Last(
                GroupNorm::load(loader, &own, inputs, Residual::EPSILON)?,
                Conv2d::load(loader, &format!("{name}.{}", index + 1), same)?,
            ),
        })
    }

    /// `(1, height, width, inputs)` → `(1, rows, columns, outputs)`; f32 goes into the first, and comes out of the last.
    pub(super) fn forward(
        &self,
        device: &Device,
        x: Activations,
        precision: Precision,
    ) -> Result<Activations> {
        match self {
            Self::First(convolution) => device.convert(&convolution.forward(&x)?, precision),
            Self::Residual(block) => block.forward(x),
            Self::Attention(attention) => attention.forward(device, &x),
            Self::Resize(convolution) => convolution.forward(&x),
            // No SiLU stands between both.
            Self::Last(norm, convolution) => {
                convolution.forward_with(&norm.forward(&x)?, &Epilogue::widened())
            }
        }
    }
}

/// What a convolution of a file takes must be what the one before gives: told before anything is read.
pub(super) fn check(file: &Tensors, name: &str, shapes: &[Shape]) -> Result<()> {
    if shapes.first().is_none_or(|first| first.kind != Kind::First) {
        bail!("{name} has no first block");
    }
    if shapes.iter().any(|shape| !shape.inputs.is_multiple_of(32) && shape.kind != Kind::First) {
        let reason = format!("has blocks {name} of channels that 32 groups do not divide");
        return Err(Error::model(file.path(), reason));
    }
    Ok(())
}
