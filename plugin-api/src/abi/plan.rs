//! job.plan: what of a job a plugin takes part in, told as the request is resolved.

use super::basic::{latentd_bytes, latentd_call, latentd_list, latentd_status, latentd_text};
use super::engine_needs::latentd_engine_need;
use super::entry::latentd_job;
use super::networks::latentd_need;
use super::subjobs::latentd_subplan;

/// After an input block, before its output is stored as a skip: both ways go on with it. Block 0 is the first convolution.
pub const LATENTD_INPUT: u32 = 1;
/// After it was stored: only the way down goes on with it.
pub const LATENTD_INPUT_STORED: u32 = 2;
/// After the middle block, before residuals are added. Its index is 0.
pub const LATENTD_MIDDLE: u32 = 3;
/// Before an output block: h, and the skip that will be joined to it.
pub const LATENTD_OUTPUT: u32 = 4;
/// Every one of them, where that is said.
pub const LATENTD_ANY: u32 = 0xffff_ffff;

/// A place in the UNet. Blocks count as `input_blocks` and `output_blocks` of LDM's checkpoints do, from 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct latentd_site {
    /// LATENTD_INPUT, LATENTD_INPUT_STORED, LATENTD_MIDDLE or LATENTD_OUTPUT.
    pub part: u32,
    /// Which block of that part, or LATENTD_ANY. One that a model does not have is nowhere.
    pub index: u32,
}

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
    /// latentd_site, in LATENTD_UNET_BLOCK: where. Empty: everywhere. A place that nobody wants costs nothing; one that is wanted
    /// costs a copy of what goes by.
    pub sites: latentd_list,
}

/// Calls that collect an answer. Nothing of it holds before job.plan returns OK. \[control\]
#[repr(C)]
pub struct latentd_plan {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Takes part in a stage; the last word on a stage counts. Without any the job is not for the plugin.
    pub stage:
        Option<unsafe extern "C" fn(call: *mut latentd_call, want: *const latentd_want) -> latentd_status>,
    /// Leaves bytes for `create`, 1 MiB at most.
    pub note: Option<unsafe extern "C" fn(call: *mut latentd_call, note: latentd_bytes) -> latentd_status>,
    /// A network that the job will run: its memory is planned for, beside the job's own. MODEL with a text: the file is no network
    /// that this host knows, and no ONNX graph. What is not named here may find no room.
    pub network:
        Option<unsafe extern "C" fn(call: *mut latentd_call, need: *const latentd_need) -> latentd_status>,
    /// An engine that the job will run, or that one describes which runs it: looked for, and described, as soon as the plan is
    /// made. Without it, and without an `x-engine` that names it, it cannot be run.
    pub engine: Option<
        unsafe extern "C" fn(call: *mut latentd_call, need: *const latentd_engine_need) -> latentd_status,
    >,
    /// A job that will be drawn within this one, by LATENTD_SUBJOBS. What is wrong with it refuses the request once job.plan
    /// returned OK.
    pub subjob: Option<
        unsafe extern "C" fn(call: *mut latentd_call, subplan: *const latentd_subplan) -> latentd_status,
    >,
    /// Bytes that the plugin, or an engine that it describes, will take at once beside networks: what it reserves, and pictures that
    /// it makes larger. They are planned for, beside the job's own; several add up. A request that cannot have them is refused.
    pub memory: Option<
        unsafe extern "C" fn(call: *mut latentd_call, host_bytes: u64, device_bytes: u64) -> latentd_status,
    >,
}

/// The extension LATENTD_JOB_PLAN. Who has none takes part in all stages that the manifest names.
#[repr(C)]
pub struct latentd_plan_extension {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// At submit, for jobs whose request names the plugin, and for their sub-jobs; for these again as they are run. SKIP: not for
    /// me. INVALID with a text refuses the request. \[control\]
    pub plan: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            job: *const latentd_job,
            plan: *const latentd_plan,
        ) -> latentd_status,
    >,
}
