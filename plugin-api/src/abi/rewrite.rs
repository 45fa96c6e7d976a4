//! request.rewrite: a request made anew before it is resolved.

use super::basic::{latentd_call, latentd_list, latentd_status, latentd_text};
use super::entry::latentd_job;

/// A text of what is wanted.
pub const LATENTD_PROMPT: u32 = 1;
/// A text of what is steered away from.
pub const LATENTD_NEGATIVE: u32 = 2;

/// A prompt of a request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_prompt {
    /// As it was written, styles around it.
    pub text: latentd_text,
    /// JSON pointer into the request: "/prompt", "/regions/0/prompt", "/plugins/face-fix/passes/0/ad_prompt"; of a list that
    /// has a text for each picture "/prompt/3".
    pub field: latentd_text,
    /// LATENTD_PROMPT or LATENTD_NEGATIVE.
    pub kind: u32,
    /// Which of the request's pictures it is for; LATENTD_ANY: all of them.
    pub image: u32,
}

/// A request that may be rewritten.
#[repr(C)]
pub struct latentd_rewrite {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The request as it was sent, with seeds drawn, styles in the prompts and the defaults of plugins' parameters put in: names
    /// and sizes are not settled yet. Pictures are left out of it.
    pub job: *const latentd_job,
    /// latentd_prompt: prompt, negative_prompt, those of a hires pass and of regions, and each parameter of any plugin of the
    /// request that its schema marks `x-prompt` (true, or "negative").
    pub prompts: latentd_list,
    /// uint64_t, one for each picture: what draws it alone.
    pub seeds: latentd_list,
}

/// A stage with one function. \[control\]
#[repr(C)]
pub struct latentd_rewrite_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// At submit, before anything of the request is resolved; no instance is there. `reply` in slot i: a patch for the i-th
    /// request, counted from 0; 256 at most, which become one job with their pictures one after the other. Without a reply
    /// the request stays as it is. A patch is a map over the request: maps merge, all else replaces, nil takes away; at its top
    /// a key that begins with "/" is a JSON pointer to one place, of a list's element too. `prompt`, `negative_prompt` and
    /// `x-prompt` parameters may become lists, one text for each picture; count and seeds may change. What comes of it is
    /// looked at as if a client had sent it. How pictures come back (output, preview, strict, keep_alive, on_disconnect) is the
    /// user's. Within 5 seconds. Not called for what is read back from a picture.
    pub run: Option<
        unsafe extern "C" fn(call: *mut latentd_call, rewrite: *const latentd_rewrite) -> latentd_status,
    >,
}
