//! Engines: what a plugin computes for whoever names one of its entries, whatever the plugins of the request.

use std::ffi::c_void;

use super::basic::{
    latentd_bytes, latentd_call, latentd_file, latentd_handle, latentd_list, latentd_status, latentd_text,
};
use super::plan::latentd_plan;

/// Image → image `scale` times as large. The host cuts the picture into tiles and upscales alpha apart: an upscaler sees three
/// colours, of any size down to a pixel.
pub const LATENTD_UPSCALER: u32 = 1;
/// Whole picture → whole picture of the same size; `strength` 0…1 says how far to go. Like all that follow it sees three colours;
/// alpha stays as it is.
pub const LATENTD_RESTORER: u32 = 2;
/// Image → control image of width × height; what a preprocessor takes beside, such as thresholds, is in `params`.
pub const LATENTD_PREPROCESSOR: u32 = 3;
/// Image, threshold → detections with boxes.
pub const LATENTD_DETECTOR: u32 = 4;
/// Image, threshold → detections without boxes; its reply may hold a `caption`.
pub const LATENTD_TAGGER: u32 = 5;

/// One thing that a detector or tagger found.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_detection {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// The engine's number for its class.
    pub class_id: u32,
    /// "face", "1girl".
    pub label: latentd_text,
    /// 0…1.
    pub score: f32,
    /// From the left, in pixels of the image; all four 0: no box.
    pub x0: f32,
    /// From the top.
    pub y0: f32,
    /// Beyond the last column.
    pub x1: f32,
    /// Beyond the last row.
    pub y1: f32,
    /// How many points there are.
    pub point_count: u32,
    /// x, y, x, y, …; null if there are none.
    pub points: *const f32,
    /// An image of one channel as large as the whole image, white where it is; 0: none.
    pub mask: latentd_handle,
    /// A tensor (width): what tells it from others of its class; 0: none.
    pub embedding: latentd_handle,
    /// MessagePack, a map of more; may be empty.
    pub data: latentd_bytes,
}

/// What an engine is to do.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_engine_run {
    /// sizeof of it, as its writer knows it.
    pub size: u32,
    /// LATENTD_UPSCALER, ….
    pub kind: u32,
    /// A name of the manifest, or of a library file.
    pub entry: latentd_text,
    /// That file; 0 for a name of the manifest.
    pub file: latentd_file,
    /// An image of u8. With `as_float` a tensor (images, 3, h, w) f32 of 0…1.
    pub image: latentd_handle,
    /// An image of one channel as large; 0: none.
    pub mask: latentd_handle,
    /// Wanted, in pixels; 0: the engine's choice. An upscaler goes over the image until it is as large, three times at most, and
    /// Lanczos does the rest.
    pub width: u32,
    /// As `width`.
    pub height: u32,
    /// 0…1; of a restorer.
    pub strength: f64,
    /// 0…1; what scores below is left out.
    pub threshold: f64,
    /// MessagePack, a map of more; may be empty. Of an upscaler whoever runs it may say `tile` and `overlap` (pixels; its own
    /// otherwise) and `share` (0…1 of the work of who asks, whose progress is told tile by tile); it does not see these itself.
    pub params: latentd_bytes,
}

/// What a run left.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_engine_result {
    /// sizeof of it, as its reader knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The image; 0 of kinds that have none.
    pub image: latentd_handle,
    /// latentd_detection.
    pub detections: latentd_list,
    /// MessagePack, a map of more; may be empty.
    pub data: latentd_bytes,
}

/// What an engine says of an entry. All zero as it is given: as usual.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_engine_facts {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// How many times as large an upscaler makes a picture, 1 to 16; others leave it 0.
    pub scale: u32,
    /// Sides of the tiles that it is given, in pixels of the picture; 0: the whole at once.
    pub tile: u32,
    /// Pixels over which tiles fade into one another, at most half of a tile.
    pub overlap: u32,
    /// What both sides are to be a multiple of, 0 any: the host fills up by mirroring, and cuts the result.
    pub multiple: u32,
    /// Tiles of one size that a run may be given at once, as entries of the tensor; 0 and 1: one. More only with `as_float`.
    pub most_at_once: u32,
    /// 1: pictures come and go as tensors (images, 3, h, w) f32 of 0…1; the host rounds and cuts off.
    pub as_float: u32,
    /// 0.
    pub reserved: u32,
}

/// The extension LATENTD_ENGINES.
#[repr(C)]
pub struct latentd_engine_stage {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// As a request comes that names the entry (`run` has neither image nor mask): fills `facts`. What `plan` takes besides are
    /// networks that it will open. May be null if no entry is an upscaler. \[control\]
    pub describe: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            run: *const latentd_engine_run,
            plan: *const latentd_plan,
            facts: *mut latentd_engine_facts,
        ) -> latentd_status,
    >,
    /// Slot 0: the image, of kinds that have one: of a preprocessor of `width` × `height` where they are not 0, with 1, 3 or 4
    /// channels. `detected`, which is null for kinds that find nothing, takes one thing found, which is copied. Reply 0: a map of more.
    /// The instance is made for engines alone: its parameters are empty. \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *mut latentd_call,
            run: *const latentd_engine_run,
            detected: Option<
                unsafe extern "C" fn(
                    call: *mut latentd_call,
                    detection: *const latentd_detection,
                ) -> latentd_status,
            >,
        ) -> latentd_status,
    >,
}
