//! Stages: a table with one function each, which the job's thread calls.
//!
//! Several plugins on one stage form a chain: each gets what the one before left, in the order that their manifests give.

use std::ffi::c_void;

use super::basic::{latentd_call, latentd_handle, latentd_list, latentd_status};
use super::evaluation::{latentd_eval, latentd_pass};

/// The latents of a pass.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_latents {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Whose they are.
    pub pass: *const latentd_pass,
    /// (pictures, channels, h, w) f32, in the order of pass->pictures.
    pub latents: latentd_handle,
}

/// LATENTD_NOISE_INIT, LATENTD_LATENT_FINAL.
#[repr(C)]
pub struct latentd_latents_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *mut latentd_call,
            args: *const latentd_latents,
        ) -> latentd_status,
    >,
}

/// One "denoise x at sigma". All tensors are f32 in the model's own scale; outputs and guided are samples, that is predictions
/// of the noise-free latents, whatever the network predicts.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_denoise {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// What it is of.
    pub eval: *const latentd_eval,
    /// latentd_picture without pixels, one per entry of x and guided; empty in LATENTD_DENOISE_WRAP.
    pub images: latentd_list,
    /// (images, channels, h, w); in LATENTD_DENOISE_WRAP (rows, channels, h, w), in the order of eval->rows.
    pub x: latentd_handle,
    /// (rows, channels, h, w), in the order of eval->rows; in LATENTD_DENOISE_COMBINE, else 0.
    pub outputs: latentd_handle,
    /// (images, channels, h, w): what guidance made of the outputs; in LATENTD_DENOISE_COMBINE, else 0.
    pub guided: latentd_handle,
    /// What guided was made with.
    pub cfg_scale: f64,
}

/// LATENTD_DENOISE_BEFORE, LATENTD_DENOISE_WRAP, LATENTD_DENOISE_COMBINE.
#[repr(C)]
pub struct latentd_denoise_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *mut latentd_call,
            args: *const latentd_denoise,
        ) -> latentd_status,
    >,
}

/// What goes by at a place in the UNet.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_block {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// LATENTD_INPUT, LATENTD_INPUT_STORED, LATENTD_MIDDLE or LATENTD_OUTPUT.
    pub part: u32,
    /// Which block of that part.
    pub index: u32,
    /// Of h.
    pub channels: u32,
    /// Of the skip; 0 without.
    pub skip_channels: u32,
    /// 0.
    pub reserved: u32,
    /// What it is of: its rows are those that are here, in the order of the tensors.
    pub eval: *const latentd_eval,
    /// (rows, channels, h, w), f32 of the network's precision.
    pub h: latentd_handle,
    /// (rows, skip_channels, h, w) in LATENTD_OUTPUT, else 0. h may be larger by a row or a column, which will be left out.
    pub skip: latentd_handle,
}

/// LATENTD_UNET_BLOCK.
#[repr(C)]
pub struct latentd_unet_block_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *mut latentd_call,
            args: *const latentd_block,
        ) -> latentd_status,
    >,
}

/// Pictures, all of one pass at once; in LATENTD_BATCH_POST all that are drawn together, of every `n_iter`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_pictures {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Whose they are; null in LATENTD_BATCH_POST and LATENTD_INFOTEXT_WRITE.
    pub pass: *const latentd_pass,
    /// latentd_picture. Their number, order and seeds stay: of a hires fix those of its last pass; each loop, and each part of
    /// what is continued, comes by itself, and a part keeps its size.
    pub pictures: latentd_list,
}

/// LATENTD_IMAGE_POST, LATENTD_BATCH_POST.
#[repr(C)]
pub struct latentd_pictures_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *mut latentd_call,
            args: *const latentd_pictures,
        ) -> latentd_status,
    >,
}
