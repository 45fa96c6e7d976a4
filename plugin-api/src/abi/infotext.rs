//! infotext.parse: what a picture's text says of a plugin.

use super::basic::{latentd_call, latentd_list, latentd_status, latentd_text};

/// `KEY: VALUE` of a picture's text.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_pair {
    /// As it stands there.
    pub key: latentd_text,
    /// Without the quotes that it had there.
    pub value: latentd_text,
}

/// A picture's text.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_infotext {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// latentd_pair: those of which no field of a request says anything, in their order.
    pub pairs: latentd_list,
    /// The prompt.
    pub prompt: latentd_text,
    /// The negative one.
    pub negative_prompt: latentd_text,
}

/// LATENTD_INFOTEXT_PARSE. \[control\]
#[repr(C)]
pub struct latentd_infotext_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// As somebody asks how a picture was made; no instance is there, and no job. `reply` in slot 0: MessagePack, a map: what this
    /// plugin would be given to do the same, by its schema. Without a reply the text says nothing of it. Not called where the
    /// text names the plugin already, as texts of this host do. Within 5 seconds; what is wrong is a notice.
    pub run: Option<
        unsafe extern "C" fn(call: *mut latentd_call, text: *const latentd_infotext) -> latentd_status,
    >,
}
