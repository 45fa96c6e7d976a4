//! A VAE in a file of its own.

use crate::files::{StoredTensor, Tensors};
use crate::{Error, Result};

/// Begins the names of a VAE's tensors, wherever they come from.
const PREFIX: &str = "first_stage_model.";

/// A tensor that every VAE has, without the prefix.
const MARK: &str = "decoder.conv_in.weight";

/// What files of VAEs carry beside them: the discriminator that they were trained against, and averages.
const HARMLESS: [&str; 2] = ["loss.", "model_ema."];

/// A file that has a VAE: one of its own, or a whole checkpoint.
pub fn with_vae(file: Tensors) -> Result<Tensors> {
    if file.shape(&format!("{PREFIX}{MARK}")).is_some() {
        return Ok(file);
    }
    Err(Error::model(file.path(), format!("holds no VAE of Stable Diffusion: it has no tensor {MARK}")))
}

/// The tensors that the VAE in such a file is made of, sorted by name, without the prefix.
pub fn vae_parts(file: &Tensors) -> impl Iterator<Item = Result<StoredTensor<'_>>> {
    let is_part = |tensor: &Result<StoredTensor<'_>>| {
        tensor.as_ref().map_or(true, |tensor| !HARMLESS.iter().any(|prefix| tensor.name.starts_with(prefix)))
    };
    file.under(PREFIX).filter(is_part)
}
