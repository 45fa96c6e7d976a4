//! What the job's model is made of.

use crate::abi::{
    LATENTD_INPUT, LATENTD_MIDDLE, LATENTD_MODELS, LATENTD_OUTPUT, latentd_list, latentd_model_describe,
    latentd_model_info, latentd_model_site, latentd_text,
};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::host::text;
use crate::stages::Part;

/// A model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// "sd1", and so on.
    pub family: String,
    /// What its network predicts, as the ABI's code.
    pub prediction: u32,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Channels that the UNet takes: those, and what it is shown behind them.
    pub in_channels: usize,
    /// Pixels to a latent, each way.
    pub latent_down: usize,
    /// What the VAE's own latents are multiplied by.
    pub latent_scale: f64,
    /// Width of the tokens that it is told.
    pub context_width: usize,
    /// Width of the pooled text; 0 of models that take none.
    pub pooled_width: usize,
    /// Skips, which are input blocks.
    pub skips: usize,
    /// The blocks of the UNet, in the order in which they run.
    pub sites: Vec<ModelSite>,
    /// Another number each time another model's turn comes within the job.
    pub turn: u32,
}

/// A block of a UNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSite {
    /// On the way down, in the middle, on the way up.
    pub part: Part,
    /// Which block of that part.
    pub index: usize,
    /// Of h: after an input or middle block, before an output block.
    pub channels: usize,
    /// Of the skip that joins an output block; else 0.
    pub skip_channels: usize,
    /// What the latents' size is divided by there, rounded up.
    pub down: usize,
    /// Transformer layers in the block.
    pub attentions: usize,
    /// Attention heads of each.
    pub heads: usize,
    /// Channels of those layers; 0 without.
    pub width: usize,
}

impl Call<'_> {
    /// What the job's model is made of: of its own checkpoint while it is planned; of the one whose turn it is in stages.
    pub fn model(&self) -> Result<Model> {
        let models: &latentd_model_describe = self.host.service(LATENTD_MODELS)?;
        let describe = models.describe.ok_or_else(lacks)?;
        let mut info = latentd_model_info {
            size: size_of::<latentd_model_info>() as u32,
            prediction: 0,
            family: latentd_text { data: std::ptr::null(), length: 0 },
            latent_channels: 0,
            in_channels: 0,
            latent_down: 0,
            context_width: 0,
            pooled_width: 0,
            skips: 0,
            latent_scale: 0.0,
            sites: latentd_list { items: std::ptr::null(), count: 0, stride: 0 },
            turn: 0,
            reserved: 0,
        };
        // SAFETY: the call is under way; the struct is ours.
        Error::of_service(unsafe { describe(self.pointer, &raw mut info) })?;
        // SAFETY: the host lends it until the call ends.
        let sites = unsafe { crate::host::items::<latentd_model_site>(info.sites) }?;
        Ok(Model {
            // SAFETY: likewise.
            family: unsafe { text(info.family) }.to_owned(),
            prediction: info.prediction,
            latent_channels: info.latent_channels as usize,
            in_channels: info.in_channels as usize,
            latent_down: info.latent_down as usize,
            latent_scale: info.latent_scale,
            context_width: info.context_width as usize,
            pooled_width: info.pooled_width as usize,
            skips: info.skips as usize,
            sites: sites.into_iter().map(ModelSite::of).collect(),
            turn: info.turn,
        })
    }
}

impl ModelSite {
    fn of(site: latentd_model_site) -> Self {
        Self {
            part: match site.part {
                LATENTD_INPUT => Part::Input,
                LATENTD_MIDDLE => Part::Middle,
                LATENTD_OUTPUT => Part::Output,
                _ => Part::Other,
            },
            index: site.index as usize,
            channels: site.channels as usize,
            skip_channels: site.skip_channels as usize,
            down: site.down as usize,
            attentions: site.attentions as usize,
            heads: site.heads as usize,
            width: site.width as usize,
        }
    }
}
