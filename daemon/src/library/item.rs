//! One entry: what it is, where its bytes are, and whether they are still the same.

use std::path::{Path, PathBuf};

use latentd_client::protocol::LibraryKind;
use latentd_models::files::Prediction;
use latentd_models::model::Family;

use super::beside::Beside;
use super::stamp::Seen;
use crate::demo::{self, DemoModel};
use crate::error::{Class, Error, Result};

/// One usable file, or what is built in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub kind: LibraryKind,
    pub name: String,
    pub source: Source,
    pub facts: Facts,
    /// What lies beside its file and is about it.
    pub beside: Beside,
}

/// Where an entry's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In a file of the models folders.
    File { path: PathBuf, seen: Seen },
    /// In this program.
    BuiltIn(DemoModel),
}

/// What the file's header says, and the configuration beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub architecture: Option<String>,
    pub dtype: String,
    pub parameters: u64,
    /// What a checkpoint predicts, where it can be drawn with.
    pub prediction: Option<Prediction>,
    /// What it holds beside what it is.
    pub also: Vec<LibraryKind>,
    /// How the file's format is called, in lower case.
    pub format: Option<String>,
    /// How its tensors are named: "ldm" or "diffusers".
    pub layout: Option<String>,
    /// The model that it was trained for, in its trainer's words.
    pub base_model: Option<String>,
    /// The SHA-256 of the file without its header, as its trainer noted it.
    pub addon_hash: Option<String>,
    /// Whether a checkpoint has no VAE, so that it is drawn with another file's only.
    pub lacks_vae: bool,
    /// What its trainer called a LoRA: prompts may name it so.
    pub alias: Option<String>,
    /// The hash of a checkpoint that A1111 wrote before it took SHA-256: 8 hex digits, told by 64 KiB of the file.
    pub old_hash: Option<String>,
}

impl Item {
    /// The demo model's entry, where this program carries it.
    pub(super) fn built_in() -> Option<Self> {
        DemoModel::find().map(|demo| Self {
            kind: LibraryKind::Checkpoint,
            name: demo::NAME.to_owned(),
            source: Source::BuiltIn(demo),
            facts: Facts {
                architecture: Some(DemoModel::ARCHITECTURE.to_owned()),
                dtype: DemoModel::DTYPE.to_owned(),
                parameters: demo.parameters,
                prediction: Some(Prediction::Epsilon),
                ..Facts::default()
            },
            beside: Beside::default(),
        })
    }

    /// Whether it is one to draw with from text where none is named: inpainting checkpoints and those that edit can be drawn
    /// with, but have other uses.
    pub(super) fn draws(&self) -> bool {
        let architecture = self.facts.architecture.as_deref();
        self.kind == LibraryKind::Checkpoint
            && architecture.is_some_and(|name| Family::from_name(name).is_some())
    }

    /// Why this version cannot draw with a checkpoint that is sound.
    pub(super) fn unsupported(&self) -> Option<String> {
        if self.kind != LibraryKind::Checkpoint {
            return None;
        }
        let architecture = self.facts.architecture.as_deref().unwrap_or("unknown");
        Family::of_architecture(architecture).is_none().then(|| {
            format!(
                "is of the architecture {architecture}; this version draws with {} checkpoints",
                Family::names()
            )
        })
    }

    /// Why it is not drawn with where none is named, though it is a checkpoint.
    pub(super) fn waits_to_be_named(&self) -> Option<String> {
        if self.kind != LibraryKind::Checkpoint || self.draws() {
            return None;
        }
        let architecture = self.facts.architecture.as_deref().unwrap_or("unknown");
        let own = || format!("is of the architecture {architecture}, which is drawn with where it is named");
        Some(self.unsupported().unwrap_or_else(own))
    }

    /// An error that says what it is instead, if pictures cannot be drawn with it.
    pub(crate) fn check_draws(&self) -> Result<()> {
        let Some(why) = self.unsupported() else {
            return Ok(());
        };
        Err(Error::new(Class::Unsupported, format!("checkpoint '{}' {why}", self.name)))
    }

    /// Whether it needs no file.
    pub(crate) fn is_built_in(&self) -> bool {
        self.path().is_none()
    }

    /// Its file, unless it is built in.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.source {
            Source::File { path, .. } => Some(path),
            Source::BuiltIn(_) => None,
        }
    }

    /// Its file's name with the ending; its name if it is built in.
    pub(crate) fn file_name(&self) -> String {
        let name = self.path().and_then(Path::file_name);
        name.map_or_else(|| self.name.clone(), |name| name.to_string_lossy().into_owned())
    }

    /// Bytes of the file, also of the one that is built in.
    pub(crate) fn size(&self) -> u64 {
        match &self.source {
            Source::File { seen, .. } => seen.file.size,
            Source::BuiltIn(demo) => demo.size,
        }
    }

    /// Whether both are of the same file, as it is now or as it was.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        self.path() == other.path()
    }

    /// Whether both are of the same bytes under two names: links to one file.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        match (&self.source, &other.source) {
            (Source::File { seen: a, .. }, Source::File { seen: b, .. }) => a.file.place() == b.file.place(),
            (a, b) => a == b,
        }
    }

    /// Whether its file is still the one that was looked at.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.source {
            Source::File { path, seen } => Seen::at(path) == Some(*seen),
            Source::BuiltIn(_) => true,
        }
    }
}
