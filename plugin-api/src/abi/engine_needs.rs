//! Engines that a plan names.

use super::basic::{latentd_bytes, latentd_text};

/// An engine that will be run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_engine_need {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// LATENTD_UPSCALER, ….
    pub kind: u32,
    /// Its name.
    pub entry: latentd_text,
    /// How often it will be run, about; 0: once.
    pub runs: u32,
    /// 0.
    pub reserved: u32,
    /// MessagePack, a map of what it will be given; may be empty.
    pub params: latentd_bytes,
}
