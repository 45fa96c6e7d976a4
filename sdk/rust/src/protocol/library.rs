//! `library.*`: the files in the models folders, and what is built in.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LibraryKind {
    Checkpoint,
    Vae,
    Lora,
    Embedding,
    Hypernetwork,
    Controlnet,
    Upscaler,
    Taesd,
    Detector,
    Face,
}

impl LibraryKind {
    /// All of them with their names.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Checkpoint, "checkpoint"),
        (Self::Vae, "vae"),
        (Self::Lora, "lora"),
        (Self::Embedding, "embedding"),
        (Self::Hypernetwork, "hypernetwork"),
        (Self::Controlnet, "controlnet"),
        (Self::Upscaler, "upscaler"),
        (Self::Taesd, "taesd"),
        (Self::Detector, "detector"),
        (Self::Face, "face"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(each, _)| *each == self).map_or("", |(_, name)| name)
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, each)| *each == name).map(|(each, _)| *each)
    }
}

impl fmt::Display for LibraryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With the width that is asked for: lists have columns.
        f.pad(self.name())
    }
}

/// `library.list`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LibraryListParams {
    /// Only this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<LibraryKind>,
}

/// `library.get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LibraryGetParams {
    /// Its kind.
    pub kind: LibraryKind,
    /// Its name, its path inside a models folder or the folder of its kind, the first 8 or more hex digits of its SHA-256
    /// as far as that is known, or a checkpoint's old hash of 8 digits; or a name or path with a hash behind it, `NAME
    /// [HASH]`. A name that several files have is an error that says what to write for each.
    pub name: String,
}

/// What `library.list` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LibraryList {
    /// What can be used, by kind and name, numbers in names by their size.
    pub entries: Vec<LibraryEntry>,
    /// Files in the folders that cannot be used, and why. With `kind` given, none.
    pub problems: Vec<LibraryProblem>,
    /// The checkpoint that draws what names none; absent if there is none, or none that the settings name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_checkpoint: Option<String>,
}

/// One usable file, or the demo model that latentd carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LibraryEntry {
    /// What it is for, told by its content.
    pub kind: LibraryKind,
    /// The file's name without extension.
    pub name: String,
    /// Where it is; absent if it is built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether latentd carries it itself. A file of the same name in a models folder takes its place.
    #[serde(default)]
    pub built_in: bool,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hex, once something needed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// What a checkpoint is, where it can be told: "sd1", "sd2", "sdxl", with what its UNet sees beside latents and text
    /// behind it, as in "sd1-inpainting".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// What a checkpoint predicts, where it can be drawn with: "epsilon" (the noise) or "v".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<String>,
    /// What the file holds beside that, such as a ControlNet within a checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<LibraryKind>,
    /// Why this version cannot draw with it, though it is sound; absent if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// The type most weights are stored in.
    pub dtype: String,
    /// Number of weights.
    pub parameters: u64,
}

/// A file or folder that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LibraryProblem {
    /// Where it is.
    pub path: String,
    /// Why, and what to do: broken, still being copied, of a format that is not read yet, a link that leads nowhere, …
    pub reason: String,
}

/// What `library.rescan` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RescanResult {
    /// Usable files.
    pub entries: u32,
    /// Files that cannot be used.
    pub problems: u32,
}
