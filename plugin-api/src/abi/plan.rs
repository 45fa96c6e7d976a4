//! job.plan: what of a job a plugin takes part in, told as the request is resolved.

use super::basic::{latentd_bytes, latentd_call, latentd_status, latentd_text};
use super::entry::latentd_job;

/// A stage that is wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_want {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Its id; one that the manifest names.
    pub stage: latentd_text,
    /// Of each pass's steps, 0…1, for stages within the sampler's loop. Both 0: all. A step outside costs nothing.
    pub from: f64,
    /// As `from`; not included.
    pub until: f64,
}

/// Calls that collect an answer. Nothing of it holds before job.plan returns OK. \[control\]
#[repr(C)]
pub struct latentd_plan {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Takes part in a stage. Without any, in none.
    pub stage:
        Option<unsafe extern "C" fn(call: *mut latentd_call, want: *const latentd_want) -> latentd_status>,
    /// Leaves bytes for `create`, 1 MiB at most.
    pub note: Option<unsafe extern "C" fn(call: *mut latentd_call, note: latentd_bytes) -> latentd_status>,
}

/// The extension LATENTD_JOB_PLAN. Who has none takes part in all stages that the manifest names.
#[repr(C)]
pub struct latentd_plan_extension {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// At submit, for jobs whose request names the plugin. SKIP: not for me. INVALID with a text refuses the request.
    /// \[control\]
    pub plan: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            job: *const latentd_job,
            plan: *const latentd_plan,
        ) -> latentd_status,
    >,
}
