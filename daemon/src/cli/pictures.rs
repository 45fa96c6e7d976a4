//! Where pictures go: to files whose ending says their format, or to stdout.

use std::io;
use std::path::{Path, PathBuf};

use latentd_client::protocol::{Artifact, ImageOut, OutputFormat};
use latentd_models::image::{Picture, PictureFormat, read_infotext};

use super::failure::Failure;
use super::output::{print, write_out};
use crate::whole_file;

/// Bytes of pixels that a picture may take that is written in another format than it came in.
const MOST_BYTES: u64 = 1 << 30;

/// Where they go.
pub(super) enum Target {
    /// One after the other.
    Stdout,
    /// A file; of several pictures NAME-1, NAME-2, …
    File(PathBuf),
    /// Files here, named after the seeds, and those of variations.
    BySeed,
}

impl Target {
    /// What `-o` names. Refuses at once what cannot be written, so that nothing is drawn for it.
    pub(super) fn new(output: Option<PathBuf>) -> Result<Self, Failure> {
        let (target, path) = match output {
            Some(path) if path == Path::new("-") => return Ok(Self::Stdout),
            Some(path) => (Self::File(path.clone()), path),
            None => (Self::BySeed, PathBuf::from("picture")),
        };
        if format(&path).is_none() {
            let ending = path.extension().unwrap_or_default().display();
            return Err(Failure::usage(format!(
                "cannot write {}: '.{ending}' is none of .png, .jpg, .jpeg, .webp",
                path.display()
            )));
        }
        whole_file::check_target(&path).map_err(|error| cannot_write(&path, &error))?;
        Ok(target)
    }

    /// What to ask a daemon for.
    pub(super) fn asked_for(&self) -> OutputFormat {
        match self.format().unwrap_or(PictureFormat::Png) {
            PictureFormat::Png => OutputFormat::Png,
            PictureFormat::Jpeg => OutputFormat::Jpeg,
            PictureFormat::WebP => OutputFormat::Webp,
        }
    }

    /// Writes all of them, and what plugins left beside them, and prints the paths of files. On stdout are the pictures alone.
    pub(super) fn write(&self, images: Vec<ImageOut>, artifacts: Vec<Artifact>) -> Result<(), Failure> {
        let count = images.len();
        let (mut said, mut paths) = (Ok(()), vec![]);
        for (index, image) in images.into_iter().enumerate() {
            let seed = image.seed.unwrap_or_default();
            let seeds = image.subseed.map_or_else(|| seed.to_string(), |subseed| format!("{seed}-{subseed}"));
            let (bytes, format) = encoded(image, self.format())?;
            let path = match self {
                Self::Stdout => {
                    write_out(&bytes)
                        .map_err(|error| Failure::new(format!("cannot write to stdout: {error}")))?;
                    continue;
                }
                Self::File(path) if count == 1 => path.clone(),
                Self::File(path) => numbered(path, index + 1),
                Self::BySeed => PathBuf::from(format!("latentd-{seeds}.{}", format.name())),
            };
            whole_file::write_to_target(&path, &bytes).map_err(|error| cannot_write(&path, &error))?;
            // The others are written though nobody may read their names.
            said = said.and(print(&format!("{}\n", path.display())));
            paths.push(path);
        }
        let mut written: Vec<PathBuf> = vec![];
        for artifact in artifacts {
            // On stdout there is no path.
            let of = artifact.image.and_then(|image| paths.get(image as usize)).or(paths.first());
            let Some(of) = of else { continue };
            let path = beside(of, &artifact, &written);
            let (bytes, _) = lossless(artifact.picture)?;
            whole_file::write_to_target(&path, &bytes).map_err(|error| cannot_write(&path, &error))?;
            said = said.and(print(&format!("{}\n", path.display())));
            written.push(path);
        }
        said
    }

    /// `None`: whatever they come in.
    fn format(&self) -> Option<PictureFormat> {
        match self {
            Self::Stdout => Some(PictureFormat::Png),
            Self::File(path) => format(path),
            Self::BySeed => None,
        }
    }
}

/// What a file's name says; PNG where it has no ending.
fn format(path: &Path) -> Option<PictureFormat> {
    let Some(ending) = path.extension() else {
        return Some(PictureFormat::Png);
    };
    ending.to_str().and_then(PictureFormat::from_extension)
}

/// The picture's bytes in the format that is wanted, or in the one that it came in.
fn encoded(image: ImageOut, wanted: Option<PictureFormat>) -> Result<(Vec<u8>, PictureFormat), Failure> {
    let infotext = image.infotext.unwrap_or_default();
    if let Some(raw) = image.raw {
        let picture = Picture::from_raw(raw.0, image.width, image.height, image.channels.unwrap_or(3));
        let format = wanted.unwrap_or(PictureFormat::Png);
        let bytes = picture.and_then(|picture| picture.encode(format, &infotext));
        return bytes.map(|bytes| (bytes, format)).map_err(Failure::new);
    }
    let bytes = match (image.png.or(image.jpeg).or(image.webp), image.path) {
        (Some(bytes), _) => bytes.0,
        (None, Some(path)) => {
            std::fs::read(&path).map_err(|error| Failure::new(format!("cannot read {path}: {error}")))?
        }
        (None, None) => return Err(Failure::new("the daemon sent a picture without bytes")),
    };
    let given = PictureFormat::of(&bytes).map_err(Failure::new)?;
    let format = wanted.unwrap_or(given);
    if format == given {
        return Ok((bytes, format));
    }
    let anew = || {
        let infotext = read_infotext(&bytes)?.unwrap_or(infotext);
        Picture::decode(&bytes, MOST_BYTES)?.encode(format, &infotext)
    };
    anew().map(|bytes| (bytes, format)).map_err(Failure::new)
}

/// An artifact's bytes, which come without loss: PNG.
fn lossless(image: ImageOut) -> Result<(Vec<u8>, PictureFormat), Failure> {
    let Some(raw) = image.raw else { return encoded(image, None) };
    let picture = Picture::from_raw(raw.0, image.width, image.height, image.channels.unwrap_or(3));
    let bytes = picture.and_then(|picture| picture.to_png());
    bytes.map(|bytes| (bytes, PictureFormat::Png)).map_err(Failure::new)
}

/// Where an artifact of a picture goes: `out.png` has `out-PLUGIN-NAME.png`, and a number where that is written already. What files'
/// names should not have is left out.
fn beside(picture: &Path, artifact: &Artifact, written: &[PathBuf]) -> PathBuf {
    let words = |text: &str| {
        let word = |c: char| if c.is_alphanumeric() { c } else { ' ' };
        let text: String = text.chars().map(word).collect();
        text.split_whitespace().collect::<Vec<_>>().join("-")
    };
    let mut stem = picture.file_stem().unwrap_or_default().to_owned();
    for text in [&artifact.plugin, &artifact.name] {
        stem.push("-");
        stem.push(words(text));
    }
    let path = |number: usize| {
        let mut name = stem.clone();
        name.push(if number > 1 { format!("-{number}.png") } else { ".png".to_owned() });
        picture.with_file_name(name)
    };
    // Of so many one more is free.
    (1..=written.len() + 1).map(path).find(|path| !written.contains(path)).unwrap_or_default()
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()))
}

/// `out.png` becomes `out-2.png`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}."));
    name.push(path.extension().unwrap_or("png".as_ref()));
    path.with_file_name(name)
}
