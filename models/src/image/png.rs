//! PNG with the `parameters` text chunk.

use super::RgbImage;
use crate::{Error, Result};

/// Writes a PNG whose text key `parameters` holds `infotext`: `tEXt` when it is Latin-1, else `iTXt`, as
/// Pillow does it.
pub fn encode_png(image: &RgbImage, infotext: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width as u32, image.height as u32);
    encoder.set_color(png::ColorType::Rgb);
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
    writer.write_image_data(&image.pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// Most bytes that a PNG's pixels may take, as the file has them.
const LARGEST: usize = 64 << 20;

/// Reads a PNG as 8-bit RGB; an alpha channel is left out. One of more than 64 MiB of pixels is refused.
pub fn decode_png(bytes: &[u8]) -> Result<RgbImage> {
    let mut reader = open(bytes)?;
    // The decoder's own limit does not hold for the buffer that it is given.
    let size = reader.output_buffer_size().filter(|size| *size <= LARGEST);
    let size = size.ok_or_else(|| Error::Request("png: image too large".into()))?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(|error| Error::Request(format!("png: {error}")))?;
    pixels.truncate(frame.buffer_size());
    let pixels = match frame.color_type {
        png::ColorType::Rgb => pixels,
        png::ColorType::Rgba => pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        png::ColorType::Grayscale => pixels.iter().flat_map(|p| [*p; 3]).collect(),
        png::ColorType::GrayscaleAlpha => pixels.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        png::ColorType::Indexed => return Err(Error::Request("png: palette was not expanded".into())),
    };
    Ok(RgbImage { width: frame.width as usize, height: frame.height as usize, pixels })
}

/// The `parameters` text of a PNG, if it has one.
pub fn png_infotext(bytes: &[u8]) -> Result<Option<String>> {
    let reader = open(bytes)?;
    let info = reader.info();
    let plain = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == "parameters");
    if let Some(chunk) = plain {
        return Ok(Some(chunk.text.clone()));
    }
    let utf8 = info.utf8_text.iter().find(|chunk| chunk.keyword == "parameters");
    utf8.map(|chunk| chunk.get_text().map_err(|error| Error::Request(format!("png: {error}")))).transpose()
}

fn open(bytes: &[u8]) -> Result<png::Reader<std::io::Cursor<&[u8]>>> {
    let mut decoder =
        png::Decoder::new_with_limits(std::io::Cursor::new(bytes), png::Limits { bytes: LARGEST });
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    decoder.read_info().map_err(|error| Error::Request(format!("png: {error}")))
}
