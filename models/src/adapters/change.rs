//! What a file does to the weights of one layer.

use super::source::Stored;
use crate::files::Tensors;
use crate::nn::LowRank;
use crate::{Error, Result};

/// A layer's weights: outputs, inputs, and the places of a kernel (1 for a linear layer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub outputs: usize,
    pub inputs: usize,
    pub taps: usize,
}

impl Sizes {
    /// Of a tensor's shape; a vector has outputs alone.
    pub(super) fn of(shape: &[usize]) -> Self {
        let size = |dimension: usize| shape.get(dimension).copied().unwrap_or(1);
        Self { outputs: size(0), inputs: size(1), taps: shape.iter().skip(2).product() }
    }

    /// Numbers of each output.
    pub(super) fn columns(self) -> usize {
        self.inputs * self.taps
    }
}

/// One kind of change, of one layer, whose numbers are still in the file.
pub(super) trait Change: Send + Sync {
    /// Whether it is for weights of these sizes.
    fn fits(&self, sizes: Sizes) -> bool;

    /// The sizes that it is for, in words: "[320, 768]".
    fn told(&self) -> String;

    /// Changes `weights (outputs, inputs, taps)`, which it fits: W becomes W + strength · (W' − W), where W' is what it
    /// makes of W at full strength.
    fn apply(&self, file: &Tensors, sizes: Sizes, strength: f32, weights: &mut [f32]) -> Result<()>;

    /// Ranks of the product that it is, if it is one that is added.
    fn rank(&self) -> Option<usize> {
        None
    }

    /// The same as that product.
    fn product(&self, _file: &Tensors, _sizes: Sizes, _strength: f32) -> Result<Option<LowRank>> {
        Ok(None)
    }
}

/// A change that is a sum: W' = W + Δ.
pub(super) trait Delta: Send + Sync {
    /// As in [`Change::fits`].
    fn fits(&self, sizes: Sizes) -> bool;

    /// As in [`Change::told`].
    fn told(&self) -> String;

    /// `sums += factor · Δ`.
    fn add(&self, file: &Tensors, sizes: Sizes, factor: f32, sums: &mut [f32]) -> Result<()>;

    /// As in [`Change::rank`].
    fn rank(&self) -> Option<usize> {
        None
    }

    /// As in [`Change::product`].
    fn product(&self, _file: &Tensors, _sizes: Sizes, _factor: f32) -> Result<Option<LowRank>> {
        Ok(None)
    }
}

/// A sum as a change.
pub(super) struct Added(pub Box<dyn Delta>);

impl Change for Added {
    fn fits(&self, sizes: Sizes) -> bool {
        self.0.fits(sizes)
    }

    fn told(&self) -> String {
        self.0.told()
    }

    fn apply(&self, file: &Tensors, sizes: Sizes, strength: f32, weights: &mut [f32]) -> Result<()> {
        self.0.add(file, sizes, strength, weights)
    }

    fn rank(&self) -> Option<usize> {
        self.0.rank()
    }

    fn product(&self, file: &Tensors, sizes: Sizes, strength: f32) -> Result<Option<LowRank>> {
        self.0.product(file, sizes, strength)
    }
}

/// What a layer's product is multiplied by: `scale` where the file has one, else alpha / rank, else 1.
pub(super) fn scale(scale: Option<f32>, alpha: Option<f32>, rank: usize) -> f32 {
    scale.or(alpha.map(|alpha| alpha / rank.max(1) as f32)).unwrap_or(1.0)
}

/// An error that names two tensors which do not go together.
pub(super) fn at_odds(file: &Tensors, a: &Stored, b: &Stored) -> Error {
    let reason = format!(
        "tensors {} {:?} and {} {:?} do not fit each other: the file is broken or of a kind that is not known",
        a.name, a.shape, b.name, b.shape
    );
    Error::model(file.path(), reason)
}

/// An error for a rank of 0.
pub(super) fn without_rank(file: &Tensors, tensor: &Stored) -> Error {
    Error::model(
        file.path(),
        format!("tensor {} {:?} has rank 0; use another file", tensor.name, tensor.shape),
    )
}
