//! A VAE in a file of its own.

use crate::files::{StoredTensor, Tensors};
use crate::{Error, Result};

/// Begins the names of a VAE's tensors, wherever they come from.
const PREFIX: &str = "first_stage_model.";

/// A tensor that every VAE has, without the prefix.
const MARK: &str = "decoder.conv_in.weight";

/// What files of VAEs carry beside them: the discriminator that they were trained against, and averages.
const HARMLESS: [&str; 2] = ["loss.", "model_ema."];

/// The file's tensors by the names that a checkpoint's VAE has. A whole checkpoint's VAE will do.
pub fn vae_tensors(file: Tensors) -> Result<Tensors> {
    if file.shape(&format!("{PREFIX}{MARK}")).is_some() {
        return Ok(file);
    }
    if file.shape(MARK).is_some() {
        return Ok(file.with_prefix("", PREFIX));
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
