//! Host services: tables that `latentd_host.service` gives by id.

use std::ffi::c_void;

use super::basic::{latentd_bytes, latentd_call, latentd_handle, latentd_status, latentd_text};

/// LATENTD_JOBS: what concerns the job as a whole.
#[repr(C)]
pub struct latentd_jobs {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// 1 once the job is cancelled: return LATENTD_CANCELLED then. Cheap. \[any\]
    pub cancelled: Option<unsafe extern "C" fn(call: *mut latentd_call) -> u32>,
    /// A text into the result, once each; an error where the request says `strict`. \[control\] \[job\]
    pub notice: Option<unsafe extern "C" fn(call: *mut latentd_call, text: latentd_text) -> latentd_status>,
    /// How much of what this call does is done, 0…1, and in a few words what that is; shown to who follows the job. What is told
    /// never goes back; less than a hundredth more is not told. \[any\]
    pub progress: Option<
        unsafe extern "C" fn(call: *mut latentd_call, done: f64, what: latentd_text) -> latentd_status,
    >,
    /// Shows an image on the way there to who follows the job, if the request asks for previews. It is read only from then on.
    /// \[job\]
    pub preview:
        Option<unsafe extern "C" fn(call: *mut latentd_call, image: latentd_handle) -> latentd_status>,
    /// An image beside the results ("detected map", "before"), kept and sent with them: of picture `image`, or of all with
    /// LATENTD_ANY. A name has 1 to 64 characters; 256 of 128 MiB are possible. It is read only from then on. Dropped if the
    /// function does not return OK. \[job\]
    pub artifact: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            name: latentd_text,
            image: u32,
            handle: latentd_handle,
        ) -> latentd_status,
    >,
    /// Counts memory that the plugin takes by itself, until this function of the plugin returns. MEMORY if it cannot be
    /// had. \[job\]
    pub reserve: Option<
        unsafe extern "C" fn(call: *mut latentd_call, host_bytes: u64, device_bytes: u64) -> latentd_status,
    >,
    /// The path of a folder of the plugin's own, for all of its versions; made when it is first asked
    /// for. \[job\]
    pub folder:
        Option<unsafe extern "C" fn(call: *mut latentd_call, path: *mut latentd_text) -> latentd_status>,
    /// What `[plugins.NAME.settings]` of the configuration file says: a map as MessagePack, valid by the manifest's schema of
    /// settings, with its defaults; lent until this function of the plugin returns. As the file is now: it may be read again
    /// while the daemon runs. \[control\] \[job\]
    pub settings:
        Option<unsafe extern "C" fn(call: *mut latentd_call, map: *mut latentd_bytes) -> latentd_status>,
}

/// A tensor: NCHW logical; latents and samples in the model's scale.
pub const LATENTD_TENSOR: u32 = 1;
/// An image: (1, 1 | 3 | 4, h, w) logical; u8, sRGB values, straight alpha; mostly interleaved in memory, which strides say.
pub const LATENTD_IMAGE: u32 = 2;

/// DLPack's code of signed integers.
pub const LATENTD_INT: u8 = 0;
/// DLPack's code of unsigned integers.
pub const LATENTD_UINT: u8 = 1;
/// DLPack's code of floats.
pub const LATENTD_FLOAT: u8 = 2;
/// DLPack's code of bfloat16.
pub const LATENTD_BFLOAT: u8 = 4;

/// To be read: any number of mappings at a time.
pub const LATENTD_READ: u32 = 1;
/// To be read and written: only what the plugin allocated and has not handed over yet.
pub const LATENTD_WRITE: u32 = 2;
/// As LATENTD_WRITE, but what is in it is not looked at: all of it is written.
pub const LATENTD_REPLACE: u32 = 3;

/// As it lies in memory: strides say how.
pub const LATENTD_STORED: u32 = 0;
/// In logical order without gaps: for images planes one after the other. Tensors lie so.
pub const LATENTD_DENSE: u32 = 1;

/// What a tensor is. Types and devices are in DLPack's codes; strides count elements.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_tensor_info {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// LATENTD_TENSOR or LATENTD_IMAGE.
    pub kind: u32,
    /// LATENTD_FLOAT, ….
    pub code: u8,
    /// Of a number.
    pub bits: u8,
    /// 1.
    pub lanes: u16,
    /// How many dimensions.
    pub ndim: u32,
    /// 1: the host's memory.
    pub device_type: i32,
    /// Which device of its type.
    pub device_id: i32,
    /// The first `ndim` count.
    pub shape: [i64; 8],
    /// The first `ndim` count.
    pub strides: [i64; 8],
}

/// A mapping: set the first fields, the host fills the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_map {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// LATENTD_READ, LATENTD_WRITE or LATENTD_REPLACE.
    pub mode: u32,
    /// What is wanted: the host converts u8 images to f32 of 0…1 for reading.
    pub code: u8,
    /// 0: as stored, whatever `code` says.
    pub bits: u8,
    /// 0 or 1.
    pub lanes: u16,
    /// LATENTD_STORED or LATENTD_DENSE. Only LATENTD_READ may ask for another than what is stored.
    pub layout: u32,
    /// Out: the first number.
    pub data: *mut c_void,
    /// Out: how many bytes.
    pub bytes: u64,
    /// Out: in numbers.
    pub strides: [i64; 8],
}

/// LATENTD_TENSORS: tensors and images by their handles.
#[repr(C)]
pub struct latentd_tensors {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Allocates what `info` says (kind, type, shape; bits 0: f32, for images u8); all zero. Tensors lie dense, images
    /// interleaved. \[job\]
    pub alloc: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            info: *const latentd_tensor_info,
            handle: *mut latentd_handle,
        ) -> latentd_status,
    >,
    /// Fills `info` as far as its size goes. \[job\]
    pub info: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            handle: latentd_handle,
            info: *mut latentd_tensor_info,
        ) -> latentd_status,
    >,
    /// Keeps a handle beyond the call, until as many releases or the instance's end. \[job\]
    pub r#ref:
        Option<unsafe extern "C" fn(call: *mut latentd_call, handle: latentd_handle) -> latentd_status>,
    /// Gives back what `ref` kept, or ends what the plugin allocated in this call. \[job\]
    pub release:
        Option<unsafe extern "C" fn(call: *mut latentd_call, handle: latentd_handle) -> latentd_status>,
    /// Lets the plugin at the numbers, until unmap or the end of the call. \[job\]
    pub map: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            handle: latentd_handle,
            map: *mut latentd_map,
        ) -> latentd_status,
    >,
    /// Ends all mappings of a handle. \[job\]
    pub unmap:
        Option<unsafe extern "C" fn(call: *mut latentd_call, handle: latentd_handle) -> latentd_status>,
    /// Writes the SHA-256, 32 bytes, of a tensor or image: of how many dimensions as a byte, sizes as 8 little-endian bytes each,
    /// DLPack's code and bits as a byte each, and the numbers in logical order, little-endian. \[job\]
    pub digest: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            handle: latentd_handle,
            sha256: *mut u8,
        ) -> latentd_status,
    >,
}

/// LATENTD_CACHE: what a plugin would rather not make again. It outlives jobs, not the daemon, and is private to the plugin's name
/// and version.
#[repr(C)]
pub struct latentd_cache {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// What was kept under a key of 1 to 65536 bytes, to be read; NOT_FOUND if nothing is, or is no longer. Derive keys from
    /// contents (`digest`) and parameters, never from handles. \[job\]
    pub get: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            key: latentd_bytes,
            handle: *mut latentd_handle,
        ) -> latentd_status,
    >,
    /// Keeps a tensor or image under a key, in the place of what was there; it is read only from then on. Where there is too little
    /// room nothing is kept, which is no failure. \[job\]
    pub put: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            key: latentd_bytes,
            handle: latentd_handle,
        ) -> latentd_status,
    >,
}
