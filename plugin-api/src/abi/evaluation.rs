//! What a model evaluation is of, and the pictures and passes around it.

use std::ffi::c_void;

use super::basic::{latentd_call, latentd_handle, latentd_list, latentd_status, latentd_text};

/// A row's prediction is what is wanted.
pub const LATENTD_COND: u32 = 1;
/// A row's prediction is what is steered away from.
pub const LATENTD_UNCOND: u32 = 2;
/// A row's prediction is for something else.
pub const LATENTD_OTHER: u32 = 3;

/// The request's own pass.
pub const LATENTD_BASE: u32 = 1;
/// The second pass of a hires fix.
pub const LATENTD_HIRES: u32 = 2;

/// The network predicts noise.
pub const LATENTD_PREDICTS_NOISE: u32 = 1;
/// The network predicts v.
pub const LATENTD_PREDICTS_VELOCITY: u32 = 2;
/// The network predicts the picture.
pub const LATENTD_PREDICTS_SAMPLE: u32 = 3;
/// The network predicts a flow's velocity.
pub const LATENTD_PREDICTS_FLOW: u32 = 4;

/// Part of a canvas, in pixels of the pass. x and y may be negative and x + w beyond `canvas_w`: a tile that hangs over. What is
/// no tile has the whole canvas.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct latentd_region {
    /// From the left.
    pub x: i32,
    /// From the top.
    pub y: i32,
    /// Of the part.
    pub w: u32,
    /// Of the part.
    pub h: u32,
    /// Of the whole.
    pub canvas_w: u32,
    /// Of the whole.
    pub canvas_h: u32,
}

/// One row of a batch. Rows come in any order and company: tell them by these fields, never by index.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_row {
    /// Which of the job's pictures; of loops, and of what is continued part by part, each is drawn by itself, from 0.
    pub image: u32,
    /// Which branch of its guidance; the same number all through a pass.
    pub branch: u32,
    /// LATENTD_COND, LATENTD_UNCOND or LATENTD_OTHER.
    pub role: u32,
    /// 0.
    pub reserved: u32,
    /// Of its picture.
    pub seed: u64,
    /// guided = uncond + cfg_scale · Σ weight · mask · (cond − uncond). Where a step has no uncond row of a picture, its first
    /// cond stands in and cfg_scale is 1; with an OTHER row of the sampler's own (edit models) it is made otherwise.
    pub weight: f64,
    /// Empty: the sampler's own; else whose and what.
    pub tag: latentd_text,
    /// The part of the picture that it shows.
    pub region: latentd_region,
    /// Where the branch counts: a tensor (1, 1, h, w) of latents, f32 of 0…1; 0: everywhere.
    pub mask: latentd_handle,
    /// What the model is told: a tensor (1, tokens, width), f32; 0 where a stage does not tell.
    pub context: latentd_handle,
    /// Likewise (1, width); 0 of models that have none.
    pub pooled: latentd_handle,
}

/// One evaluation of the model.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_eval {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// Jobs around this one.
    pub depth: u32,
    /// latentd_row.
    pub rows: latentd_list,
    /// LATENTD_BASE or LATENTD_HIRES.
    pub pass_kind: u32,
    /// Which pass of its kind, from 0.
    pub pass: u32,
    /// Of this pass, from 0.
    pub step: u32,
    /// Of this pass.
    pub steps: u32,
    /// Evaluations before it in this pass; some samplers make several a step.
    pub call: u32,
    /// What the network predicts: LATENTD_PREDICTS_…; stages see samples.
    pub prediction: u32,
    /// The noise level: x = sample + sigma · noise; with LATENTD_PREDICTS_FLOW x = (1 − sigma) · sample + sigma · noise.
    pub sigma: f64,
    /// Fractional.
    pub timestep: f64,
    /// Of a row: its latents, each a token of the finest block.
    pub grid_w: u32,
    /// As `grid_w`.
    pub grid_h: u32,
    /// In LATENTD_UNET_BLOCK, where rows may come in groups, one after the other: which this is, from 0. Else 0.
    pub group: u32,
    /// How many there are.
    pub groups: u32,
}

/// One picture with what belongs to it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_picture {
    /// Which of the job's.
    pub image: u32,
    /// 0.
    pub reserved: u32,
    /// What draws it alone.
    pub seed: u64,
    /// An image, or 0 where there is none yet. In LATENTD_PASS_BEGIN what it is drawn from: RGB as it will be encoded, filled in
    /// already where it is drawn if the request says so; 0 if that is noise, or what another pass drew.
    pub pixels: latentd_handle,
    /// In LATENTD_PASS_BEGIN where it is drawn anew, an image of one channel of the pass's size, white for anew; 0 for everywhere.
    pub mask: latentd_handle,
    /// In LATENTD_PASS_BEGIN the part of the user's picture, in its pixels, that `pixels` are of; all of it unless only what is
    /// masked is drawn.
    pub crop: latentd_region,
    /// In LATENTD_PASS_BEGIN `pixels` as they were before they were filled in where they are drawn; 0 if they were not.
    pub unfilled: latentd_handle,
}

/// A pass.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_pass {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// LATENTD_BASE or LATENTD_HIRES.
    pub kind: u32,
    /// Which of its kind, from 0.
    pub index: u32,
    /// Jobs around this one.
    pub depth: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// latentd_picture, without pixels but in LATENTD_PASS_BEGIN.
    pub pictures: latentd_list,
    /// Its steps.
    pub steps: u32,
    /// 1 if it begins with pictures or latents, 0 with noise alone.
    pub has_init: u32,
    /// Pixels of the request's own pass.
    pub base_w: u32,
    /// As `base_w`.
    pub base_h: u32,
    /// Pixels of the second pass of a hires fix; 0 without.
    pub hires_w: u32,
    /// As `hires_w`.
    pub hires_h: u32,
    /// How far it goes from what it begins with; 1 without.
    pub denoising_strength: f64,
}

/// LATENTD_PASS_BEGIN.
#[repr(C)]
pub struct latentd_pass_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Base and hires, each of every `n_iter`, before anything of it is encoded. Pictures that are replaced are drawn from, and a
    /// mask says where: on latents, to an inpainting checkpoint, and where the user's picture lies over what was drawn, which
    /// stays the user's, as do the colours that are corrected to. The part that only what is masked is drawn of stays too.
    /// \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *mut latentd_call,
            pass: *const latentd_pass,
        ) -> latentd_status,
    >,
}
