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
/// Further keys and values in the softmax of the model's own, behind them; weight multiplies their values, and of zero there are
/// none.
pub const LATENTD_ATTENTION_APPEND: u32 = 4;
/// Numbers added to the scores of the model's own keys before the softmax, the same for all heads. Of several rules they add up;
/// nothing is added to keys that were appended. Computed on the host: for few keys or small pictures.
pub const LATENTD_ATTENTION_BIAS: u32 = 5;
/// In LATENTD_SELF: what keys and values are made of is kept in `bank`, of each picture what it was last.
pub const LATENTD_ATTENTION_CAPTURE: u32 = 6;
/// In LATENTD_SELF: what `bank` has of the row's picture (of another one, if nothing of it) is appended, through the attention's own
/// projections; weight as of APPEND. Nothing, where nothing was kept yet.
pub const LATENTD_ATTENTION_BANK: u32 = 7;
/// The attention that each key receives is kept in `bank`, of each picture what it was last: the mean over heads, summed over
/// queries, of scores with what BIAS adds to them. Computed on the host, as BIAS is.
pub const LATENTD_ATTENTION_RECEIVED: u32 = 8;

/// Something that rows look up otherwise. Several rules on one attention all hold.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_attention_rule {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// LATENTD_ATTENTION_SET, LATENTD_ATTENTION_OWN, …
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
    /// Of SET, OWN, APPEND and BANK. 1 is as it is; zero means zero.
    pub weight: f64,
    /// SET and APPEND, in LATENTD_CROSS: (n, tokens, width) f32, as the model is told it, through each block's own projections; n is 1, or as
    /// many as the pass has pictures. 0 with `key` and `value`.
    pub context: latentd_handle,
    /// SET and APPEND: (n, tokens, channels) f32, of exactly one attention, which part, index and layer name.
    pub key: latentd_handle,
    /// As `key`, of the same sizes.
    pub value: latentd_handle,
    /// SET and OWN: where, over the canvas: an image of one channel, or a tensor (1, 1, h, w) f32 of 0…1; of any size, resized
    /// (bilinear) to each block; of a tile its part counts. 0: everywhere.
    pub mask: latentd_handle,
    /// BIAS: (1, keys) f32, or (queries, keys) of exactly one attention, which part, index and layer name. There must be as many as
    /// the row has when it is evaluated: tokens of what it is told, or places of its picture there.
    pub bias: latentd_handle,
    /// CAPTURE, BANK and RECEIVED: a name of the plugin's own, 1 to 64 bytes. It has what it has as long as the pass and its model
    /// last; `bank` of latentd_evals reads it.
    pub bank: latentd_text,
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
