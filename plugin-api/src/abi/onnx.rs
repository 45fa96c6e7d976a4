//! ONNX graphs: any file, by names.

use super::basic::{
    latentd_bytes, latentd_call, latentd_file, latentd_handle, latentd_list, latentd_status, latentd_text,
};
use super::inputs::latentd_net;

/// LATENTD_ONNX: ONNX files of the library, such as those of the kinds "annotator" and "detector". A file is read whole and
/// must be one file; numbers are computed in f32, whole ones in 32 bits.
#[repr(C)]
pub struct latentd_onnx {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Opens a file until `close` or the instance's end. MODEL with a text: it is no ONNX, or does what this host does not know.
    /// MEMORY if there is no room. \[job\]
    pub open: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            file: latentd_file,
            graph: *mut latentd_net,
        ) -> latentd_status,
    >,
    /// Lets go of it. \[job\]
    pub close: Option<unsafe extern "C" fn(call: *mut latentd_call, graph: latentd_net) -> latentd_status>,
    /// What a file says of itself, as MessagePack: `inputs` and `outputs`, lists of maps with `name`, `type` (NumPy's name, or
    /// nil) and `sizes` (nil, or a list of numbers, texts for those that are free, and nil where nothing is said);
    /// `initializers`, a list of the same; `operators`, the version of ONNX's operators. Nothing is loaded.
    /// \[control\] \[job\]
    pub describe: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            file: latentd_file,
            map: *mut latentd_bytes,
        ) -> latentd_status,
    >,
    /// Numbers that are kept in the file, as a tensor of f32: `name` is one of `initializers`. NOT_FOUND, with the nearest. \[job\]
    pub initializer: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            graph: latentd_net,
            name: latentd_text,
            tensor: *mut latentd_handle,
        ) -> latentd_status,
    >,
    /// Runs it. `inputs` are latentd_input, one for each of the file's, by name, in any order: tensors, whole numbers where it
    /// takes such, or images, as (1, channels, h, w) of 0…1, or of 0…255 where it takes uint8. `outputs` become latentd_input,
    /// in the file's order, tensors of f32. All outputs may take 1 GiB. It runs in a process of its own: MODEL if that crashes
    /// or takes too long, MEMORY if it needs more than a run may take, CANCELLED as soon as the job is. \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            graph: latentd_net,
            inputs: latentd_list,
            outputs: *mut latentd_list,
        ) -> latentd_status,
    >,
}
