//! JPEG, written with the infotext in EXIF, and read.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{Beside, Channels, PictureFormat, PictureHeader, exif};
use crate::Result;

const FORMAT: PictureFormat = PictureFormat::Jpeg;
/// Passes of a progressive file; encoders make about ten.
const MOST_SCANS: usize = 100;

/// What A1111 saves with.
const QUALITY: u8 = 80;
/// UTF-16 units of text that an EXIF segment holds: 64 KiB without what stands around it.
pub(super) const LONGEST_INFOTEXT: usize = (65_533 - 64) / 2;

/// Writes RGB.
pub(super) fn encode((width, height): (usize, usize), pixels: &[u8], beside: &Beside<'_>) -> Result<Vec<u8>> {
    let infotext = beside.infotext;
    FORMAT.check_infotext(infotext.encode_utf16().count())?;
    let side = |pixels: usize| {
        u16::try_from(pixels)
            .map_err(|_| FORMAT.error(format!("{pixels} pixels are too many in a row or column")))
    };
    let (width, height) = (side(width)?, side(height)?);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    if !infotext.is_empty() {
        const EXIF_SEGMENT: u8 = 1;
        let segment = [b"Exif\0\0".to_vec(), exif::with_comment(infotext)].concat();
        encoder.add_app_segment(EXIF_SEGMENT, segment).map_err(|error| FORMAT.error(error))?;
    }
    if let Some(profile) = beside.icc_of(Channels::Rgb) {
        encoder.add_icc_profile(profile).map_err(|error| FORMAT.error(error))?;
    }
    encoder.encode(pixels, width, height, ColorType::Rgb).map_err(|error| FORMAT.error(error))?;
    Ok(bytes)
}

pub(super) fn header(bytes: &[u8]) -> Result<PictureHeader> {
    opened(bytes).map(|(_, header)| header)
}

pub(super) fn decode(bytes: &[u8], header: &PictureHeader) -> Result<Vec<u8>> {
    if !is_whole(bytes) {
        return Err(FORMAT.error("it is cut short: there is no end of image"));
    }
    let (mut decoder, _) = opened(bytes)?;
    let colours = match header.channels {
        Channels::Grey => ColorSpace::Luma,
        Channels::Rgb | Channels::Rgba => ColorSpace::RGB,
    };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(colours));
    decoder.decode().map_err(|error| FORMAT.error(error))
}

fn opened(bytes: &[u8]) -> Result<(JpegDecoder<ZCursor<&[u8]>>, PictureHeader)> {
    // The decoder takes sizes from one and sampling from the other.
    if frames(bytes) > 1 {
        return Err(FORMAT.error("it has more than one frame header"));
    }
    // Strict, for otherwise what is damaged or missing comes out as grey.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(MOST_SCANS);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| FORMAT.error(error))?;
    let (Some(info), Some(colours)) = (decoder.info(), decoder.input_colorspace()) else {
        return Err(FORMAT.error("it has no header"));
    };
    let channels = if colours == ColorSpace::Luma { Channels::Grey } else { Channels::Rgb };
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    Ok((decoder, PictureHeader { format: FORMAT, width, height, channels }))
}

/// How many frame headers there are. Those of a thumbnail stand within another segment.
fn frames(bytes: &[u8]) -> usize {
    let (mut frames, mut rest) = (0, bytes);
    while let Some(start) = rest.iter().position(|byte| *byte == 0xff) {
        rest = rest.get(start..).unwrap_or_default();
        let Some(marker) = rest.get(1).copied() else { break };
        let skipped = match marker {
            // Filling, what a scan's own bytes have, and markers without a segment.
            0xff => 1,
            0x00 | 0x01 | 0xd0..=0xd9 => 2,
            _ => {
                // Those between are tables.
                let is_frame = matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
                frames += usize::from(is_frame);
                match rest.get(2..4) {
                    Some(&[high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
                    _ => break,
                }
            }
        };
        rest = rest.get(skipped..).unwrap_or_default();
    }
    frames
}

/// Whether an end of image follows the last start of a scan. Neither marker can occur in a scan's own bytes. The decoder
/// does not miss what lacks in the last rows.
fn is_whole(bytes: &[u8]) -> bool {
    let last = bytes.windows(2).rev().find(|pair| matches!(pair, [0xff, 0xd9 | 0xda]));
    last == Some(&[0xff, 0xd9])
}
