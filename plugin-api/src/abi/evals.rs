//! The model of the pass, for stages around it.

use super::basic::{latentd_call, latentd_handle, latentd_list, latentd_status, latentd_text};

/// Whoever lies inside of the stage that asks.
pub const LATENTD_NEXT: u32 = 0;
/// The model with the stages within it, and no LATENTD_DENOISE_WRAP.
pub const LATENTD_UNWRAPPED: u32 = 1;
/// The model alone: no plugin takes part.
pub const LATENTD_BARE: u32 = 2;

/// What the model is asked.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_eval_args {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// LATENTD_NEXT, LATENTD_UNWRAPPED or LATENTD_BARE.
    pub inside: u32,
    /// (rows, channels, h, w) f32: noisy latents, not scaled; no more latents a row than the pass has.
    pub x: latentd_handle,
    /// Their noise level; 0: that of the stage.
    pub sigma: f64,
    /// latentd_row, one per row of x: given ones, changed or as they are, or new ones with a tag "NAME/what". Each is of a
    /// picture of the pass. context 0: that of the given row of the same picture and branch. mask, pooled and seed are not
    /// looked at. A row that shows a part of the picture says so by its region, and has its size: rows of one x are alike.
    pub rows: latentd_list,
}

/// What a rule of attention kept.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct latentd_kept {
    /// LATENTD_SELF or LATENTD_CROSS.
    pub which: u32,
    /// LATENTD_INPUT, LATENTD_MIDDLE or LATENTD_OUTPUT.
    pub part: u32,
    /// Which block of that part.
    pub index: u32,
    /// Which transformer layer within the block.
    pub layer: u32,
    /// Which of the job's pictures.
    pub image: u32,
    /// 0.
    pub reserved: u32,
    /// (1, tokens, channels) of CAPTURE; (1, keys) of RECEIVED. f32.
    pub tensor: latentd_handle,
}

/// LATENTD_EVALS: what evaluates, in LATENTD_DENOISE_WRAP.
#[repr(C)]
pub struct latentd_evals {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Denoised samples (rows, channels, h, w) in the order of args->rows, as predictions of the noise-free latents. While it
    /// is under way other functions of the same instance may be called on this thread: keep no lock. What fails inside ends
    /// the job, whatever is answered then. UNSUPPORTED in other stages. \[job\]
    pub eval: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            args: *const latentd_eval_args,
            outputs: *mut latentd_handle,
        ) -> latentd_status,
    >,
    /// All that a bank of the plugin's rules of attention has, latentd_kept; nothing before the first evaluation. NOT_FOUND: no
    /// rule of this pass names it. \[job\]
    pub bank: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            name: latentd_text,
            kept: *mut latentd_list,
        ) -> latentd_status,
    >,
}
