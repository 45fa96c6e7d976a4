//! What a request asked for: encoded pictures, raw pixels, or files.

use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::{Path, PathBuf};
use std::{fs, io};

use latentd_client::protocol::{OutputFormat, OutputParams};
use latentd_models::image::PictureFormat;

use crate::error::{Error, Result};
use crate::folders::{Folders, advice};
use crate::schema::shorten;
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
    pub(super) fn resolve(params: &OutputParams, own: &Path, folders: &Folders) -> Result<Self> {
        let is_written = params.format == OutputFormat::File;
        let of_field = |dir| folder("output.dir", dir, is_written, folders);
        let dir = params.dir.as_deref().map(of_field).transpose()?;
        Ok(match params.format {
            OutputFormat::Png => Self::Encoded(PictureFormat::Png),
            OutputFormat::Jpeg => Self::Encoded(PictureFormat::Jpeg),
            OutputFormat::Webp => Self::Encoded(PictureFormat::WebP),
            OutputFormat::Raw => Self::Raw,
            OutputFormat::File => dir.map_or_else(|| Self::OwnFiles(own.to_owned()), Self::Files),
        })
    }

    /// Whether there are texts that a picture of this form has no room for.
    pub(super) fn limits_texts(&self) -> bool {
        *self == Self::Encoded(PictureFormat::Jpeg)
    }

    /// Refuses a text that a picture of this form has no room for.
    pub(super) fn check_infotext(&self, text: &str) -> Result<()> {
        match self {
            Self::Encoded(format) => Ok(format.check_infotext(text.encode_utf16().count())?),
            _ => Ok(()),
        }
    }

    /// Refuses prompts that a picture of this form has no room for; or the whole of a text that says them, without the names
    /// and numbers that are not known yet.
    pub(super) fn check_prompts<'a>(&self, prompts: impl IntoIterator<Item = &'a str>) -> Result<()> {
        /// Room for the rest of the text: names and numbers.
        const SETTINGS: usize = 4096;
        let Self::Encoded(format) = self else {
            return Ok(());
        };
        let units: usize = prompts.into_iter().map(|prompt| prompt.encode_utf16().count()).sum();
        format
            .check_infotext(units + SETTINGS)
            .map_err(|error| Error::invalid(format!("output.format: {error}")))
    }
}

/// The folder that a request names in a field; tried, if files are to be written into it.
pub(super) fn folder(field: &str, dir: &str, is_written: bool, folders: &Folders) -> Result<PathBuf> {
    let (path, shown) = (Path::new(dir), shorten(dir));
    if !path.is_absolute() {
        return Err(Error::invalid(format!("{field}: '{shown}' must be an absolute path")));
    }
    let wrong =
        |what: &str, advice: &str| Err(Error::invalid(format!("{field}: '{shown}' {what}; {advice}")));
    let tried = folders.ask(path, |_| match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err((false, io::Error::from(NotADirectory))),
        Ok(_) if is_written => whole_file::check_folder(path).map_err(|error| (true, error)),
        looked => looked.map(drop).map_err(|error| (false, error)),
    });
    match tried.map_err(|silent| silent.in_field(field))? {
        Ok(()) => Ok(path.to_owned()),
        Err((false, error)) if matches!(error.kind(), NotFound | NotADirectory) => {
            wrong("is no folder", advice(&error))
        }
        // It is there, and is one that takes no files.
        Err((true, error)) if error.kind() == NotFound => wrong("takes no files", "give another folder"),
        Err((_, error)) => wrong(&format!("cannot be written: {error}"), advice(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn what_cannot_be_written_is_refused() {
        let folders = Folders::new();
        let made = tempfile::tempdir().expect("a folder");
        let dir = made.path().to_str().expect("text");
        let resolve = |format, dir: Option<&str>| {
            let params = OutputParams { format, dir: dir.map(str::to_owned) };
            Output::resolve(&params, Path::new("/own"), &folders)
        };
        assert_eq!(resolve(OutputFormat::Png, None), Ok(Output::Encoded(PictureFormat::Png)));
        assert_eq!(resolve(OutputFormat::Jpeg, None), Ok(Output::Encoded(PictureFormat::Jpeg)));
        assert_eq!(resolve(OutputFormat::File, None), Ok(Output::OwnFiles("/own".into())));
        assert_eq!(resolve(OutputFormat::File, Some(dir)), Ok(Output::Files(dir.into())));
        assert_eq!(fs::read_dir(dir).expect("there").count(), 0, "nothing stays of the try");
        let long = "x".repeat(20_000);
        let jpeg = resolve(OutputFormat::Jpeg, None).expect("known");
        assert_eq!(jpeg.check_prompts([long.as_str(), ""]), Ok(()));
        let error = jpeg.check_prompts([long.as_str(), long.as_str()]).expect_err("no room");
        assert!(error.class == Class::InvalidParams && error.text.contains("use png or webp"), "{error}");
        let relative = resolve(OutputFormat::File, Some("relative"));
        assert!(relative.is_err_and(|error| error.text.contains("absolute")));
        let missing = resolve(OutputFormat::Png, Some("/no/such/folder"));
        assert!(missing.is_err_and(|error| error.text.contains("no folder")));
        fs::write(made.path().join("file"), "x").expect("written");
        {
            let _silent = folders.silence(Path::new("/share"));
            let error = resolve(OutputFormat::File, Some("/share")).expect_err("refused");
            assert!(error.class == Class::Busy && error.text.contains("/share does not answer"), "{error}");
        }
        for (dir, text) in [
            ("/no/such/folder", "is no folder; make it first"),
            (made.path().join("file").to_str().expect("text"), "is no folder; give a folder"),
            // Where nobody makes files, not even root.
            ("/proc", "takes no files; give another folder"),
        ] {
            let error = resolve(OutputFormat::File, Some(dir)).expect_err("refused");
            assert!(error.class == Class::InvalidParams && error.text.contains(text), "{error}");
        }
    }
}
