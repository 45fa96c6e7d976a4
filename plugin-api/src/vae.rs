//! The VAE of the pass's model, for stages that have it at hand.

use crate::abi::{LATENTD_VAE, latentd_vae};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::tensor::Tensor;

impl<'a> Call<'a> {
    fn vae(&self) -> Result<&'static latentd_vae> {
        self.host.service(LATENTD_VAE)
    }

    /// Latents `(1, channels, height / 8, width / 8)` in the model's scale of an image without alpha: one of those that it may be,
    /// which the seed says. Only in [`crate::ImagePost`].
    pub fn encode_image(&self, image: &Image<'_>, seed: u64) -> Result<Tensor<'a>> {
        let encode = self.vae()?.encode_image.ok_or_else(lacks)?;
        let mut handle = 0;
        // SAFETY: the call is under way; the handle is ours.
        Error::of_service(unsafe { encode(self.pointer, image.handle, seed, &raw mut handle) })?;
        Ok(Tensor { call: *self, handle })
    }

    /// The image of latents `(1, channels, height, width)` in the model's scale. Only in [`crate::ImagePost`].
    pub fn decode_latents(&self, latents: &Tensor<'_>) -> Result<Image<'a>> {
        let decode = self.vae()?.decode_latents.ok_or_else(lacks)?;
        let mut handle = 0;
        // SAFETY: the call is under way; the handle is ours.
        Error::of_service(unsafe { decode(self.pointer, latents.handle, &raw mut handle) })?;
        Image::of(*self, handle)
    }
}
