//! Where the pipeline gets its networks from.

use std::sync::Arc;

use crate::model::{Model, ModelFacts, ModelShape, TextEncoder};
use crate::networks::taesd::Taesd;
use crate::networks::unet::UNet;
use crate::networks::vae::Vae;
use crate::nn::KeyValueTransform;
use crate::{Error, Result};

/// Lends a request's networks, one phase at a time: what is not asked for need not be in memory, and may leave it while
/// another is at work.
pub trait Components: Send {
    /// Somebody else may need the room: what is lent is asked for again before it is used.
    fn rest(&mut self) {}

    /// A pass begins, with the request's own checkpoint.
    fn begin_pass(&mut self) {}

    /// The second pass of a hires fix begins: with the request's own checkpoint, as here, or with another one; what is known of
    /// that then.
    fn begin_hires_pass(&mut self) -> Result<Option<ModelFacts>> {
        self.begin_pass();
        Ok(None)
    }

    /// From now on, until the next pass begins, the networks of another checkpoint are lent, which goes on where the request's
    /// own ends; what is known of it. Nothing of the former is held any more.
    ///
    /// # Errors
    /// If there is none.
    fn refine(&mut self) -> Result<ModelFacts> {
        Err(Error::Request("there is no refiner to go on with".to_owned()))
    }

    /// What the checkpoint is made of whose networks are lent now; `None` if nobody keeps that.
    fn shape(&self) -> Option<Arc<ModelShape>> {
        None
    }

    /// For the time in which prompts are encoded.
    fn text_encoder(&mut self) -> Result<Arc<TextEncoder>>;

    /// For one pass of the sampler's loop.
    fn unet(&mut self) -> Result<Arc<UNet>>;

    /// For the time in which images are encoded or decoded.
    fn vae(&mut self) -> Result<Arc<Vae>>;

    /// The same VAE in f32, for a picture that came out as NaN; `None` if [`Self::vae`] is in f32 already, or it cannot be
    /// had.
    fn vae_in_f32(&mut self) -> Result<Option<Arc<Vae>>> {
        Ok(None)
    }

    /// TAESD for latents of this model, for a picture or previews; `None` if there is none.
    fn taesd(&mut self) -> Result<Option<Arc<Taesd>>> {
        Ok(None)
    }

    /// The VAE for previews, beside the UNet; `None` if it cannot be had there.
    fn preview_vae(&mut self) -> Result<Option<Arc<Vae>>> {
        Ok(None)
    }

    /// What changes tokens on their way to keys and values of this pass's attentions: hypernetworks.
    fn transforms(&mut self) -> Result<Vec<Arc<dyn KeyValueTransform>>> {
        Ok(vec![])
    }
}

/// A model whose networks are all in memory.
impl Components for &Model {
    fn text_encoder(&mut self) -> Result<Arc<TextEncoder>> {
        Ok(Arc::clone(Model::text_encoder(self)))
    }

    fn unet(&mut self) -> Result<Arc<UNet>> {
        Ok(Arc::clone(Model::unet(self)))
    }

    fn vae(&mut self) -> Result<Arc<Vae>> {
        Ok(Arc::clone(Model::vae(self)))
    }

    fn preview_vae(&mut self) -> Result<Option<Arc<Vae>>> {
        self.vae().map(Some)
    }
}
