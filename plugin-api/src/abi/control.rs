//! control.residuals: what is added within the UNet, as ControlNets and T2I-Adapters make it.

use std::ffi::c_void;

use super::basic::{latentd_call, latentd_handle, latentd_status};
use super::evaluation::latentd_eval;

/// To the output of an input block, before it is stored as a skip: both ways go on with it (T2I-Adapter). Block 0 is the first
/// convolution.
pub const LATENTD_AT_ENCODER: u32 = 1;
/// To a skip, in the order in which they are stored, once the way down has ended (ControlNet).
pub const LATENTD_AT_SKIP: u32 = 2;
/// To the output of the middle block (ControlNet).
pub const LATENTD_AT_MIDDLE: u32 = 3;

/// Something that is added. Several at one place add up.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_residual {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// LATENTD_AT_ENCODER, LATENTD_AT_SKIP or LATENTD_AT_MIDDLE.
    pub at: u32,
    /// Which input block or skip, from 0; of LATENTD_AT_MIDDLE 0.
    pub index: u32,
    /// How many `rows` there are.
    pub row_count: u32,
    /// The rows of the evaluation that the tensor's entries are for, each once; null: all of them. Others stay as they are, to the
    /// bit.
    pub rows: *const u32,
    /// (rows, channels, h, w) f32, of the place's size; or (1, channels, h, w), for all of these rows.
    pub tensor: latentd_handle,
    /// How much of it counts where, over the canvas: an image of one channel, or a tensor (1, 1, h, w) f32 of 0…1; of any size,
    /// resized (bilinear) to the place; of a tile its part counts. 0: all of it everywhere.
    pub mask: latentd_handle,
    /// What it is multiplied by. 1 is as it is; of zero nothing is added.
    pub scale: f64,
}

/// The UNet is about to be asked.
#[repr(C)]
pub struct latentd_control {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// What it is of, whoever asked for it: all its rows, with what the model is told.
    pub eval: *const latentd_eval,
    /// (rows, channels, h, w) f32, as the UNet takes it: x / √(sigma² + 1). What some models are shown behind it is not among it.
    pub x: latentd_handle,
    /// Adds something in this evaluation. The tensor is the host's from then on. INVALID with a text: there is no such place or
    /// row, or a size or number that is none there. \[job\]
    pub add: Option<
        unsafe extern "C" fn(call: *mut latentd_call, residual: *const latentd_residual) -> latentd_status,
    >,
}

/// LATENTD_CONTROL_RESIDUALS.
#[repr(C)]
pub struct latentd_control_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *mut latentd_call,
            args: *const latentd_control,
        ) -> latentd_status,
    >,
}
