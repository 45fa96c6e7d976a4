//! rpc.methods: methods of the plugin's own, which clients call as NAME.method.

use std::ffi::c_void;

use super::basic::{latentd_bytes, latentd_call, latentd_status, latentd_text};

/// A method that is called.
#[repr(C)]
pub struct latentd_method {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// What the manifest calls it, without the plugin's name.
    pub name: latentd_text,
    /// MessagePack, a map: valid by the method's schema, with its defaults; pictures as ext 1, library files as ext 2.
    pub params: latentd_bytes,
}

/// The extension LATENTD_RPC_METHODS: what the manifest's \[methods.NAME\] name. Reply 0 of both: the result, a map in MessagePack.
/// In it an ext 1 is an image, which goes to the client as a PNG, or a tensor, which goes as its numbers.
#[repr(C)]
pub struct latentd_methods_extension {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// A method of kind "quick": it is called at once, without an instance, several at a time, and has 5 seconds. It has
    /// tensors, images and files, but no networks. May be null if there is none. \[control\]
    pub quick: Option<
        unsafe extern "C" fn(call: *mut latentd_call, method: *const latentd_method) -> latentd_status,
    >,
    /// A method of kind "job": job.plan is told of it under its whole name, it waits for its turn, and has an instance of its own.
    /// May be null if there is none. \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *mut latentd_call,
            method: *const latentd_method,
        ) -> latentd_status,
    >,
}
