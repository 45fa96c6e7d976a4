//! One entry: what it is, where its bytes are, and whether they are still the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use latentd_client::protocol::LibraryKind;
use latentd_models::files::config_beside;
use latentd_models::model::Family;

use crate::demo::{self, DemoModel};
use crate::error::{Class, Error, Result};

/// One usable file, or what is built in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub kind: LibraryKind,
    pub name: String,
    pub source: Source,
    pub facts: Facts,
}

/// Where an entry's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In a file of the models folders; `config` is that of the configuration beside it, if there is one.
    File { path: PathBuf, stamp: Stamp, config: Option<Stamp> },
    /// In this program.
    BuiltIn(DemoModel),
}

/// What tells a file from a later one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified_ns: i64,
}

/// What the file's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub architecture: Option<String>,
    pub dtype: String,
    pub parameters: u64,
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
            },
        })
    }

    /// Whether pictures can be drawn with it from text.
    pub(super) fn draws(&self) -> bool {
        self.kind == LibraryKind::Checkpoint
            && self.facts.architecture.as_deref().and_then(Family::from_name).is_some()
    }

    /// An error that says what it is instead, if pictures cannot be drawn with it from text.
    pub(crate) fn check_draws(&self) -> Result<()> {
        if self.draws() {
            return Ok(());
        }
        let Some(architecture) = &self.facts.architecture else {
            let text = format!(
                "checkpoint '{}' is of no architecture that is known: its tensors are not named as Stable Diffusion's are \
                 in the LDM layout",
                self.name
            );
            return Err(Error::new(Class::Model, text));
        };
        let text = format!(
            "checkpoint '{}' is of the architecture {architecture}; this version draws from text with {} checkpoints",
            self.name,
            Family::names()
        );
        Err(Error::new(Class::Unsupported, text))
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

    /// Bytes of the file, also of the one that is built in.
    pub(crate) fn size(&self) -> u64 {
        match &self.source {
            Source::File { stamp, .. } => stamp.size,
            Source::BuiltIn(demo) => demo.size,
        }
    }

    /// Whether both are of the same file, as it is now or as it was.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        self.path() == other.path()
    }

    /// Whether its file is still the one that was looked at.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.source {
            Source::File { path, stamp, config } => {
                Stamp::of_file(path) == Some(*stamp) && Stamp::of_config(self.kind, path) == *config
            }
            Source::BuiltIn(_) => true,
        }
    }
}

impl Stamp {
    fn of_file(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    /// Of the configuration that a checkpoint has beside it.
    pub(super) fn of_config(kind: LibraryKind, path: &Path) -> Option<Self> {
        if kind == LibraryKind::Checkpoint { Self::of_file(&config_beside(path)) } else { None }
    }

    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified_ns = modified.and_then(|time| i64::try_from(time.as_nanos()).ok()).unwrap_or_default();
        Self { size: metadata.len(), modified_ns }
    }
}
