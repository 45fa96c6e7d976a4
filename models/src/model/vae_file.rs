//! A VAE in a file of its own.

use super::family::Family;
use crate::files::{StoredTensor, Tensors, VAE};
use crate::{Error, Result};

/// A tensor that every VAE has, without the prefix.
const MARK: &str = "decoder.conv_in.weight";

/// A file that has a VAE: one of its own, or a whole checkpoint.
pub fn with_vae(file: Tensors) -> Result<Tensors> {
    if file.shape(&format!("{VAE}{MARK}")).is_some() {
        return Ok(file);
    }
    Err(Error::model(file.path(), format!("holds no VAE of Stable Diffusion: it has no tensor {MARK}")))
}

/// The tensors that the VAE in such a file is made of, sorted by name, without the prefix.
pub fn vae_parts(file: &Tensors) -> impl Iterator<Item = Result<StoredTensor<'_>>> {
    let harmless = || Family::all().iter().flat_map(|family| family.harmless);
    let is_harmless = move |name: &str| {
        harmless().filter_map(|prefix| prefix.strip_prefix(VAE)).any(|prefix| name.starts_with(prefix))
    };
    file.under(VAE).filter(move |tensor| tensor.as_ref().map_or(true, |tensor| !is_harmless(tensor.name)))
}
