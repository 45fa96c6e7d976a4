//! Pictures in a request: exactly one form of each, bounded before memory is taken.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use latentd_client::protocol::{Blob, BlobPutParams, Bytes, ImageIn};
use latentd_models::image::{Orientation, Picture, PictureFormat, PictureHeader, read_encoded};

use super::decoding::Decoding;
use super::studio::Studio;
use crate::blobs::{BlobLimits, Blobs};
use crate::error::{Error, Result};
use crate::folders::{Folders, Operation};
use crate::schema::shorten;

/// A picture as it was given: a file's bytes, whose header was checked. Pixels become a PNG, so that it has one name.
#[derive(Clone)]
pub(super) struct Given {
    bytes: Arc<[u8]>,
    /// Whether it was a file from the start, and may have a text.
    is_file: bool,
}

/// Where pictures come from.
pub(super) struct Sources<'a> {
    /// Bytes that one may take, as a file and as pixels.
    most_bytes: u64,
    folders: &'a Folders,
    blobs: &'a Blobs,
    limits: BlobLimits,
    decoding: &'a Decoding,
}

impl<'a> Sources<'a> {
    pub(super) fn of(studio: &'a Studio) -> Self {
        let settings = studio.settings.get();
        let Studio { folders, blobs, decoding, .. } = studio;
        Self { most_bytes: settings.picture_bytes, folders, blobs, limits: settings.blobs, decoding }
    }
}

impl Given {
    /// Takes the one form of picture that `image`, the value of `field`, has. Files of up to `most_bytes` are read; a
    /// picture may have no more pixels than take as much.
    pub(super) fn new(field: &str, image: ImageIn, sources: &Sources) -> Result<Self> {
        let most_bytes = sources.most_bytes;
        let forms = "give one of png, jpeg, webp, path, blob, or raw with width, height and channels";
        let ImageIn { png, jpeg, webp, path, blob, raw, width, height, channels } = image;
        let is_sized = [width, height, channels].iter().any(Option::is_some);
        if is_sized && raw.is_none() {
            return Err(Error::invalid(format!(
                "{field}: width, height and channels belong to raw; {forms}"
            )));
        }
        let named = |name: &str, bytes: Bytes| encoded(field, bytes.0.into(), Some(name), most_bytes);
        match (png, jpeg, webp, path, blob, raw) {
            (Some(bytes), None, None, None, None, None) => named("png", bytes),
            (None, Some(bytes), None, None, None, None) => named("jpeg", bytes),
            (None, None, Some(bytes), None, None, None) => named("webp", bytes),
            (None, None, None, Some(path), None, None) => {
                from_file(field, &path, most_bytes, sources.folders)
            }
            (None, None, None, None, Some(name), None) => {
                encoded(field, sources.blobs.get(field, &name, sources.limits)?, None, most_bytes)
            }
            (None, None, None, None, None, Some(pixels)) => {
                let (Some(width), Some(height), Some(channels)) = (width, height, channels) else {
                    let text = format!("{field}: raw needs width, height and channels; give all three");
                    return Err(Error::invalid(text));
                };
                let picture = Picture::from_raw(pixels.0, width, height, channels);
                let png = picture.and_then(|picture| picture.to_png());
                let bytes = png.map_err(|error| wrong(field, &error))?.into();
                Ok(Self { bytes, is_file: false })
            }
            (None, None, None, None, None, None) => {
                Err(Error::invalid(format!("{field}: is empty; {forms}")))
            }
            _ => Err(Error::invalid(format!("{field}: has more than one picture; {forms}"))),
        }
    }

    /// What its header says.
    pub(super) fn header(&self, field: &str) -> Result<PictureHeader> {
        PictureHeader::read(&self.bytes).map_err(|error| wrong(field, &error))
    }

    /// Which way up it was taken.
    pub(super) fn orientation(&self, field: &str) -> Result<Orientation> {
        Orientation::read(&self.bytes).map_err(|error| wrong(field, &error))
    }

    /// A picture that was made here.
    pub(super) fn of_picture(picture: &Picture) -> Result<Self> {
        Ok(Self { bytes: picture.to_png()?.into(), is_file: false })
    }

    /// The file, if it was given as one.
    pub(super) fn file(&self) -> Option<&[u8]> {
        self.is_file.then_some(&*self.bytes)
    }

    /// What `work` makes of the pixels of what `field` has. Waits while others are decoded that leave no room for it.
    pub(super) fn decoded<T>(
        &self,
        field: &str,
        sources: &Sources,
        work: impl FnOnce(Picture) -> latentd_models::Result<T>,
    ) -> Result<T> {
        let header = self.header(field)?;
        // In the widest form that a decoder gives pixels in on the way.
        let bytes = 4 * header.width as u64 * header.height as u64;
        let _room = sources.decoding.wait(bytes, sources.most_bytes);
        Picture::decode(&self.bytes, sources.most_bytes).and_then(work).map_err(|error| wrong(field, &error))
    }

    /// Bits of a channel: 8, or 16.
    pub(super) fn bits(&self, field: &str) -> Result<u8> {
        PictureHeader::bits(&self.bytes).map_err(|error| wrong(field, &error))
    }

    /// As [`decoded`](Self::decoded), with all 16 bits of each channel.
    pub(super) fn decoded_deep(&self, field: &str, sources: &Sources) -> Result<Picture<u16>> {
        let header = self.header(field)?;
        // Two bytes a number, read and put together.
        let bytes = 2 * 8 * header.width as u64 * header.height as u64;
        let _room = sources.decoding.wait(bytes, sources.most_bytes);
        // What a picture may take is told of 8 bits.
        let most = sources.most_bytes.saturating_mul(2);
        Picture::decode_deep(&self.bytes, most).map_err(|error| wrong(field, &error))
    }

    /// Its SHA-256.
    pub(super) fn sha256(&self) -> String {
        Blobs::name(&self.bytes)
    }

    /// Its SHA-256, by which it is known from now on for a while.
    pub(super) fn keep(&self, sources: &Sources) -> String {
        sources.blobs.keep(&self.bytes, sources.limits)
    }
}

/// `blobs.put`.
pub(crate) fn put_blob(params: BlobPutParams, studio: &Studio) -> Result<Blob> {
    let sources = Sources::of(studio);
    let given = encoded("data", params.data.0.into(), None, sources.most_bytes)?;
    let (bytes, most) = (given.bytes.len() as u64, sources.limits.bytes);
    if bytes > most {
        let text = format!("data: {bytes} bytes, of which {most} may be kept; raise blobs_bytes");
        return Err(Error::invalid(text));
    }
    Ok(Blob { blob: given.keep(&sources) })
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
    encoded(field, bytes.into(), None, most_bytes)
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

fn encoded(field: &str, bytes: Arc<[u8]>, name: Option<&str>, most_bytes: u64) -> Result<Given> {
    let format = PictureFormat::of(&bytes).map_err(|error| wrong(field, &error))?.name();
    if let Some(name) = name.filter(|name| *name != format) {
        return Err(Error::invalid(format!("{field}.{name}: is {format}; give it as {format}")));
    }
    let header = PictureHeader::read(&bytes).map_err(|error| wrong(field, &error))?;
    header.check(most_bytes).map_err(|error| wrong(field, &error))?;
    Ok(Given { bytes, is_file: true })
}

/// An error of a picture with the field that it is in.
pub(super) fn wrong(field: &str, error: &latentd_models::Error) -> Error {
    Error::invalid(format!("{field}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Class;

    #[test]
    fn exactly_one_form_is_taken() {
        let (folders, blobs, decoding) = (Folders::new(), Blobs::default(), Decoding::default());
        let limits = BlobLimits { bytes: 1 << 20, ttl: Duration::from_hours(1) };
        let sources =
            Sources { most_bytes: 1 << 20, folders: &folders, blobs: &blobs, limits, decoding: &decoding };
        let raw = ImageIn::raw((0..12).collect(), 2, 2, 3);
        let pixels = Given::new("image", raw.clone(), &sources).expect("taken");
        assert!(pixels.file().is_none());
        let name = pixels.keep(&sources);
        let again = Given::new("image", ImageIn::blob(&name), &sources).expect("kept");
        assert_eq!(
            again.decoded("image", &sources, |picture| Ok(picture.pixels)).expect("decodes"),
            (0..12).collect::<Vec<u8>>()
        );
        assert!(again.file().is_some_and(|png| png.starts_with(b"\x89PNG")));
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
            (ImageIn::blob("0".repeat(64)), "image.blob: 0000"),
            (ImageIn { blob: Some(name), ..raw.clone() }, "more than one picture"),
        ];
        for (image, expected) in rows {
            let shown = format!("{image:?}");
            let error = Given::new("image", image, &sources).err().expect(&shown);
            assert!(error.text.contains(expected), "{shown}: {error}");
        }
        let _silent = folders.silence(Path::new("/share"));
        let outcome = Given::new("image", ImageIn::path("/share/inner/x.png"), &sources);
        let error = outcome.err().expect("refused");
        assert!(error.class == Class::Busy && error.text.contains("/share/inner does not answer"), "{error}");
    }
}
