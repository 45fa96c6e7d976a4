//! What makes pictures of the way there, at the picture's size.

use std::sync::Arc;

use super::components::Components;
use super::decode::by_taesd;
use super::freed::FreedAtTheEnd;
use super::watch::Watch;
use crate::image::{RgbImage, tensor_to_image};
use crate::networks::taesd::Taesd;
use crate::networks::vae::Vae;
use crate::nn::{Run, Wrap};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What makes pictures of the way there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PreviewDecoder {
    /// A linear map of the latents, at an eighth of the size.
    #[default]
    Latents,
    /// TAESD, at the picture's size.
    Taesd,
    /// The VAE, as the picture will be: each takes as long as that.
    Vae,
}

/// A decoder that is there beside the UNet.
pub(super) enum Previews {
    Taesd(Arc<Taesd>),
    /// With the family's scale of latents.
    Vae(Arc<Vae>, f64),
}

impl Previews {
    /// What is wanted; of latents alone if `None`. Where it cannot be had they are made without: they are no reason to draw
    /// nothing.
    pub(super) fn of(
        decoder: PreviewDecoder,
        wrap: Wrap,
        scale: f64,
        components: &mut dyn Components,
        watch: &mut dyn Watch,
    ) -> Result<Option<Self>> {
        let found = match decoder {
            PreviewDecoder::Latents => return Ok(None),
            PreviewDecoder::Taesd => components.taesd().map(|taesd| taesd.map(Self::Taesd)),
            PreviewDecoder::Vae => {
                components.preview_vae().map(|vae| vae.map(|vae| Self::Vae(wrapping(vae, wrap), scale)))
            }
        };
        match found {
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                watch.notice(&format!("previews are of latents alone: {error}"));
                Ok(None)
            }
            found => found,
        }
    }

    /// One latent's picture.
    pub(super) fn picture(&self, latent: &Tensor, run: &Run) -> Result<RgbImage> {
        match self {
            Self::Taesd(taesd) => by_taesd(taesd, latent, run),
            Self::Vae(vae, scale) => {
                let _memory = FreedAtTheEnd(vae.device().clone());
                tensor_to_image(&vae.decode(&latent.scaled(1.0 / scale), run)?)
            }
        }
    }
}

fn wrapping(vae: Arc<Vae>, wrap: Wrap) -> Arc<Vae> {
    if wrap == Wrap::default() { vae } else { Arc::new(vae.wrapping(wrap)) }
}
