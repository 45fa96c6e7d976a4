//! What both sides begin with: the host's table, the job, the plugin's entry.

use std::ffi::c_void;

use super::basic::{latentd_bytes, latentd_call, latentd_handle, latentd_status, latentd_text};

/// A line that says what went wrong.
pub const LATENTD_ERROR: u32 = 1;
/// A line that says what may be wrong.
pub const LATENTD_WARN: u32 = 2;
/// A line that says what was done.
pub const LATENTD_INFO: u32 = 3;
/// A line for whoever writes the plugin.
pub const LATENTD_DEBUG: u32 = 4;

/// The host, given to `init`; constant while the library is loaded.
#[repr(C)]
pub struct latentd_host {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// The host's ABI.
    pub abi_major: u32,
    /// The host's ABI.
    pub abi_minor: u32,
    /// 0.
    pub reserved: u32,
    /// The host's own version.
    pub version: latentd_text,
    /// A constant table (latentd_tensors, …), or null if this host has none by that id. \[any\]
    pub service: Option<unsafe extern "C" fn(id: latentd_text) -> *const c_void>,
    /// Writes a line to the host's log. `call` may be null. Never blocks; a flood is cut. \[any\]
    pub log: Option<unsafe extern "C" fn(call: *mut latentd_call, level: u32, line: latentd_text)>,
    /// Leaves why this call fails and returns `status`. \[control\] \[job\]
    pub fail: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            status: latentd_status,
            text: latentd_text,
        ) -> latentd_status,
    >,
    /// Why the last service of this call failed; empty if it did not. Lent until the next service. \[control\] \[job\]
    pub error: Option<unsafe extern "C" fn(call: *mut latentd_call) -> latentd_text>,
    /// A stage's result: takes the place of the argument with that slot number, named at each stage. Shape, type and
    /// finiteness are checked when the stage returns; what is never replaced stays. The last one wins. What was allocated is
    /// unmapped before, and read only from then on; an argument or a kept handle may be given, too. \[job\]
    pub replace: Option<
        unsafe extern "C" fn(call: *mut latentd_call, slot: u32, handle: latentd_handle) -> latentd_status,
    >,
    /// As `replace`, for results that are text or MessagePack: what a slot means is said where it is asked for. The last one
    /// wins; 16 MiB in all. \[control\] \[job\]
    pub reply: Option<
        unsafe extern "C" fn(call: *mut latentd_call, slot: u32, reply: latentd_bytes) -> latentd_status,
    >,
}

/// What is to be done.
#[repr(C)]
pub struct latentd_job {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0, or how deep a job within jobs this is.
    pub depth: u32,
    /// "txt2img", "img2img", "outpaint"; of a method of the plugin's own "NAME.method".
    pub method: latentd_text,
    /// The request as it was resolved: a map of txt2img's fields, seed drawn, sizes and samplers settled, without pictures. Of a
    /// method of the plugin's own its parameters, pictures by their SHA-256.
    pub request: latentd_bytes,
    /// The plugin's own part of it: a map, valid by the manifest's schema (of a method of its own by the method's), with the
    /// schema's defaults put in. Where the schema
    /// says `x-image` or `x-mask` there is an ext of type LATENTD_EXT_HANDLE, where it says `x-library` one of type
    /// LATENTD_EXT_FILE. A picture's handle is valid as long as the instance; in job.plan `info` tells its size, and nothing else
    /// can be asked of it. A file's number is the same in job.plan and in the instances that are made after it.
    pub params: latentd_bytes,
    /// create: what job.plan left with `note`; else empty.
    pub note: latentd_bytes,
    /// Pictures in all.
    pub pictures: u32,
    /// Pictures of one pass.
    pub batch: u32,
}

/// What a plugin exports by the name `latentd_entry`. In C LATENTD_ENTRY = { .size = sizeof latentd_entry, … }; in C++ the
/// values in their order, for names are C++20.
#[repr(C)]
pub struct latentd_plugin_entry {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// LATENTD_ABI_MAJOR.
    pub abi_major: u32,
    /// LATENTD_ABI_MINOR.
    pub abi_minor: u32,
    /// 0.
    pub reserved: u32,
    /// First of all, once per process. Spawn nothing, open nothing. A failure keeps the plugin out: log why, with a null call.
    /// \[control\]
    pub init: Option<unsafe extern "C" fn(host: *const latentd_host) -> latentd_status>,
    /// A constant table (latentd_pictures_stage, …), or null. Asked for all stages that the manifest names, and for
    /// LATENTD_JOB_PLAN. \[any\]
    pub extension: Option<unsafe extern "C" fn(id: latentd_text) -> *const c_void>,
    /// Makes an instance, which its stages are then given: one each time a job draws. (A job may draw several times: once for
    /// each loop, or again in f32 where bf16 had no number.) It may be in another process than the one that planned: what
    /// is needed is in `note`. May be null: instances are null then. \[job\]
    pub create: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            job: *const latentd_job,
            instance: *mut *mut c_void,
        ) -> latentd_status,
    >,
    /// Once for each that `create` made, whatever became of the job. May be null. \[job\]
    pub destroy: Option<unsafe extern "C" fn(instance: *mut c_void)>,
}

// SAFETY: both are tables of constants, which nobody changes once they are there.
unsafe impl Sync for latentd_host {}
// SAFETY: as above.
unsafe impl Sync for latentd_plugin_entry {}
