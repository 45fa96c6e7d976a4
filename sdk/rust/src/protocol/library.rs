//! `library.*`: the files in the models folders, and what is built in.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LibraryKind {
    /// A whole model.
    Checkpoint,
    /// A VAE alone.
    Vae,
    /// A LoRA, or another adapter of its family.
    Lora,
    /// A textual-inversion embedding.
    Embedding,
    /// A hypernetwork.
    Hypernetwork,
    /// A ControlNet, or what is used like one: T2I and IP adapters, control LoRAs.
    Controlnet,
    /// A network that enlarges pictures.
    Upscaler,
    /// A network that restores faces: GFPGAN, CodeFormer.
    Restorer,
    /// A small decoder for previews.
    Taesd,
    /// A network that finds things in pictures.
    Detector,
    /// A network that makes a ControlNet's picture.
    Annotator,
    /// The half of a CLIP that sees pictures.
    ClipVision,
    /// A network that describes pictures.
    Tagger,
    /// A face that can be put into pictures.
    Face,
    /// A network that knows faces.
    FaceModel,
    /// A network that finds what should not be seen.
    Safety,
}

impl LibraryKind {
    /// All of them with their names.
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::Checkpoint, "checkpoint"),
        (Self::Vae, "vae"),
        (Self::Lora, "lora"),
        (Self::Embedding, "embedding"),
        (Self::Hypernetwork, "hypernetwork"),
        (Self::Controlnet, "controlnet"),
        (Self::Upscaler, "upscaler"),
        (Self::Restorer, "restorer"),
        (Self::Taesd, "taesd"),
        (Self::Detector, "detector"),
        (Self::Annotator, "annotator"),
        (Self::ClipVision, "clip_vision"),
        (Self::Tagger, "tagger"),
        (Self::Face, "face"),
        (Self::FaceModel, "face_model"),
        (Self::Safety, "safety"),
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// SHA-256 in hex, once something needed it or it was computed in the background.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The first 10 digits of that: what A1111 calls a model's hash, and Civitai AutoV2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_v2: Option<String>,
    /// A checkpoint's hash from before A1111 took SHA-256: 8 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_hash: Option<String>,
    /// Of what is no checkpoint: SHA-256 of a safetensors file without its header in hex, which stays when its metadata is
    /// edited; as its trainer noted it (`sshs_model_hash`), else once it was computed. A1111 writes its first 12 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addon_hash: Option<String>,
    /// The file's format: "safetensors", "gguf", …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// How a checkpoint's or a VAE's tensors are named, where it can be told: "ldm" or "diffusers".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// The model that the file says it was trained for, in its trainer's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// A picture beside the file that shows what it does: `NAME.preview.png`, `NAME.png`, or as .jpg, .jpeg, .webp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
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
    /// Whether a checkpoint has no VAE: it is drawn with another file's (`vae`), or one that is named after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lacks_vae: bool,
    /// Why this version cannot draw with it, though it is sound; absent if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// The type most weights are stored in.
    pub dtype: String,
    /// Number of weights.
    pub parameters: u64,
    /// What is said of it in the file and beside it. Only `library.get` tells this: a list stays short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<LibraryDetails>>,
}

/// What is said of a file in itself and beside it: by its trainer, the site it came from, its owner. None of it is checked;
/// what is long is cut off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LibraryDetails {
    /// The file's own metadata (`__metadata__`); of what is longer than 4 KiB the beginning.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What its training pictures were described with, the most frequent first, at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<LibraryTag>,
    /// What to write into the prompt, as the owner, the site or the trainer says, in this order; where none of them does,
    /// the tags that stand with nearly every training picture, the most frequent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trigger_words: Vec<String>,
    /// What its trainer called it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_name: Option<String>,
    /// What the site calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The model it is for, as said beside the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// Its number as a version at Civitai.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub civitai_version: Option<u64>,
    /// The number of the model that this is a version of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub civitai_model: Option<u64>,
    /// The owner's description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The owner's notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// The weight that the owner prefers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_weight: Option<f64>,
    /// What lies beside the file and could not be used, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}

/// A word that training pictures were described with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LibraryTag {
    /// The word.
    pub tag: String,
    /// How often.
    pub count: u64,
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
