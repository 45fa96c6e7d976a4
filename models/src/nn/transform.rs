//! What changes the tokens that an attention looks up.

use super::backend::{Activations, Device};
use crate::error::Result;

/// A change of what goes into an attention's keys and values, as a hypernetwork makes it. It applies wherever the tokens
/// have a width that it knows: in cross-attention to the conditioning's, in self-attention to the picture's own.
pub trait KeyValueTransform: Send + Sync {
    /// Equal for those that do the same.
    fn digest(&self) -> [u8; 32];

    /// Whether it changes tokens of this width.
    fn applies_to(&self, width: usize) -> bool;

    /// `tokens (batch, count, width)` as keys are made of them.
    fn keys(&self, device: &Device, tokens: &Activations) -> Result<Activations>;

    /// `tokens (batch, count, width)` as values are made of them.
    fn values(&self, device: &Device, tokens: &Activations) -> Result<Activations>;
}
