//! Pixels and the text that travels in them.

mod convert;
mod infotext;
mod png;
mod preview;

pub use convert::tensor_to_image;
pub use infotext::Infotext;
pub use png::{decode_png, encode_png, png_infotext};
pub use preview::latent_preview;

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
