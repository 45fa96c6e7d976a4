//! Pixels and the text that travels in them.

mod alpha;
mod beside;
mod box_blur;
pub mod colour;
mod convert;
mod encode;
mod exif;
mod extras;
mod fit;
pub mod grid;
mod header;
mod icc;
mod infotext;
pub mod inpaint;
mod jpeg;
mod limits;
mod mask;
mod metadata;
mod orientation;
pub mod outpaint;
mod picture;
mod png;
mod preview;
mod redraw;
mod resample;
mod resize_latents;
mod sample;
mod stretch_rows;
#[cfg(test)]
mod tests;
mod tiff;
mod tiles;
mod upscale;
mod webp;

pub use beside::Beside;
pub(crate) use convert::picture_to_tensor;
pub use convert::tensor_to_image;
pub use extras::{Resize, upscaler_rounds};
pub use fit::Fit;
pub use header::{Channels, PictureFormat, PictureHeader};
pub use icc::read_icc;
pub use infotext::Infotext;
pub use limits::{LONGEST_SIDE, MOST_PIXELS};
pub(crate) use metadata::png_text;
pub use metadata::{Texts, read_infotext, read_texts};
pub use orientation::Orientation;
pub use picture::{Picture, read_encoded};
pub use png::encode_png;
pub use preview::latent_preview;
pub use redraw::{Redraw, RedrawOrder, RedrawPart, SeamFix};
pub use resample::Filter;
pub(crate) use resize_latents::Axis;
pub use resize_latents::{LatentFilter, resize_latents};
pub use sample::Sample;
pub use stretch_rows::StretchRows;
pub use tiles::Tiling;
pub use upscale::Upscaler;

/// 8-bit RGB, rows from the top, no padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height * 3` bytes.
    pub pixels: Vec<u8>,
}
