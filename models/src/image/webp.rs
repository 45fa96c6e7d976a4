//! WebP, written without loss and with the infotext in EXIF, and read.

use std::io::Cursor;

use image_webp::{ColorType, WebPDecoder, WebPEncoder};

use super::{Beside, Channels, PictureFormat, PictureHeader, exif};
use crate::Result;

const FORMAT: PictureFormat = PictureFormat::WebP;
/// Where the first chunk begins, after `RIFF`, a length and `WEBP`.
const FIRST_CHUNK: usize = 12;
/// What a frame of an animation has before its own chunks.
const FRAME_HEADER: usize = 16;
/// Bytes for ICC profile and the like.
const SMALL: usize = 1 << 20;

pub(super) fn encode(
    (width, height): (usize, usize),
    channels: Channels,
    pixels: &[u8],
    beside: &Beside<'_>,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = WebPEncoder::new(&mut bytes);
    if !beside.infotext.is_empty() {
        encoder.set_exif_metadata(exif::with_comment(beside.infotext));
    }
    if let Some(profile) = beside.icc_of(channels) {
        encoder.set_icc_profile(profile.to_vec());
    }
    let colours = match channels {
        Channels::Grey => ColorType::L8,
        Channels::Rgb => ColorType::Rgb8,
        Channels::Rgba => ColorType::Rgba8,
    };
    encoder.encode(pixels, width as u32, height as u32, colours).map_err(|error| FORMAT.error(error))?;
    Ok(bytes)
}

pub(super) fn header(bytes: &[u8]) -> Result<PictureHeader> {
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| FORMAT.error(error))?;
    let (width, height) = decoder.dimensions();
    let channels = if decoder.has_alpha() { Channels::Rgba } else { Channels::Rgb };
    // The decoder takes memory by the frame's own size, and sees afterwards that the canvas is another.
    let animated = decoder.is_animated();
    let fits =
        |(w, h): (u32, u32)| if animated { w <= width && h <= height } else { (w, h) == (width, height) };
    if let Some((w, h)) = frame_sizes(bytes).into_iter().find(|size| !fits(*size)) {
        return Err(FORMAT.error(format!("a frame is {w}x{h}, the picture {width}x{height}")));
    }
    Ok(PictureHeader { format: FORMAT, width, height, channels })
}

pub(super) fn decode(bytes: &[u8], header: &PictureHeader) -> Result<Vec<u8>> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| FORMAT.error(error))?;
    decoder.set_memory_limit(SMALL);
    let size = decoder.output_buffer_size().filter(|size| *size as u64 == header.decoded_bytes());
    let mut pixels = vec![0; size.ok_or_else(|| FORMAT.error("its sizes do not agree"))?];
    decoder.read_image(&mut pixels).map_err(|error| FORMAT.error(error))?;
    Ok(pixels)
}

/// The chunks of these bytes, each with its name; what is cut short ends them.
pub(super) fn chunks(bytes: &[u8], first: usize) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = bytes.get(first..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, after) = rest.split_at_checked(4)?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let content = after.get(..length).unwrap_or(after);
        rest = after.get(length + length % 2..).unwrap_or_default();
        Some((name, content))
    })
}

/// The file's metadata chunk of this name.
pub(super) fn metadata<'a>(bytes: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    chunks(bytes, FIRST_CHUNK).find(|(name, _)| *name == wanted).map(|(_, content)| content)
}

/// The sizes that the bitstreams themselves tell, of a still picture and of frames.
fn frame_sizes(bytes: &[u8]) -> Vec<(u32, u32)> {
    let streams = chunks(bytes, FIRST_CHUNK).flat_map(|(name, content)| {
        let inner = (name == b"ANMF").then(|| chunks(content, FRAME_HEADER));
        std::iter::once((name, content)).chain(inner.into_iter().flatten())
    });
    streams.filter_map(|(name, content)| stream_size(name, content)).collect()
}

fn stream_size(name: &[u8], content: &[u8]) -> Option<(u32, u32)> {
    match name {
        b"VP8 " => {
            let size = content.get(6..)?.first_chunk::<4>()?;
            let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Some((side(size[0], size[1]), side(size[2], size[3])))
        }
        b"VP8L" => {
            let bits = u32::from_le_bytes(*content.get(1..)?.first_chunk::<4>()?);
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        _ => None,
    }
}
