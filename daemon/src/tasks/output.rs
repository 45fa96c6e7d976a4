//! From pixels to what a request asked for: PNG bytes, raw pixels, or files.

use std::path::{Path, PathBuf};

use latentd_client::protocol::{Bytes, ImageOut, OutputFormat, OutputParams};
use latentd_models::image::{RgbImage, encode_png};

use crate::error::{Class, Error, Result};
use crate::schema::shorten;
use crate::state_dir::make_private;
use crate::whole_file;

/// How pictures come back.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    Png,
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
        let name = match params.format {
            OutputFormat::Png => return Ok(Self::Png),
            OutputFormat::Raw => return Ok(Self::Raw),
            OutputFormat::File => {
                return Ok(dir.map_or_else(|| Self::OwnFiles(own.to_owned()), Self::Files));
            }
            OutputFormat::Jpeg => "jpeg",
            OutputFormat::Webp => "webp",
        };
        let text = format!("output.format: '{name}' is not in this build; use png, raw or file");
        Err(Error::new(Class::Unsupported, text))
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
            Self::Png => packed.png = Some(Bytes(encode_png(&image, &infotext)?)),
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

    #[test]
    fn what_cannot_be_written_is_refused() {
        let resolve = |format, dir: Option<&str>| {
            let params = OutputParams { format, dir: dir.map(str::to_owned) };
            Output::resolve(&params, Path::new("/own"))
        };
        assert_eq!(resolve(OutputFormat::Png, None), Ok(Output::Png));
        assert_eq!(resolve(OutputFormat::File, None), Ok(Output::OwnFiles("/own".into())));
        assert_eq!(resolve(OutputFormat::File, Some("/")), Ok(Output::Files("/".into())));
        assert!(resolve(OutputFormat::Jpeg, None).is_err_and(|error| error.class == Class::Unsupported));
        let relative = resolve(OutputFormat::File, Some("relative"));
        assert!(relative.is_err_and(|error| error.text.contains("absolute")));
        let missing = resolve(OutputFormat::Png, Some("/no/such/folder"));
        assert!(missing.is_err_and(|error| error.text.contains("no folder")));
    }
}
