//! What can follow a product before its result is stored.

use crate::elements;

/// A function of each sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Activation {
    /// As it is.
    #[default]
    None,
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · sigmoid(1.702 x)`, CLIP's.
    QuickGelu,
    /// `max(x, 0)`, after the residual was added: as residual blocks end.
    Relu,
    /// Values times the exact GELU of their gates: half as many columns. For weights packed by
    /// [`PackedMatrix::gated`](crate::PackedMatrix::gated) or
    /// [`TiledMatrix::gated`](crate::tiled::TiledMatrix::gated), and these need it.
    Geglu,
}

/// `out = scale · activation(sum + bias + bias of the image) + residual`; ReLU comes last. Slopes stand where an activation does.
#[derive(Clone, Copy)]
pub struct Epilogue<'a, O> {
    /// One value per column.
    pub bias: Option<&'a [f32]>,
    /// `(images, columns)`, for rows that are that many images' pixels one after the other. Not with GEGLU.
    pub image_bias: Option<&'a [f32]>,
    /// Applied to the biased sum.
    pub activation: Activation,
    /// One per column: what a biased sum below zero is multiplied by, as `PReLU` and leaky `ReLU` do. Before the activation; not
    /// with GEGLU.
    pub slopes: Option<&'a [f32]>,
    /// Of what the activation gives: 1 by default.
    pub scale: f32,
    /// Of the output's shape.
    pub residual: Option<&'a [O]>,
}

impl<O> Default for Epilogue<'_, O> {
    fn default() -> Self {
        Self {
            bias: None,
            image_bias: None,
            activation: Activation::None,
            slopes: None,
            scale: 1.0,
            residual: None,
        }
    }
}

impl<O> Epilogue<'_, O> {
    /// That all lengths fit sums of `rows` and `columns` and an output of `length` values, and that weights are
    /// `gated` where the activation is.
    pub(crate) fn check(&self, rows: usize, columns: usize, gated: bool, length: usize) {
        assert_eq!(gated, self.activation == Activation::Geglu, "product: gates need GEGLU, and it them");
        assert!(!gated || self.image_bias.is_none(), "product: GEGLU takes no bias per image");
        assert!(!gated || self.slopes.is_none(), "product: GEGLU takes no slopes");
        let width = if gated { columns / 2 } else { columns };
        assert_eq!(length, elements(&[rows, width]), "product: output of {rows} rows and {width} columns");
        assert!(self.bias.is_none_or(|bias| bias.len() == columns), "product: bias for {columns} columns");
        let slopes = self.slopes.is_none_or(|slopes| slopes.len() == columns);
        assert!(slopes, "product: slopes for {columns} columns");
        assert!(
            self.residual.is_none_or(|residual| residual.len() == length),
            "product: residual of {length} values"
        );
        let images = self.images(columns);
        assert!(
            self.image_bias.is_none_or(|bias| bias.len() == images * columns)
                && (rows == 0 || images > 0 && rows.is_multiple_of(images)),
            "product: biases of images for {rows} rows"
        );
    }

    /// Rows of one image.
    pub(crate) fn rows_per_image(&self, rows: usize, columns: usize) -> usize {
        (rows / self.images(columns).max(1)).max(1)
    }

    fn images(&self, columns: usize) -> usize {
        self.image_bias.map_or(1, |bias| bias.len() / columns.max(1))
    }
}
