//! Numbers, texts, lists, and the codes that functions answer with.

use std::ffi::{c_char, c_void};

/// Major version of the ABI: 0 while it is a draft, when ids decide alone; from 1 on the same major is needed, any minor does.
pub const LATENTD_ABI_MAJOR: u32 = 0;
/// Minor version of the ABI: what was added to it.
pub const LATENTD_ABI_MINOR: u32 = 1;

/// What a function answers: one of the codes below. 0 is success, a code that is not known a failure.
pub type latentd_status = u32;
/// Success.
pub const LATENTD_OK: latentd_status = 0;
/// job.plan: not for me. A stage: as if it had never been called.
pub const LATENTD_SKIP: latentd_status = 1;
/// The job was cancelled.
pub const LATENTD_CANCELLED: latentd_status = 2;
/// What the user sent is wrong.
pub const LATENTD_INVALID: latentd_status = 3;
/// There is no such thing.
pub const LATENTD_NOT_FOUND: latentd_status = 4;
/// Memory cannot be had.
pub const LATENTD_MEMORY: latentd_status = 5;
/// This host, model or device cannot.
pub const LATENTD_UNSUPPORTED: latentd_status = 6;
/// Not now.
pub const LATENTD_BUSY: latentd_status = 7;
/// A file is not what it should be.
pub const LATENTD_MODEL: latentd_status = 8;
/// Anything else that went wrong in the plugin.
pub const LATENTD_FAILED: latentd_status = 9;
/// It took too long.
pub const LATENTD_DEADLINE: latentd_status = 10;
/// Wrong thread, dead handle, a table that is too small: a bug in whoever called.
pub const LATENTD_MISUSE: latentd_status = 11;

/// A tensor or image. 0 is none; bit 63 is never set.
pub type latentd_handle = u64;

/// A library file, held open as it was when the request came. 0 is none.
pub type latentd_file = u64;

/// Extension type of MessagePack: a handle, 8 bytes, big-endian.
pub const LATENTD_EXT_HANDLE: u32 = 1;
/// Extension type of MessagePack: a latentd_file, 8 bytes, big-endian.
pub const LATENTD_EXT_FILE: u32 = 2;

/// One call of one of the plugin's functions: tells services who asks.
pub struct latentd_call {
    _opaque: [u8; 0],
}

/// UTF-8 without a zero byte at its end. Data may be null if the length is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_text {
    /// The bytes.
    pub data: *const c_char,
    /// How many.
    pub length: u64,
}

/// Bytes, mostly MessagePack: maps with text keys. A picture in it is an ext of type LATENTD_EXT_HANDLE, a library file one of
/// type LATENTD_EXT_FILE.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_bytes {
    /// The bytes.
    pub data: *const c_void,
    /// How many.
    pub length: u64,
}

/// A list of elements that lie `stride` bytes apart: an element may be longer than what was known to whoever reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_list {
    /// The first element.
    pub items: *const c_void,
    /// How many.
    pub count: u32,
    /// Bytes from one to the next.
    pub stride: u32,
}
