//! From pixels to what a request asked for: an encoded picture, raw pixels, or files.

use std::path::{Path, PathBuf};

use latentd_client::protocol::{Bytes, ImageOut, OutputFormat, OutputParams};
use latentd_models::image::{PictureFormat, RgbImage, encode_png};

use crate::error::{Error, Result};
use crate::schema::shorten;
use crate::state_dir::make_private;
use crate::whole_file;

/// How pictures come back.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    Encoded(PictureFormat),
    Raw,
    /// As files in this folder.
    Files(PathBuf),
    /// As files in the daemon's own folder, which is made anew if somebody removed it.
    OwnFiles(PathBuf),
}

impl Output {
    /// Refuses what cannot be written; `own` is the folder of those who name none.
    pub(super) fn resolve(params: &OutputParams, own: &Path) -> Result<Self> {
        let dir = params.dir.as_deref().map(folder).transpose()?;
        Ok(match params.format {
            OutputFormat::Png => Self::Encoded(PictureFormat::Png),
            OutputFormat::Jpeg => Self::Encoded(PictureFormat::Jpeg),
            OutputFormat::Webp => Self::Encoded(PictureFormat::WebP),
            OutputFormat::Raw => Self::Raw,
            OutputFormat::File => dir.map_or_else(|| Self::OwnFiles(own.to_owned()), Self::Files),
        })
    }

    /// Refuses prompts that the text in a picture of this form has no room for.
    pub(super) fn check_prompts(&self, prompts: [&str; 2]) -> Result<()> {
        /// Room for the rest of the text: names and numbers.
        const SETTINGS: usize = 4096;
        let Self::Encoded(format) = self else {
            return Ok(());
        };
        let units: usize = prompts.iter().map(|prompt| prompt.encode_utf16().count()).sum();
        format
            .check_infotext(units + SETTINGS)
            .map_err(|error| Error::invalid(format!("output.format: {error}")))
    }

    /// Packs image number `index` of a job.
    pub(super) fn pack(
        &self,
        image: RgbImage,
        seed: u64,
        infotext: String,
        job: &str,
        index: usize,
    ) -> Result<ImageOut> {
        let mut packed = ImageOut {
            width: image.width as u32,
            height: image.height as u32,
            seed: Some(seed),
            ..Default::default()
        };
        match self {
            Self::Encoded(format) => {
                let bytes = Some(Bytes(image.encode(*format, &infotext)?));
                match format {
                    PictureFormat::Png => packed.png = bytes,
                    PictureFormat::Jpeg => packed.jpeg = bytes,
                    PictureFormat::WebP => packed.webp = bytes,
                }
            }
            Self::Raw => {
                packed.raw = Some(Bytes(image.pixels));
                packed.channels = Some(3);
            }
            Self::Files(dir) | Self::OwnFiles(dir) => {
                let path = dir.join(format!("{job}-{index}.png"));
                let png = encode_png(&image, &infotext)?;
                let made = if matches!(self, Self::OwnFiles(_)) { make_private(dir) } else { Ok(()) };
                made.and_then(|()| whole_file::write(&path, &png)).map_err(|error| {
                    Error::internal(format!("cannot write {}: {error}; make room", path.display()))
                })?;
                packed.path = Some(path.display().to_string());
            }
        }
        packed.infotext = Some(infotext);
        Ok(packed)
    }
}

fn folder(dir: &str) -> Result<PathBuf> {
    let path = Path::new(dir);
    if !path.is_absolute() {
        return Err(Error::invalid(format!("output.dir: '{}' must be an absolute path", shorten(dir))));
    }
    if !path.is_dir() {
        return Err(Error::invalid(format!("output.dir: '{}' is no folder; make it first", shorten(dir))));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn what_cannot_be_written_is_refused() {
        let resolve = |format, dir: Option<&str>| {
            let params = OutputParams { format, dir: dir.map(str::to_owned) };
            Output::resolve(&params, Path::new("/own"))
        };
        assert_eq!(resolve(OutputFormat::Png, None), Ok(Output::Encoded(PictureFormat::Png)));
        assert_eq!(resolve(OutputFormat::Jpeg, None), Ok(Output::Encoded(PictureFormat::Jpeg)));
        assert_eq!(resolve(OutputFormat::File, None), Ok(Output::OwnFiles("/own".into())));
        assert_eq!(resolve(OutputFormat::File, Some("/")), Ok(Output::Files("/".into())));
        let long = "x".repeat(20_000);
        let jpeg = resolve(OutputFormat::Jpeg, None).expect("known");
        assert_eq!(jpeg.check_prompts([&long, ""]), Ok(()));
        let error = jpeg.check_prompts([&long, &long]).expect_err("no room");
        assert!(error.class == Class::InvalidParams && error.text.contains("use png or webp"), "{error}");
        let relative = resolve(OutputFormat::File, Some("relative"));
        assert!(relative.is_err_and(|error| error.text.contains("absolute")));
        let missing = resolve(OutputFormat::Png, Some("/no/such/folder"));
        assert!(missing.is_err_and(|error| error.text.contains("no folder")));
    }
}
