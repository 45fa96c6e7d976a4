//! Pictures written, with the infotext where A1111 puts it: PNG's `parameters`, or EXIF's user comment.

use super::{Beside, Channels, Picture, PictureFormat, RgbImage, Sample, jpeg, png, webp};
use crate::{Error, Result};

impl RgbImage {
    /// The picture as a file of this format, with the text that tells how it was made; none if it is empty. WebP is
    /// lossless, JPEG has A1111's quality of 80. JPEG holds about 32,000 characters of text: more is an error.
    pub fn encode(&self, format: PictureFormat, infotext: &str) -> Result<Vec<u8>> {
        let beside = Beside { infotext, ..Beside::default() };
        encode((self.width, self.height), Channels::Rgb, &self.pixels, format, &beside)
    }
}

impl<S: Sample> Picture<S> {
    /// The same with what the picture has of opacity; in JPEG, which has none, it lies over white.
    pub fn encode(&self, format: PictureFormat, infotext: &str) -> Result<Vec<u8>> {
        self.encode_with(format, &Beside { infotext, ..Beside::default() })
    }

    /// The same with more beside the pixels. 16 bits a channel are kept in PNG; the others have 8.
    pub fn encode_with(&self, format: PictureFormat, beside: &Beside<'_>) -> Result<Vec<u8>> {
        let Self { width, height, channels, pixels } = self;
        let size = (*width, *height);
        if format == PictureFormat::Png {
            return png::encode(size, *channels, pixels, beside);
        }
        let narrow;
        let pixels = if let Some(pixels) = S::as_8_bits(pixels) {
            pixels
        } else {
            narrow = self.to_8_bits().pixels;
            &narrow
        };
        if format == PictureFormat::Jpeg && *channels != Channels::Rgb {
            let picture =
                Picture { width: *width, height: *height, channels: *channels, pixels: pixels.to_vec() };
            let opaque = picture.over_colour([255; 3])?;
            return jpeg::encode(size, &opaque.pixels, beside);
        }
        encode(size, *channels, pixels, format, beside)
    }
}

fn encode(
    size: (usize, usize),
    channels: Channels,
    pixels: &[u8],
    format: PictureFormat,
    beside: &Beside<'_>,
) -> Result<Vec<u8>> {
    match format {
        PictureFormat::Png => png::encode(size, channels, pixels, beside),
        PictureFormat::Jpeg => jpeg::encode(size, pixels, beside),
        PictureFormat::WebP => webp::encode(size, channels, pixels, beside),
    }
}

impl PictureFormat {
    /// The format that files with this ending have: `png`, `jpg`, `jpeg` or `webp`, in capitals too.
    pub fn from_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// An error if files of this format cannot hold a text of so many UTF-16 units.
    pub fn check_infotext(self, units: usize) -> Result<()> {
        if self != Self::Jpeg || units <= jpeg::LONGEST_INFOTEXT {
            return Ok(());
        }
        let most = jpeg::LONGEST_INFOTEXT;
        Err(Error::Request(format!(
            "jpeg: {units} characters of text do not fit into a JPEG, which holds {most}; use png or webp"
        )))
    }
}
