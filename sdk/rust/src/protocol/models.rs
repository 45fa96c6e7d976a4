//! `models.*`: what is in memory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `models.load`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadParams {
    /// A checkpoint, named as in `txt2img`.
    pub checkpoint: String,
    /// The VAE, as in `txt2img`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<String>,
}

/// `models.unload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnloadParams {
    /// A checkpoint, named as in `txt2img`: with all its VAEs and in all precisions.
    pub checkpoint: String,
}

/// `models.pin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinParams {
    /// A checkpoint that is in memory.
    pub checkpoint: String,
    /// Whether it stays there even when another needs the room.
    #[serde(default = "yes")]
    pub pinned: bool,
}

fn yes() -> bool {
    true
}

/// A model in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResidentModel {
    /// Its name in the library.
    pub name: String,
    /// Its file; absent if it is built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The VAE that it is drawn with, where that is in a file of its own; absent if it is the checkpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<String>,
    /// The model family.
    pub architecture: String,
    /// The type most weights are stored in.
    pub dtype: String,
    /// What it computes in: "f32" or "bf16". A model that is used in both is in memory twice.
    #[serde(default)]
    pub precision: String,
    /// Bytes its weights take.
    pub bytes: u64,
    /// Bytes of those that other models in memory have in common with it: equal networks, such as a VAE, are there once.
    #[serde(default)]
    pub shared_bytes: u64,
    /// Whether it stays when another needs the room.
    pub pinned: bool,
    /// When it was used last, seconds since 1970.
    pub last_used_at: f64,
}

/// What `models.loaded` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadedModels {
    /// The least recently used first: the order in which they would go.
    pub models: Vec<ResidentModel>,
}

/// What `models.unload` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnloadResult {
    /// False when it was not in memory.
    pub unloaded: bool,
}
