//! engine/draft-1: the engines that there are, whoever has them.

use super::basic::{latentd_call, latentd_list, latentd_status};
use super::engines::{latentd_engine_result, latentd_engine_run};

/// LATENTD_REGISTRY. Engines that are run are planned before: by `engine` of latentd_plan, or as names that parameters have by
/// `x-engine`. Engines may run others, four deep.
#[repr(C)]
pub struct latentd_registry {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// latentd_text: the names of a kind, sorted. \[control\] \[job\]
    pub names: Option<
        unsafe extern "C" fn(call: *mut latentd_call, kind: u32, names: *mut latentd_list) -> latentd_status,
    >,
    /// Runs an engine on a whole picture: `image` is an image, of which the engine sees three colours; a mask is one of one
    /// channel as large; `file` is 0. Fills `result`, whose handles are the plugin's own. NOT_FOUND: it was not planned.
    /// Upscalers are run tile by tile, alpha apart; restorers leave alpha as it is. While it waits, engines of the same plugin
    /// may be called on that thread, from a stage with another instance, from an engine with its own. \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            run: *const latentd_engine_run,
            result: *mut latentd_engine_result,
        ) -> latentd_status,
    >,
}
