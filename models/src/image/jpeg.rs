//! JPEG, read.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{Channels, PictureFormat, PictureHeader};
use crate::Result;

const FORMAT: PictureFormat = PictureFormat::Jpeg;
/// Passes of a progressive file; encoders make about ten.
const MOST_SCANS: usize = 100;

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

/// Whether an end of image follows the last start of a scan. Neither marker can occur in a scan's own bytes. The decoder
/// does not miss what lacks in the last rows.
fn is_whole(bytes: &[u8]) -> bool {
    let last = bytes.windows(2).rev().find(|pair| matches!(pair, [0xff, 0xd9 | 0xda]));
    last == Some(&[0xff, 0xd9])
}
