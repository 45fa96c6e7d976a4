//! prompt.tags: what a prompt says in `<…>` that the host does not know.

use super::basic::{latentd_bytes, latentd_call, latentd_file, latentd_list, latentd_status, latentd_text};

/// A tag of a prompt: `<NAME:ARGUMENT:…>`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_tag {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// "lora", or the name of a tag that the host does not know.
    pub name: latentd_text,
    /// latentd_text: what stands between colons behind the name, as it is written.
    pub arguments: latentd_list,
    /// Of a LoRA its file, or 0 if there is none of its name; of others 0.
    pub file: latentd_file,
    /// The plugin's own parameters of the request, with their defaults.
    pub params: latentd_bytes,
}

/// A stage with one function. \[control\]
#[repr(C)]
pub struct latentd_tags_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// At submit, for each tag of a request's first prompt that the host does not know, and each LoRA with arguments that it does not know, once each; no
    /// instance is there. `reply` in slot 0: a map. `claimed: true`: it is this plugin's, and nobody is told that it was left
    /// out; the tag stays in the picture's text, so that the request read back says it again. `parameters`: a merge patch over
    /// the plugin's own, which are then looked at as if the request had said so. `scales: [[prefix, factor], …]`, of a LoRA:
    /// its strength times `factor` (-1000 to 1000) in tensors whose names begin so, the longest prefix going before; names are LDM's, as in
    /// "model.diffusion_model.input_blocks.4." and "cond_stage_model.". Without a reply it is not this plugin's, and the next is asked. Within 5 seconds.
    pub run: Option<unsafe extern "C" fn(call: *mut latentd_call, tag: *const latentd_tag) -> latentd_status>,
}
