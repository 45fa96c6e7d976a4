//! Files of the library of models.

use super::basic::{
    latentd_bytes, latentd_call, latentd_file, latentd_handle, latentd_list, latentd_status, latentd_text,
};

/// What is known of a library file.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_file_info {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// "checkpoint", "lora", "controlnet", "upscaler", "annotator", …: the kinds that `x-library` names.
    pub kind: latentd_text,
    /// As requests call it.
    pub name: latentd_text,
    /// What it is of, such as "sd1"; empty where that is not known.
    pub family: latentd_text,
    /// In hex; empty as long as it is not known. Nothing waits for it.
    pub sha256: latentd_text,
    /// Never empty; the same for the same contents of the same file, and for no others: for keys of caches.
    pub identity: latentd_bytes,
    /// What its maker wrote into it: a map of texts, as MessagePack.
    pub metadata: latentd_bytes,
}

/// A tensor of a file that a plugin saves.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_saved_tensor {
    /// Its name in the file.
    pub name: latentd_text,
    /// The tensor: f32.
    pub tensor: latentd_handle,
}

/// A file that a plugin saves.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_save {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 1: a file of this name is replaced. 0: there must be none.
    pub replace: u32,
    /// One of those that the manifest asks for: `[capabilities] save = ["face"]`.
    pub kind: latentd_text,
    /// Without folder and extension, as requests will call it.
    pub name: latentd_text,
    /// At least one: latentd_saved_tensor, each of another name, at most 256 MiB together.
    pub tensors: latentd_list,
    /// What the file says of itself: a map of texts, as MessagePack; may be empty.
    pub metadata: latentd_bytes,
}

/// LATENTD_LIBRARY: the library of models, by kinds and names. Files are held open as they are found, until the job ends: one
/// that is replaced meanwhile is read as it was, one that is written to is an error.
#[repr(C)]
pub struct latentd_library {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The file of a kind that a name means, as `x-library` finds it. NOT_FOUND, with the nearest. What job.plan finds has the
    /// same number in the instances that are made after it. \[control\] \[job\]
    pub find: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            kind: latentd_text,
            name: latentd_text,
            file: *mut latentd_file,
        ) -> latentd_status,
    >,
    /// The names of a kind, as they are listed: latentd_text. \[control\] \[job\]
    pub names: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            kind: latentd_text,
            names: *mut latentd_list,
        ) -> latentd_status,
    >,
    /// What is known of a file, as far as the struct goes. \[control\] \[job\]
    pub info: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            file: latentd_file,
            info: *mut latentd_file_info,
        ) -> latentd_status,
    >,
    /// A tensor of a file of weights, by its name, as f32. NOT_FOUND, with the nearest. \[job\]
    pub tensor: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            file: latentd_file,
            name: latentd_text,
            tensor: *mut latentd_handle,
        ) -> latentd_status,
    >,
    /// The whole file as bytes: a tensor of one dimension, u8, read only. \[job\]
    pub open: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            file: latentd_file,
            bytes: *mut latentd_handle,
        ) -> latentd_status,
    >,
    /// Writes a safetensors file into the folder for its kind, whole or not at all; it may be named from then on. INVALID if the
    /// manifest does not ask for the kind, or there is such a file and `replace` is 0. What is already written stays if the job
    /// fails later. \[job\]
    pub save: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            save: *const latentd_save,
            file: *mut latentd_file,
        ) -> latentd_status,
    >,
    /// Removes a file of a kind that the manifest asks to save. Who holds it open goes on with it. \[job\]
    pub remove: Option<unsafe extern "C" fn(call: *mut latentd_call, file: latentd_file) -> latentd_status>,
}
