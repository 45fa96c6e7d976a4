//! What is in one file, told by the same checks that loading it makes, without its weights.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use latentd_client::protocol::LibraryKind;
use latentd_models::files::{self, FileInfo, FileKind};
use latentd_models::model::{Checkpoint, Family};
use latentd_models::{Error, Result};
use sha2::{Digest, Sha256};

use super::beside::Beside;
use super::details::cut;
use super::item::{Facts, Item, Source};
use super::pictures;
use super::places::{extension, may_carry};
use super::snapshot::Problem;
use super::stamp::Seen;
use crate::error::Class;

/// Where the bytes begin that tell A1111's old hash, and how many they are.
const OLD_HASH: (u64, usize) = (0x10_0000, 0x1_0000);

/// Under which keys trainers write what a model was trained for: kohya's, and the Stability AI model metadata standard's.
const BASE_MODEL: [&str; 2] = ["ss_base_model_version", "modelspec.architecture"];

/// Bytes of that.
const LONGEST_BASE_MODEL: usize = 100;

/// Under which key kohya's trainer writes the SHA-256 of the file without its header.
const ADDON_HASH: &str = "sshs_model_hash";

/// Under which key kohya's trainer writes what the file was to be called, and how much of it is kept.
const ALIAS: &str = "ss_output_name";
const LONGEST_ALIAS: usize = 256;

/// What a look found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nearly all are sound")]
pub(super) enum Verdict {
    /// It holds this kind. `None`: sound, but nothing that is told by content.
    Sound(Option<LibraryKind>, Facts),
    /// It cannot be used.
    Broken(Class, String),
}

/// What a file is to the library.
pub(super) type Found = std::result::Result<Item, Box<Problem>>;

/// A file with a weights' name.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub path: PathBuf,
    pub seen: Seen,
    pub beside: Beside,
    /// Whether it is a folder that is one model.
    pub is_folder: bool,
    /// The kind its folder stands for, if it is one of A1111's.
    pub folder: Option<LibraryKind>,
}

/// Looks into a file that is open, or a model's folder, which errors call `path`, in a folder for a kind. Gives whether it
/// will be found so again: what failed while it was read may not fail the next time.
pub(super) fn judge(file: &File, path: &Path, folder: Option<LibraryKind>) -> (Verdict, bool) {
    if extension(path) == "onnx" {
        let facts = Facts { format: Some("onnx".to_owned()), ..Facts::default() };
        return (Verdict::Sound(None, facts), true);
    }
    let found = if may_carry(path, folder) { pictures::look(file, path) } else { look(file, path) };
    match found {
        Ok((kind, facts)) => (Verdict::Sound(kind, facts), true),
        Err(_) if folder.is_some_and(holds_programs) && is_pickle(file) => {
            let facts = Facts { format: Some("pickle".to_owned()), ..Facts::default() };
            (Verdict::Sound(None, facts), true)
        }
        Err(error) => {
            // What this machine failed at says nothing of the file.
            let is_short = matches!(error, Error::OutOfMemory { .. });
            let lasts = !is_short && !matches!(error, Error::Unread { .. });
            let class = match error {
                Error::Unsupported(_) => Class::Unsupported,
                Error::OutOfMemory { .. } => Class::Memory,
                _ => Class::Model,
            };
            (Verdict::Broken(class, without_path(&error.to_string(), path)), lasts)
        }
    }
}

fn look(file: &File, path: &Path) -> Result<(Option<LibraryKind>, Facts)> {
    let is_folder = file.metadata().is_ok_and(|metadata| metadata.is_dir());
    let tensors = if is_folder { files::open(path)? } else { files::open_file(file, path)? };
    let found = FileInfo::of(&tensors);
    let said =
        |key: &str| tensors.metadata().get(key).map(|text| text.trim()).filter(|text| !text.is_empty());
    let mut facts = Facts {
        format: Some(tensors.format().to_lowercase()),
        layout: found.layout.map(|layout| layout.name().to_owned()),
        base_model: BASE_MODEL
            .into_iter()
            .find_map(said)
            .map(|text| cut(text, LONGEST_BASE_MODEL).to_owned()),
        addon_hash: said(ADDON_HASH).filter(|text| is_sha256(text)).map(str::to_lowercase),
        architecture: found.architecture,
        dtype: found.dtype,
        parameters: found.parameters,
        also: found.beside.into_iter().filter_map(library_kind).collect(),
        ..Facts::default()
    };
    if found.kind == FileKind::Lora {
        facts.alias = said(ALIAS).filter(|text| text.len() <= LONGEST_ALIAS).map(str::to_owned);
    }
    if found.kind == FileKind::Checkpoint {
        facts.addon_hash = None;
        facts.old_hash = old_hash(file).ok().flatten();
        // Of another architecture it is what it is: there is nothing to hold it against.
        if facts.architecture.as_deref().is_none_or(|name| Family::of_architecture(name).is_some()) {
            let checkpoint = Checkpoint::of_file(tensors)?;
            facts.prediction = Some(checkpoint.prediction);
            facts.lacks_vae = !checkpoint.has_vae();
        }
    }
    Ok((library_kind(found.kind), facts))
}

fn library_kind(kind: FileKind) -> Option<LibraryKind> {
    match kind {
        FileKind::Checkpoint => Some(LibraryKind::Checkpoint),
        FileKind::Vae => Some(LibraryKind::Vae),
        FileKind::Lora => Some(LibraryKind::Lora),
        FileKind::Embedding => Some(LibraryKind::Embedding),
        FileKind::Hypernetwork => Some(LibraryKind::Hypernetwork),
        FileKind::ControlNet => Some(LibraryKind::Controlnet),
        FileKind::Upscaler => Some(LibraryKind::Upscaler),
        FileKind::Restorer => Some(LibraryKind::Restorer),
        FileKind::FaceModel => Some(LibraryKind::FaceModel),
        FileKind::Taesd => Some(LibraryKind::Taesd),
        FileKind::ClipVision => Some(LibraryKind::ClipVision),
        FileKind::Safety => Some(LibraryKind::Safety),
        FileKind::Unknown => None,
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Whether the files of a kind are often whole programs that were pickled, which nothing here runs: its folder alone tells
/// what they are.
fn holds_programs(kind: LibraryKind) -> bool {
    use LibraryKind as K;
    matches!(kind, K::Detector | K::Annotator | K::Tagger | K::FaceModel | K::ClipVision | K::Safety)
}

/// Whether a file begins as torch writes it: a pickle, or a zip of them.
fn is_pickle(file: &File) -> bool {
    let mut head = [0; 4];
    file.read_exact_at(&mut head, 0).is_ok() && (head == *b"PK\x03\x04" || matches!(head, [0x80, 0..=5, ..]))
}

/// The first 8 hex digits of the SHA-256 of 64 KiB at 1 MiB, where the file has any of them.
fn old_hash(file: &File) -> std::io::Result<Option<String>> {
    let (start, length) = OLD_HASH;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, start + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    let digest = Sha256::digest(bytes.get(..filled).unwrap_or_default());
    let hex = digest.iter().take(4).fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Ok((filled > 0).then_some(hex))
}

/// The problem's list names the file already.
fn without_path(text: &str, path: &Path) -> String {
    text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(text).to_owned()
}

/// The entry of a file of which this was found; nothing for a picture that carries none.
pub(super) fn sort_in(candidate: &Candidate, verdict: Verdict) -> Option<Found> {
    let is_picture = may_carry(&candidate.path, candidate.folder);
    if is_picture && matches!(verdict, Verdict::Sound(None, _)) {
        return None;
    }
    Some(entry(candidate, verdict, is_picture))
}

fn entry(candidate: &Candidate, verdict: Verdict, is_picture: bool) -> Found {
    let problem = |class, reason| {
        let (path, seen) = (candidate.path.clone(), Some(candidate.seen));
        Box::new(Problem { path, reason, class, seen, young: false, loose: false })
    };
    let broken = |reason: &str| problem(Class::Model, reason.to_owned());
    let (kind, facts) = match verdict {
        Verdict::Sound(kind, facts) => (kind, facts),
        Verdict::Broken(class, reason) => return Err(problem(class, reason)),
    };
    let kind = match (kind, candidate.folder) {
        // These kinds have marks of their own; a file in their folder without them is not one.
        (None, Some(LibraryKind::Checkpoint | LibraryKind::Vae | LibraryKind::Lora) | None) => {
            return Err(broken("its tensors are of no model that is known"));
        }
        (Some(kind), _) | (None, Some(kind)) => kind,
    };
    // A folder's name has no extension.
    let name = if candidate.is_folder { candidate.path.file_name() } else { candidate.path.file_stem() };
    let Some(name) = name.and_then(|name| name.to_str()) else {
        return Err(broken("its name is not UTF-8; rename it"));
    };
    // A picture's embedding keeps the name that it was trained under, however the picture is called.
    let name = facts.alias.as_deref().filter(|_| is_picture).unwrap_or(name);
    let source = Source::File { path: candidate.path.clone(), seen: candidate.seen };
    Ok(Item { kind, name: name.to_owned(), source, facts, beside: candidate.beside })
}
