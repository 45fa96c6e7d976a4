//! Networks that stand alone in a library file, run by the host.

use super::basic::{latentd_bytes, latentd_call, latentd_file, latentd_list, latentd_status, latentd_text};
use super::inputs::latentd_net;

/// A network that a job will run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_need {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// As in `open` of latentd_networks: 1 where `describe` says `on_base`. A checkpoint of the job over which it cannot be built
    /// refuses the plan.
    pub on_base: u32,
    /// The file: one whose network this host knows, or an ONNX graph.
    pub file: latentd_file,
    /// As in latentd_network_run.
    pub entry: latentd_text,
    /// latentd_input without handles: the sizes of the largest that it will be run with.
    pub inputs: latentd_list,
    /// Runs in the whole job, about.
    pub runs: f64,
}

/// How a network is run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_network_run {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Which of its parts, as `describe` names them. Empty: the whole.
    pub entry: latentd_text,
    /// latentd_input, by name, in any order.
    pub inputs: latentd_list,
    /// The rows of the evaluation that it is run for, in this order, each once; null: all of them, in theirs. Only looked at
    /// with `of_stage`.
    pub rows: *const u32,
    /// How many `rows` there are.
    pub row_count: u32,
    /// 1: in LATENTD_DENOISE_WRAP and LATENTD_CONTROL_RESIDUALS, UNSUPPORTED elsewhere, inputs of these names that are left out
    /// are those of the evaluation that the stage is of: `x`, its noisy latents as the UNet takes them, over
    /// √(sigma² + 1); `timestep`; `context` and `pooled`, what rows are told. Of inputs that are given, those with an entry per
    /// row have as many as there are rows. Rows whose contexts are of different length are run one after the other; outputs
    /// come in the order of the rows. 0: no input may be left out.
    pub of_stage: u32,
}

/// LATENTD_NETWORKS: networks that this host knows, by library file, told by what is in it. They count in the memory that the
/// job may take, and stay in memory for others while there is room; they compute on the host's device and threads, in the
/// job's precision.
#[repr(C)]
pub struct latentd_networks {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Opens a file until `close` or the instance's end. `on_base` 1: built over the UNet whose turn it is, with the LoRAs that
    /// change it, for files that say by what their weights differ from it, as `describe` tells; UNSUPPORTED for others, and 0 for
    /// those. It is run as long as that UNet's turn lasts: latentd_model_info has another `turn` then. MODEL with a text: it is no network that this host knows. MEMORY if there is no room. \[job\]
    pub open: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            file: latentd_file,
            on_base: u32,
            network: *mut latentd_net,
        ) -> latentd_status,
    >,
    /// Lets go of it. \[job\]
    pub close: Option<unsafe extern "C" fn(call: *mut latentd_call, network: latentd_net) -> latentd_status>,
    /// What a file's network is, as MessagePack: `kind`, such as "taesd"; `on_base`, whether it is built over a UNet; `entries`, a map by their names of maps with `inputs`
    /// and `outputs`, lists of maps with `name`, `sizes` (numbers, and texts for those that are free) and `about`.
    /// \[control\] \[job\]
    pub describe: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            file: latentd_file,
            map: *mut latentd_bytes,
        ) -> latentd_status,
    >,
    /// Runs it. `outputs` become latentd_input, in the order that `describe` tells. \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            network: latentd_net,
            run: *const latentd_network_run,
            outputs: *mut latentd_list,
        ) -> latentd_status,
    >,
}
