//! Pictures written, with the infotext where A1111 puts it: PNG's `parameters`, or EXIF's user comment.

use super::{Channels, Picture, PictureFormat, RgbImage, jpeg, png, webp};
use crate::{Error, Result};

impl RgbImage {
    /// The picture as a file of this format, with the text that tells how it was made; none if it is empty. WebP is
    /// lossless, JPEG has A1111's quality of 80. JPEG holds about 32,000 characters of text: more is an error.
    pub fn encode(&self, format: PictureFormat, infotext: &str) -> Result<Vec<u8>> {
        encode((self.width, self.height), Channels::Rgb, &self.pixels, format, infotext)
    }
}

impl Picture {
    /// The same with what the picture has of opacity; in JPEG, which has none, it lies over white.
    pub fn encode(&self, format: PictureFormat, infotext: &str) -> Result<Vec<u8>> {
        if format == PictureFormat::Jpeg && self.channels != Channels::Rgb {
            return self.over_colour([255; 3])?.into_rgb().encode(format, infotext);
        }
        encode((self.width, self.height), self.channels, &self.pixels, format, infotext)
    }
}

fn encode(
    size: (usize, usize),
    channels: Channels,
    pixels: &[u8],
    format: PictureFormat,
    infotext: &str,
) -> Result<Vec<u8>> {
    match format {
        PictureFormat::Png => png::encode(size, channels, pixels, infotext),
        PictureFormat::Jpeg => jpeg::encode(size, pixels, infotext),
        PictureFormat::WebP => webp::encode(size, channels, pixels, infotext),
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
