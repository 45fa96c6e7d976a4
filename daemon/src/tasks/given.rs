//! Pictures in a request: exactly one form of each, bounded before memory is taken.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use latentd_client::protocol::{Bytes, ImageIn};
use latentd_models::image::{Picture, PictureFormat, PictureHeader, read_encoded};

use crate::error::{Error, Result};
use crate::folders::{Folders, Operation};
use crate::schema::shorten;

/// A picture as it was given, its header checked.
pub(super) enum Given {
    /// A file's bytes.
    Encoded(Vec<u8>),
    /// Pixels alone, as many as their size says.
    Pixels,
}

impl Given {
    /// Takes the one form of picture that `image`, the value of `field`, has. Files of up to `most_bytes` are read; a
    /// picture may have no more pixels than take as much.
    pub(super) fn new(field: &str, image: ImageIn, most_bytes: u64, folders: &Folders) -> Result<Self> {
        let forms = "give one of png, jpeg, webp, path, or raw with width, height and channels";
        let ImageIn { png, jpeg, webp, path, raw, width, height, channels } = image;
        let is_sized = [width, height, channels].iter().any(Option::is_some);
        if is_sized && raw.is_none() {
            return Err(Error::invalid(format!(
                "{field}: width, height and channels belong to raw; {forms}"
            )));
        }
        let encoded = |name: &str, bytes: Bytes| encoded(field, bytes.0, Some(name), most_bytes);
        match (png, jpeg, webp, path, raw) {
            (Some(bytes), None, None, None, None) => encoded("png", bytes),
            (None, Some(bytes), None, None, None) => encoded("jpeg", bytes),
            (None, None, Some(bytes), None, None) => encoded("webp", bytes),
            (None, None, None, Some(path), None) => from_file(field, &path, most_bytes, folders),
            (None, None, None, None, Some(pixels)) => {
                let (Some(width), Some(height), Some(channels)) = (width, height, channels) else {
                    let text = format!("{field}: raw needs width, height and channels; give all three");
                    return Err(Error::invalid(text));
                };
                let picture = Picture::from_raw(pixels.0, width, height, channels);
                picture.map(|_| Self::Pixels).map_err(|error| wrong(field, &error))
            }
            (None, None, None, None, None) => Err(Error::invalid(format!("{field}: is empty; {forms}"))),
            _ => Err(Error::invalid(format!("{field}: has more than one picture; {forms}"))),
        }
    }
}

fn from_file(field: &str, path: &str, most_bytes: u64, folders: &Folders) -> Result<Given> {
    let shown = shorten(path);
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(Error::invalid(format!("{field}.path: '{shown}' must be an absolute path")));
    }
    let failed =
        |error: io::Error| Error::invalid(format!("{field}.path: '{shown}' cannot be read: {error}"));
    let read = |operation: &Operation| {
        // Not blocking: a named pipe is refused instead of waited for.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::invalid(format!("{field}.path: '{shown}' is no regular file")));
        }
        read_encoded(Heard { file, operation }, most_bytes).map_err(|error| wrong(field, &error))
    };
    let folder = path.parent().unwrap_or(path);
    let bytes = folders.ask(folder, read).map_err(|silent| silent.in_field(&format!("{field}.path")))??;
    encoded(field, bytes, None, most_bytes)
}

/// A file that is heard of while it is read: a large one on a slow disk is not one that does not answer.
struct Heard<'a> {
    file: File,
    operation: &'a Operation,
}

impl Read for Heard<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.operation.heard();
        let read = self.file.read(into);
        self.operation.heard();
        read
    }
}

fn encoded(field: &str, bytes: Vec<u8>, name: Option<&str>, most_bytes: u64) -> Result<Given> {
    let format = PictureFormat::of(&bytes).map_err(|error| wrong(field, &error))?.name();
    if let Some(name) = name.filter(|name| *name != format) {
        return Err(Error::invalid(format!("{field}.{name}: is {format}; give it as {format}")));
    }
    let header = PictureHeader::read(&bytes).map_err(|error| wrong(field, &error))?;
    header.check(most_bytes).map_err(|error| wrong(field, &error))?;
    Ok(Given::Encoded(bytes))
}

/// An error of a picture with the field that it is in.
pub(super) fn wrong(field: &str, error: &latentd_models::Error) -> Error {
    Error::invalid(format!("{field}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn exactly_one_form_is_taken() {
        let folders = Folders::new();
        let raw = ImageIn::raw(vec![0; 12], 2, 2, 3);
        assert!(matches!(Given::new("image", raw.clone(), 1 << 20, &folders), Ok(Given::Pixels)));
        let rows = [
            (ImageIn::default(), "image: is empty; give one of png, jpeg, webp, path"),
            (ImageIn { png: Some(Bytes(vec![1])), ..raw.clone() }, "more than one picture; give one of"),
            (ImageIn { channels: None, ..raw.clone() }, "raw needs width, height and channels"),
            (ImageIn { raw: None, ..raw.clone() }, "belong to raw"),
            (ImageIn::raw(vec![0; 11], 2, 2, 3), "image: "),
            (ImageIn::png(b"no picture".to_vec()), "image: "),
            (ImageIn::path("relative.png"), "must be an absolute path"),
            (ImageIn::path("/no/such/file.png"), "cannot be read"),
            (ImageIn::path("/dev/null"), "is no regular file"),
        ];
        for (image, expected) in rows {
            let shown = format!("{image:?}");
            let error = Given::new("image", image, 1 << 20, &folders).err().expect(&shown);
            assert!(error.text.contains(expected), "{shown}: {error}");
        }
        let _silent = folders.silence(Path::new("/share"));
        let outcome = Given::new("image", ImageIn::path("/share/inner/x.png"), 1 << 20, &folders);
        let error = outcome.err().expect("refused");
        assert!(error.class == Class::Busy && error.text.contains("/share/inner does not answer"), "{error}");
    }
}
