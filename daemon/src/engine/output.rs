//! From pixels to what a request asked for: PNG bytes, raw pixels, or files.

use std::path::Path;

use latentd_client::protocol::{Bytes, ImageOut, OutputFormat};
use latentd_models::image::{RgbImage, encode_png};

use crate::error::{Error, Result};
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
) -> Result<ImageOut> {
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
            let png = encode_png(&image, &infotext)?;
            whole_file::write(&path, &png).map_err(|error| {
                Error::internal(format!("cannot write {}: {error}; make room", path.display()))
            })?;
            packed.path = Some(path.display().to_string());
        }
        // The plan has refused what cannot be written.
        OutputFormat::Png | OutputFormat::Jpeg | OutputFormat::Webp => {
            packed.png = Some(Bytes(encode_png(&image, &infotext)?));
        }
    }
    packed.infotext = Some(infotext);
    Ok(packed)
}
