//! attention: what rows of a pass look up otherwise than the model says, declared once per pass and model.

use std::ffi::c_void;

use super::basic::{latentd_call, latentd_handle, latentd_status, latentd_text};
use super::evaluation::latentd_pass;

/// A picture's places to each other.
pub const LATENTD_SELF: u32 = 1;
/// A picture's places to what the model is told.
pub const LATENTD_CROSS: u32 = 2;

/// Further keys and values with a softmax of their own: what is found there is added with weight · mask.
pub const LATENTD_ATTENTION_SET: u32 = 1;
/// The model's own keys: their weight and mask. Of several rules both are multiplied.
pub const LATENTD_ATTENTION_OWN: u32 = 2;
/// Every place finds its own value; in LATENTD_SELF, whatever else holds there.
pub const LATENTD_ATTENTION_IDENTITY: u32 = 3;

/// Something that rows look up otherwise. Several rules on one attention all hold.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_attention_rule {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// LATENTD_ATTENTION_SET, LATENTD_ATTENTION_OWN or LATENTD_ATTENTION_IDENTITY.
    pub kind: u32,
    /// LATENTD_SELF or LATENTD_CROSS.
    pub which: u32,
    /// LATENTD_INPUT, LATENTD_MIDDLE, LATENTD_OUTPUT, or LATENTD_ANY.
    pub part: u32,
    /// Which block of that part, or LATENTD_ANY. One that has no attention is nowhere.
    pub index: u32,
    /// Which transformer layer within the block, or LATENTD_ANY.
    pub layer: u32,
    /// Of rows of these roles, a sum of LATENTD_ROLES(…); 0: all.
    pub roles: u32,
    /// Of this branch, or LATENTD_ANY.
    pub branch: u32,
    /// Of this picture, or LATENTD_ANY.
    pub image: u32,
    /// 0.
    pub reserved: u32,
    /// Of rows with exactly this tag; empty: the sampler's own.
    pub tag: latentd_text,
    /// Of the pass's steps, 0…1; both 0: all.
    pub from: f64,
    /// As `from`; not included.
    pub until: f64,
    /// Of SET and OWN. 1 is as it is; zero means zero.
    pub weight: f64,
    /// SET, in LATENTD_CROSS: (n, tokens, width) f32, as the model is told it, through each block's own projections; n is 1, or as
    /// many as the pass has pictures. 0 with `key` and `value`.
    pub context: latentd_handle,
    /// SET: (n, tokens, channels) f32, of exactly one attention, which part, index and layer name.
    pub key: latentd_handle,
    /// As `key`, of the same sizes.
    pub value: latentd_handle,
    /// SET and OWN: where, over the canvas: an image of one channel, or a tensor (1, 1, h, w) f32 of 0…1; of any size, resized
    /// (bilinear) to each block; of a tile its part counts. 0: everywhere.
    pub mask: latentd_handle,
}

/// A pass begins, or another model goes on in it.
#[repr(C)]
pub struct latentd_attention {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// Of what the model is told.
    pub context_width: u32,
    /// Which.
    pub pass: *const latentd_pass,
    /// Declares a rule, for as long as this pass and its model last. Tensors are the host's from then on. \[job\]
    pub add: Option<
        unsafe extern "C" fn(call: *mut latentd_call, rule: *const latentd_attention_rule) -> latentd_status,
    >,
}

/// LATENTD_ATTENTION.
#[repr(C)]
pub struct latentd_attention_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *mut latentd_call,
            args: *const latentd_attention,
        ) -> latentd_status,
    >,
}
