//! Pictures that somebody gives: encoded as PNG, JPEG or WebP, or as plain pixels.
//!
//! What a picture takes is known from its header and held against the caller's limit before memory is taken. A header is
//! cheap to read, so pictures can be kept encoded and decoded when their turn comes. Orientation in EXIF is not looked at here ([`super::Orientation`]).

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Beside, Channels, PictureFormat, PictureHeader, RgbImage, Sample, jpeg, png, webp};
use crate::{Error, Result};

impl PictureHeader {
    /// Reads the header of an encoded picture; nothing is decoded, and what follows may still be damaged.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let format = PictureFormat::of(bytes)?;
        let header = guarded(format, || match format {
            PictureFormat::Png => png::header(bytes),
            PictureFormat::Jpeg => jpeg::header(bytes),
            PictureFormat::WebP => webp::header(bytes),
        })?;
        if header.width == 0 || header.height == 0 {
            return Err(header.format.error("it has no pixels"));
        }
        Ok(header)
    }

    /// Bits of a channel that an encoded picture has more than 8 of: 16, which PNG may have; else 8.
    pub fn bits(bytes: &[u8]) -> Result<u8> {
        Ok(if PictureFormat::of(bytes)? == PictureFormat::Png && png::is_deep(bytes) { 16 } else { 8 })
    }
}

/// A picture, 8 bits a channel, or 16 as `Picture<u16>`; rows from the top, no padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture<S = u8> {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// What a pixel is.
    pub channels: Channels,
    /// `width * height * channels` numbers.
    pub pixels: Vec<S>,
}

impl Picture {
    /// Decodes a PNG, JPEG or WebP whose pixels take no more than `most_bytes`. 16 bits a channel become the upper 8, a
    /// palette the colours it stands for, grey with opacity RGBA; of an animation the first frame is taken. One that is cut
    /// short or damaged is an error.
    pub fn decode(bytes: &[u8], most_bytes: u64) -> Result<Self> {
        let header = PictureHeader::read(bytes)?;
        header.check(most_bytes)?;
        let pixels = guarded(header.format, || match header.format {
            PictureFormat::Png => png::decode(bytes, &header),
            PictureFormat::Jpeg => jpeg::decode(bytes, &header),
            PictureFormat::WebP => webp::decode(bytes, &header),
        })?;
        let (width, height) = (header.width as usize, header.height as usize);
        if pixels.len() as u64 != header.decoded_bytes() {
            return Err(header.format.error("its pixels are not those that its header tells of"));
        }
        Ok(Self { width, height, channels: header.channels, pixels })
    }

    /// Plain pixels, which must be as many as their sizes say.
    pub fn from_raw(pixels: Vec<u8>, width: u32, height: u32, channels: u32) -> Result<Self> {
        let channels = Channels::from_count(channels)?;
        let count = channels.count();
        if width == 0 || height == 0 {
            let text = format!("raw: {width}x{height} has no pixels; width and height must be at least 1");
            return Err(Error::Request(text));
        }
        let needed = u64::from(width).saturating_mul(u64::from(height)).saturating_mul(count as u64);
        if needed != pixels.len() as u64 {
            let given = pixels.len();
            let text =
                format!("raw: {width}x{height} with {count} channels is {needed} bytes, {given} are given");
            return Err(Error::Request(text));
        }
        Ok(Self { width: width as usize, height: height as usize, channels, pixels })
    }

    /// As a PNG file without texts.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        png::encode((self.width, self.height), self.channels, &self.pixels, &Beside::default())
    }

    /// Red, green and blue; opacity is left out.
    pub fn into_rgb(self) -> RgbImage {
        let pixels = match self.channels {
            Channels::Grey => self.pixels.iter().flat_map(|grey| [*grey; 3]).collect(),
            Channels::Rgb => self.pixels,
            Channels::Rgba => self.pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        };
        RgbImage { width: self.width, height: self.height, pixels }
    }

    /// The opacity of each pixel, if the picture has any.
    pub fn alpha(&self) -> Option<Vec<u8>> {
        match self.channels {
            Channels::Rgba => Some(self.pixels.chunks_exact(4).map(|pixel| pixel[3]).collect()),
            Channels::Grey | Channels::Rgb => None,
        }
    }
}

impl Picture<u16> {
    /// As [`Picture::decode`], of a picture of 16 bits a channel, with all of them; `most_bytes` is what its pixels may take as they are here. An
    /// error if it has no more than 8: see [`PictureHeader::bits`].
    pub fn decode_deep(bytes: &[u8], most_bytes: u64) -> Result<Self> {
        let header = PictureHeader::read(bytes)?;
        header.check(most_bytes / 2)?;
        if PictureHeader::bits(bytes)? != 16 {
            return Err(header.format.error("it has no 16 bits a channel"));
        }
        let pixels = guarded(header.format, || png::decode_deep(bytes, &header))?;
        let (width, height) = (header.width as usize, header.height as usize);
        let picture = Self { width, height, channels: header.channels, pixels };
        picture.check()?;
        Ok(picture)
    }
}

impl<S: Sample> Picture<S> {
    /// With 8 bits a channel.
    pub fn to_8_bits(&self) -> Picture {
        let pixels = self.pixels.iter().map(|value| value.to_8_bits()).collect();
        Picture { width: self.width, height: self.height, channels: self.channels, pixels }
    }

    /// The same, without a copy of what has no more anyway.
    pub fn into_8_bits(self) -> Picture {
        let Self { width, height, channels, pixels } = self;
        Picture { width, height, channels, pixels: S::narrowed(pixels) }
    }
}

impl From<RgbImage> for Picture {
    fn from(image: RgbImage) -> Self {
        let RgbImage { width, height, pixels } = image;
        Self { width, height, channels: Channels::Rgb, pixels }
    }
}

/// The decoders are other people's, and hostile files have been found that make one panic: that is this picture's error.
fn guarded<T>(format: PictureFormat, read: impl FnOnce() -> Result<T>) -> Result<T> {
    // Sound: what the closure borrows it only reads.
    let outcome = catch_unwind(AssertUnwindSafe(read));
    outcome.unwrap_or_else(|_| Err(format.error("it is damaged in a way that the decoder does not know")))
}

/// Reads an encoded picture, say from an open file, of no more than `most_bytes`.
pub fn read_encoded(source: impl Read, most_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = source.take(most_bytes.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| Error::Request(format!("picture: cannot be read: {error}")))?;
    if bytes.len() as u64 > most_bytes {
        return Err(Error::Request(format!("picture: more than {most_bytes} bytes, which is the limit")));
    }
    Ok(bytes)
}
