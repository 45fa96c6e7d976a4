//! Whole differences: of weights, of biases, of norms.

use super::change::{Delta, Sizes};
use super::math::add_scaled;
use super::source::Stored;
use crate::Result;
use crate::files::Tensors;

pub(super) struct Full {
    pub difference: Stored,
    /// What it is multiplied by beside the strength.
    pub scale: f32,
}

impl Delta for Full {
    fn fits(&self, sizes: Sizes) -> bool {
        self.difference.size(0) == sizes.outputs && self.difference.count() == sizes.outputs * sizes.columns()
    }

    fn told(&self) -> String {
        format!("{:?}", self.difference.shape)
    }

    fn add(&self, file: &Tensors, _sizes: Sizes, factor: f32, sums: &mut [f32]) -> Result<()> {
        add_scaled(factor * self.scale, &self.difference.read(file)?, sums);
        Ok(())
    }
}
