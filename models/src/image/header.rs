//! What is known of an encoded picture before it is decoded.

use crate::{Error, Result};

/// Most bytes of pixels that are decoded, whatever the caller allows: the decoders count in 32 bits.
const LARGEST: u64 = 1 << 30;

/// How a picture is encoded; told by its first bytes, never by a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    /// PNG.
    Png,
    /// JPEG, baseline or progressive.
    Jpeg,
    /// WebP, lossy or lossless.
    WebP,
}

impl PictureFormat {
    /// What these bytes begin like.
    pub fn of(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            [] => Err(Error::Request("picture: there are no bytes".into())),
            _ => {
                let first = bytes.get(..8).unwrap_or(bytes).escape_ascii();
                let text = format!("picture: '{first}…' begins no PNG, JPEG or WebP; give one of these");
                Err(Error::Request(text))
            }
        }
    }

    /// "png", "jpeg" or "webp".
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::WebP => "webp",
        }
    }

    pub(super) fn error(self, reason: impl std::fmt::Display) -> Error {
        Error::Request(format!("{}: {reason}", self.name()))
    }
}

/// What the 8-bit numbers of a pixel are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// One number, as masks have it.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// Red, green, blue, and opacity that they are not multiplied with.
    Rgba,
}

impl Channels {
    /// By their number: 1, 3 or 4.
    pub fn from_count(count: u32) -> Result<Self> {
        match count {
            1 => Ok(Self::Grey),
            3 => Ok(Self::Rgb),
            4 => Ok(Self::Rgba),
            _ => Err(Error::Request(format!("channels: {count} is none of 1 (grey), 3 (RGB), 4 (RGBA)"))),
        }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

/// What a picture's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureHeader {
    /// How it is encoded.
    pub format: PictureFormat,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// What it will be decoded to.
    pub channels: Channels,
}

impl PictureHeader {
    /// Bytes of the decoded pixels. While decoding, up to three times as much is taken besides.
    pub fn decoded_bytes(&self) -> u64 {
        let pixels = u64::from(self.width) * u64::from(self.height);
        pixels.saturating_mul(self.channels.count() as u64)
    }

    /// An error if the decoded pixels take more than `most_bytes`.
    pub fn check(&self, most_bytes: u64) -> Result<()> {
        let (needed, most) = (self.decoded_bytes(), most_bytes.min(LARGEST));
        if needed <= most {
            return Ok(());
        }
        let Self { width, height, .. } = self;
        Err(self.format.error(format!("{width}x{height} takes {needed} bytes of pixels, {most} are allowed")))
    }
}
