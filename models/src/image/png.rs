//! PNG, written with the `parameters` text chunk, and read.

use super::{Channels, PictureFormat, PictureHeader, RgbImage};
use crate::{Error, Result};

const FORMAT: PictureFormat = PictureFormat::Png;
/// Bytes for texts, profiles and rows; the pixels' own buffer is checked apart.
const SMALL: usize = 64 << 20;

/// Writes a PNG whose text key `parameters` holds `infotext`: `tEXt` when it is Latin-1, else `iTXt`, as
/// Pillow does it.
pub fn encode_png(image: &RgbImage, infotext: &str) -> Result<Vec<u8>> {
    encode((image.width, image.height), Channels::Rgb, &image.pixels, infotext)
}

/// The same of any pixels.
pub(super) fn encode(
    (width, height): (usize, usize),
    channels: Channels,
    pixels: &[u8],
    infotext: &str,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(match channels {
        Channels::Grey => png::ColorType::Grayscale,
        Channels::Rgb => png::ColorType::Rgb,
        Channels::Rgba => png::ColorType::Rgba,
    });
    encoder.set_depth(png::BitDepth::Eight);
    let failed = |error: png::EncodingError| Error::Request(format!("png: {error}"));
    if !infotext.is_empty() {
        let latin1 = infotext.chars().all(|c| (c as u32) < 256);
        let added = if latin1 {
            encoder.add_text_chunk("parameters".into(), infotext.into())
        } else {
            encoder.add_itxt_chunk("parameters".into(), infotext.into())
        };
        added.map_err(failed)?;
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

pub(super) fn header(bytes: &[u8]) -> Result<PictureHeader> {
    let reader = opened(bytes)?;
    let channels = match reader.output_color_type().0 {
        png::ColorType::Grayscale => Channels::Grey,
        png::ColorType::Rgb | png::ColorType::Indexed => Channels::Rgb,
        png::ColorType::Rgba | png::ColorType::GrayscaleAlpha => Channels::Rgba,
    };
    let (width, height) = reader.info().size();
    Ok(PictureHeader { format: FORMAT, width, height, channels })
}

pub(super) fn decode(bytes: &[u8], header: &PictureHeader) -> Result<Vec<u8>> {
    let mut reader = opened(bytes)?;
    // The decoder's own limit does not hold for the buffer that it is given.
    let size = reader.output_buffer_size().filter(|size| *size as u64 <= header.decoded_bytes());
    let mut pixels = vec![0; size.ok_or_else(|| FORMAT.error("its sizes do not agree"))?];
    let frame = reader.next_frame(&mut pixels).map_err(|error| FORMAT.error(error))?;
    if (frame.width, frame.height) != (header.width, header.height) {
        return Err(FORMAT.error("its first frame has another size than the picture"));
    }
    pixels.truncate(frame.buffer_size());
    Ok(match frame.color_type {
        png::ColorType::GrayscaleAlpha => {
            pixels.chunks_exact(2).flat_map(|pixel| [pixel[0], pixel[0], pixel[0], pixel[1]]).collect()
        }
        png::ColorType::Grayscale | png::ColorType::Rgb | png::ColorType::Rgba => pixels,
        png::ColorType::Indexed => return Err(FORMAT.error("palette was not expanded")),
    })
}

/// The chunks before the pixels are read, the pixels are not.
fn opened(bytes: &[u8]) -> Result<png::Reader<std::io::Cursor<&[u8]>>> {
    let mut decoder =
        png::Decoder::new_with_limits(std::io::Cursor::new(bytes), png::Limits { bytes: SMALL });
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    // Texts are read elsewhere.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.read_info().map_err(|error| FORMAT.error(error))
}

/// The chunks of a PNG, each with its name; what is cut short ends them.
pub(super) fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    const SIGNATURE: usize = 8;
    const CHECKSUM: usize = 4;
    let mut rest = bytes.get(SIGNATURE..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_at_checked(4)?;
        let length = u32::from_be_bytes(*length) as usize;
        let content = after.get(..length)?;
        rest = after.get(length + CHECKSUM..).unwrap_or_default();
        Some((name, content))
    })
}
