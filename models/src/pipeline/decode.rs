//! Latents to pictures.

use super::watch::Watch;
use crate::image::{RgbImage, tensor_to_image};
use crate::networks::vae::Vae;
use crate::nn::Run;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Decodes latents `(batch, channels, height, width)` of a family's scale one after the other; `done` is told of each.
pub(super) fn decode(
    vae: &Vae,
    latents: &Tensor,
    scale: f64,
    watch: &mut dyn Watch,
    mut done: impl FnMut(&mut dyn Watch, RgbImage),
) -> Result<()> {
    for index in 0..latents.dim(0) {
        if watch.cancelled() {
            return Err(Error::Cancelled);
        }
        let latent = latents.narrow(0, index, 1)?.scaled(1.0 / scale);
        let cancelled = || watch.cancelled();
        let image = tensor_to_image(&vae.decode(&latent, &Run::until(&cancelled))?)?;
        done(watch, image);
    }
    Ok(())
}
