//! The networks, one file each, with the configuration that is read from a checkpoint's tensors.

pub mod attention_bank;
pub mod clip;
mod controlnet;
mod detect;
mod file_network;
mod ip_adapter;
pub mod known;
pub mod restorers;
pub mod standalone;
pub mod taesd;
pub mod unet;
mod unet_alone;
pub(crate) mod unet_call;
mod unet_config;
mod unet_down;
mod unet_layers;
mod unet_own;
pub mod unet_residuals;
pub mod unet_sites;
pub mod upscalers;
pub mod vae;
mod wrapped;
