//! What the job's model is made of.

use super::basic::{latentd_call, latentd_list, latentd_status, latentd_text};

/// A block of the UNet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct latentd_model_site {
    /// LATENTD_INPUT, LATENTD_MIDDLE or LATENTD_OUTPUT.
    pub part: u32,
    /// Which block of that part; LATENTD_INPUT 0 is the first convolution.
    pub index: u32,
    /// Of h: after an input or middle block, before an output block.
    pub channels: u32,
    /// Of the skip that joins it, in LATENTD_OUTPUT; else 0.
    pub skip_channels: u32,
    /// What the latents' size is divided by there, rounded up.
    pub down: u32,
    /// Transformer layers in the block.
    pub attentions: u32,
    /// Attention heads of each.
    pub heads: u32,
    /// Channels of those layers; 0 without.
    pub width: u32,
}

/// A model.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_model_info {
    /// sizeof of it, as the plugin knows it; stays.
    pub size: u32,
    /// LATENTD_PREDICTS_…
    pub prediction: u32,
    /// "sd1", and so on.
    pub family: latentd_text,
    /// Channels of latents.
    pub latent_channels: u32,
    /// Channels that the UNet takes: those, and what it is shown behind them.
    pub in_channels: u32,
    /// Pixels to a latent, each way. Pictures are multiples of it.
    pub latent_down: u32,
    /// Of what the model is told: (tokens, width).
    pub context_width: u32,
    /// Of the pooled text; 0 of models that take none.
    pub pooled_width: u32,
    /// Skips, which are input blocks, and places of LATENTD_AT_ENCODER and LATENTD_AT_SKIP.
    pub skips: u32,
    /// What the VAE's own latents are multiplied by.
    pub latent_scale: f64,
    /// latentd_model_site, in the order in which they run: skip i is stored by LATENTD_INPUT i, and taken by LATENTD_OUTPUT
    /// skips − 1 − i.
    pub sites: latentd_list,
    /// Another number each time another model's turn comes within the job: what was opened with on_base is closed then, and
    /// opened again.
    pub turn: u32,
    /// 0.
    pub reserved: u32,
}

/// LATENTD_MODELS: what the job's model is made of.
#[repr(C)]
pub struct latentd_model_describe {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Fills `info` as far as its size goes: of the job's own checkpoint while it is planned; of the one whose turn it is in
    /// stages, which another pass or a refiner may change. UNSUPPORTED where there is none. \[control\] \[job\]
    pub describe: Option<
        unsafe extern "C" fn(call: *mut latentd_call, info: *mut latentd_model_info) -> latentd_status,
    >,
}
