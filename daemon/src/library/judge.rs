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

use super::item::{Facts, Item, Source};
use super::snapshot::Problem;
use super::stamp::Seen;
use crate::error::Class;

/// Where the bytes begin that tell A1111's old hash, and how many they are.
const OLD_HASH: (u64, usize) = (0x10_0000, 0x1_0000);

/// What a look found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The kind its folder stands for, if it is one of A1111's.
    pub folder: Option<LibraryKind>,
}

/// Looks into a file that is open, which errors call `path`. Gives whether it will be found so again: what failed while it
/// was read may not fail the next time.
pub(super) fn judge(file: &File, path: &Path) -> (Verdict, bool) {
    match look(file, path) {
        Ok((kind, facts)) => (Verdict::Sound(kind, facts), true),
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
    let tensors = files::open_file(file, path)?;
    let found = FileInfo::of(&tensors);
    let mut facts = Facts {
        architecture: found.architecture,
        dtype: found.dtype,
        parameters: found.parameters,
        also: found.beside.into_iter().filter_map(library_kind).collect(),
        ..Facts::default()
    };
    if found.kind == FileKind::Checkpoint {
        facts.old_hash = old_hash(file).ok().flatten();
        // Of another architecture it is what it is: there is nothing to hold it against.
        if facts.architecture.as_deref().is_none_or(|name| Family::from_name(name).is_some()) {
            facts.prediction = Some(Checkpoint::of_file(tensors)?.prediction);
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
        FileKind::ControlNet => Some(LibraryKind::Controlnet),
        FileKind::Unknown => None,
    }
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

/// The entry of a file of which this was found.
pub(super) fn sort_in(candidate: &Candidate, verdict: Verdict) -> Found {
    let problem = |class, reason| {
        let (path, seen) = (candidate.path.clone(), Some(candidate.seen));
        Box::new(Problem { path, reason, class, seen })
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
    let Some(name) = candidate.path.file_stem().and_then(|stem| stem.to_str()) else {
        return Err(broken("its name is not UTF-8; rename it"));
    };
    let source = Source::File { path: candidate.path.clone(), seen: candidate.seen };
    Ok(Item { kind, name: name.to_owned(), source, facts })
}
