//! PNG, written with the `parameters` text chunk, and read.

use super::{Beside, Channels, PictureFormat, PictureHeader, RgbImage, Sample};
use crate::{Error, Result};

const FORMAT: PictureFormat = PictureFormat::Png;
/// Bytes for texts, profiles and rows; the pixels' own buffer is checked apart.
const SMALL: usize = 64 << 20;

/// Writes a PNG whose text key `parameters` holds `infotext`: `tEXt` when it is Latin-1, else `iTXt`, as
/// Pillow does it.
pub fn encode_png(image: &RgbImage, infotext: &str) -> Result<Vec<u8>> {
    let beside = Beside { infotext, ..Beside::default() };
    encode((image.width, image.height), Channels::Rgb, &image.pixels, &beside)
}

/// The same of any pixels, with their bits, and with whatever stands beside them.
pub(super) fn encode<S: Sample>(
    (width, height): (usize, usize),
    channels: Channels,
    pixels: &[S],
    beside: &Beside<'_>,
) -> Result<Vec<u8>> {
    let failed = |error: png::EncodingError| Error::Request(format!("png: {error}"));
    let mut bytes = Vec::new();
    let mut info = png::Info::with_size(width as u32, height as u32);
    info.icc_profile = beside.icc_of(channels).map(Into::into);
    let mut encoder = png::Encoder::with_info(&mut bytes, info).map_err(failed)?;
    encoder.set_color(match channels {
        Channels::Grey => png::ColorType::Grayscale,
        Channels::Rgb => png::ColorType::Rgb,
        Channels::Rgba => png::ColorType::Rgba,
    });
    encoder.set_depth(if S::MOST > 255 { png::BitDepth::Sixteen } else { png::BitDepth::Eight });
    let infotext = (!beside.infotext.is_empty()).then_some(("parameters", beside.infotext));
    let others = beside.texts.iter().map(|(keyword, text)| (keyword.as_str(), text.as_str()));
    for (keyword, text) in infotext.into_iter().chain(others) {
        let latin1 = text.chars().all(|c| (c as u32) < 256);
        let added = if latin1 {
            encoder.add_text_chunk(keyword.into(), text.into())
        } else {
            encoder.add_itxt_chunk(keyword.into(), text.into())
        };
        added.map_err(failed)?;
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&S::big_endian(pixels)).map_err(failed)?;
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
    frame(opened(bytes)?, header, 1)
}

/// All 16 bits of each channel.
pub(super) fn decode_deep(bytes: &[u8], header: &PictureHeader) -> Result<Vec<u16>> {
    let pixels = frame(reader(bytes, png::Transformations::EXPAND)?, header, 2)?;
    Ok(pixels.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
}

/// Whether a channel has 16 bits, as the header says.
pub(super) fn is_deep(bytes: &[u8]) -> bool {
    const DEPTH: usize = 8;
    let header = chunks(bytes).next().filter(|(name, _)| name == b"IHDR");
    header.and_then(|(_, content)| content.get(DEPTH)) == Some(&16)
}

/// The first frame's pixels of so many bytes a number, of which grey with opacity has become RGBA.
fn frame(
    mut reader: png::Reader<std::io::Cursor<&[u8]>>,
    header: &PictureHeader,
    wide: usize,
) -> Result<Vec<u8>> {
    // The decoder's own limit does not hold for the buffer that it is given.
    let most = header.decoded_bytes().saturating_mul(wide as u64);
    let size = reader.output_buffer_size().filter(|size| *size as u64 <= most);
    let mut pixels = vec![0; size.ok_or_else(|| FORMAT.error("its sizes do not agree"))?];
    let frame = reader.next_frame(&mut pixels).map_err(|error| FORMAT.error(error))?;
    if (frame.width, frame.height) != (header.width, header.height) {
        return Err(FORMAT.error("its first frame has another size than the picture"));
    }
    pixels.truncate(frame.buffer_size());
    Ok(match frame.color_type {
        png::ColorType::GrayscaleAlpha => {
            let pixels = pixels.chunks_exact(2 * wide).map(|pixel| pixel.split_at(wide));
            pixels.flat_map(|(grey, opacity)| [grey, grey, grey, opacity].concat()).collect()
        }
        png::ColorType::Grayscale | png::ColorType::Rgb | png::ColorType::Rgba => pixels,
        png::ColorType::Indexed => return Err(FORMAT.error("palette was not expanded")),
    })
}

/// The chunks before the pixels are read, the pixels are not.
fn opened(bytes: &[u8]) -> Result<png::Reader<std::io::Cursor<&[u8]>>> {
    reader(bytes, png::Transformations::EXPAND | png::Transformations::STRIP_16)
}

fn reader(bytes: &[u8], changes: png::Transformations) -> Result<png::Reader<std::io::Cursor<&[u8]>>> {
    let mut decoder =
        png::Decoder::new_with_limits(std::io::Cursor::new(bytes), png::Limits { bytes: SMALL });
    decoder.set_transformations(changes);
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
