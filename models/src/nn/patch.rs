//! What changes weights on their way from a file into a network.

use std::sync::Arc;

use super::low_rank::LowRank;
use crate::{Error, Result};

/// Ranks up to which products are joined into one, which then are all in memory at once.
const JOINED: usize = 512;

/// Ranks of the one product that all patches of a tensor are together, if each is one and they are not too many.
pub(super) fn joined_rank(name: &str, patches: &[Arc<dyn Patch>]) -> Option<usize> {
    let ranks = patches.iter().filter(|patch| patch.touches(name)).map(|patch| patch.rank(name));
    let ranks = ranks.collect::<Option<Vec<usize>>>()?;
    let all = ranks.iter().sum();
    (ranks.len() == 1 || (1..=JOINED).contains(&all)).then_some(all)
}

/// Bytes that a thread needs to change a tensor of this shape, beside what it becomes.
pub(crate) fn working_bytes(name: &str, shape: &[usize], patches: &[Arc<dyn Patch>]) -> u64 {
    let outputs = shape.first().copied().unwrap_or(1);
    let columns: usize = shape.iter().skip(1).product();
    // As it is read, joined, turned and packed.
    let product = |rank: usize| 4 * rank * (outputs + columns);
    let numbers = joined_rank(name, patches).map_or_else(
        || {
            let ranks = patches.iter().filter_map(|patch| patch.rank(name));
            // The weights, and what one of the patches makes of them.
            3 * outputs * columns + ranks.map(product).max().unwrap_or_default()
        },
        product,
    );
    (numbers * size_of::<f32>()) as u64
}

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

    /// Ranks of the product that the change of a tensor is, if it is one.
    fn rank(&self, _name: &str) -> Option<usize> {
        None
    }

    /// The same change as that product: several of those are one, and a device may add them to
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
