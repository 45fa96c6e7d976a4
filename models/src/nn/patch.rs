//! What changes weights on their way from a file into a network.

use super::low_rank::LowRank;
use crate::{Error, Result};

/// A change of weights by tensor name: a LoRA at its strength, for one. Patches are applied in order, each to what the
/// former left, so one may be a function of the weight and not only a sum.
pub trait Patch: Send + Sync {
    /// Equal for patches that do the same: of the file's content and the strength.
    fn digest(&self) -> [u8; 32];

    /// Whether it changes this tensor. Names are those of the LDM layout, with their prefix, whatever the file's are.
    fn touches(&self, name: &str) -> bool;

    /// Changes the tensor's weights, row-major in the shape that the file has. Several tensors may be changed at once, on
    /// the threads that compute.
    ///
    /// # Errors
    /// If it does not fit the shape; the network is not built then.
    fn apply(&self, name: &str, shape: &[usize], weights: &mut [f32]) -> Result<()>;

    /// The same change of a tensor as a product, if it is one: several of those are one, and a device may add them to
    /// weights that it has packed already.
    fn product(&self, _name: &str) -> Result<Option<LowRank>> {
        Ok(None)
    }

    /// The error for a tensor that was finite and is not any more, which is found when its weights are packed.
    fn not_finite(&self, name: &str) -> Error {
        Error::NotFinite(format!("a patch makes {name} infinite"))
    }

    /// An error if what it was read from was written to meanwhile: asked after the last tensor.
    fn check_intact(&self) -> Result<()> {
        Ok(())
    }
}
