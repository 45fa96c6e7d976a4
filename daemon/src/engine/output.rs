//! From pixels to what a request asked for: PNG bytes, raw pixels, or files.

use std::path::Path;

use latentd_client::protocol::{Bytes, ErrorName, ImageOut, OutputFormat, WireError};
use latentd_models::image::{RgbImage, encode_png};

use super::wire_error;
use crate::whole_file;

/// Packs image number `index` of a job.
pub(super) fn pack(
    image: RgbImage,
    seed: u64,
    infotext: String,
    format: OutputFormat,
    dir: &Path,
    job: &str,
    index: usize,
) -> Result<ImageOut, WireError> {
    let mut packed = ImageOut {
        width: image.width as u32,
        height: image.height as u32,
        seed: Some(seed),
        ..Default::default()
    };
    match format {
        OutputFormat::Raw => {
            packed.raw = Some(Bytes(image.pixels));
            packed.channels = Some(3);
        }
        OutputFormat::File => {
            let path = dir.join(format!("{job}-{index}.png"));
            let png = encode_png(&image, &infotext).map_err(|error| wire_error(&error))?;
            whole_file::write(&path, &png).map_err(|error| {
                WireError::new(
                    ErrorName::Internal,
                    format!("cannot write {}: {error}; make room", path.display()),
                )
            })?;
            packed.path = Some(path.display().to_string());
        }
        // The plan has refused what cannot be written.
        OutputFormat::Png | OutputFormat::Jpeg | OutputFormat::Webp => {
            packed.png = Some(Bytes(encode_png(&image, &infotext).map_err(|error| wire_error(&error))?));
        }
    }
    packed.infotext = Some(infotext);
    Ok(packed)
}
