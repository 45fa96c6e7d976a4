//! What images are told: the stage that may change it, and the service that encodes texts.

use std::ffi::c_void;

use super::basic::{latentd_call, latentd_handle, latentd_list, latentd_status, latentd_text};
use super::evaluation::latentd_pass;

/// A token of a prompt.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct latentd_token {
    /// In the vocabulary of CLIP.
    pub id: u32,
    /// On the context's token axis: chunks of 77, one behind the other, each with begin, end and padding.
    pub place: u32,
    /// Bytes of the prompt that it is of: the first, and the one behind the last. Equal where it is of none. Where the text was
    /// mended before it was read (HTML's entities and the like) they may be those of a whole word or more.
    pub begin: u32,
    /// As `begin`.
    pub end: u32,
    /// What emphasis multiplies its state by.
    pub weight: f32,
    /// Not 0: a vector of an embedding stands here, as the host numbers them in this call; `id` is then nothing.
    pub embedding: u32,
}

/// Model calls of a pass, as latentd_eval.call counts them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct latentd_span {
    /// The first.
    pub from: u32,
    /// The one behind the last; LATENTD_ANY: up to the pass's end.
    pub until: u32,
}

/// One text that a branch of a picture's guidance is told. A prompt that changes from step to step is several.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_cond {
    /// Which of the job's pictures.
    pub image: u32,
    /// Which branch of its guidance: latentd_row.branch.
    pub branch: u32,
    /// LATENTD_COND or LATENTD_UNCOND.
    pub role: u32,
    /// 0.
    pub reserved: u32,
    /// The text, emphasis and all, without schedule, networks and the part's own weight.
    pub prompt: latentd_text,
    /// latentd_span: when it counts, ascending.
    pub spans: latentd_list,
    /// latentd_token: what the text encoder took, with the chunks that made it as long as what the prompt says at other steps.
    pub tokens: latentd_list,
    /// (1, tokens, width). Where another prompt is longer it may go on behind the last of `tokens`.
    pub context: latentd_handle,
    /// (1, width), or 0 where the model has none.
    pub pooled: latentd_handle,
}

/// What the pictures of a pass are told.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_conds {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The pass.
    pub pass: *const latentd_pass,
    /// latentd_cond.
    pub conds: latentd_list,
}

/// LATENTD_CONDITIONING.
#[repr(C)]
pub struct latentd_conditioning_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// When a pass begins, and each time another checkpoint goes on with it (refiner). What images of one pass are told alike
    /// is still told apart. \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *mut latentd_call,
            args: *const latentd_conds,
        ) -> latentd_status,
    >,
}

/// LATENTD_TEXTS: the text encoder that goes with the stage. At hand in LATENTD_CONDITIONING, elsewhere UNSUPPORTED.
#[repr(C)]
pub struct latentd_texts {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The tokens of a text in whole chunks, latentd_token, as the request's prompts are read: emphasis, BREAK and embeddings,
    /// no schedule, no networks. INVALID: no UTF-8, too long (1 MiB), or a weight that is no number. \[job\]
    pub tokenise: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            text: latentd_text,
            tokens: *mut latentd_list,
        ) -> latentd_status,
    >,
    /// From tokens in their order, whole chunks of 77, ids and weights changed as you like, with the request's clip skip and
    /// emphasis: a context (1, tokens, width), and (1, width) or 0. `like` is the place of a cond in the stage's list: the
    /// tokens stand in the place of its own beside what its prompt says at other steps (with those A1111's emphasis restores one
    /// mean), and the context is made as long. From a cond's own tokens it so gives the cond's own context, to the bit.
    /// LATENTD_ANY: alone. INVALID: no whole chunks, an id beyond the vocabulary, weights that are not finite. \[job\]
    pub encode: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            tokens: latentd_list,
            like: u32,
            context: *mut latentd_handle,
            pooled: *mut latentd_handle,
        ) -> latentd_status,
    >,
}
