//! What a daemon tells those who subscribed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ImageOut, WireError};

/// One thing that happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The job's id.
    pub job: String,
    /// Counts this job's events from 1.
    pub seq: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum EventKind {
    /// It waits for its turn.
    Queued,
    /// Its turn came.
    Started,
    /// A stage or step is done.
    Progress {
        /// "hashing" while files are looked for by their hash, before its turn, and while files are hashed that are merged;
        /// then "loading", "conditioning", "denoising", "decoding" or "restoring" (of faces); of `image.upscale` "upscaling" or
        /// "restoring"; of `models.merge` "merging".
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stage: Option<String>,
        /// What is drawn, while pictures are; older daemons do not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pass: Option<Pass>,
        /// Sampler steps done, or tensors that are merged; while "hashing" before its turn, hundredths.
        step: u32,
        /// Sampler steps, or tensors, in all; while "hashing" before its turn, 100.
        steps: u32,
        /// Seconds to go, once that can be told.
        #[serde(default)]
        eta_s: Option<f64>,
        /// Where a plugin stands, if it is what this tells of; the rest is as it was told before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plugin: Option<PluginProgress>,
    },
    /// A picture of the way there.
    Preview {
        /// Sampler steps done when it was made.
        step: u32,
        /// What is drawn; older daemons do not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pass: Option<Pass>,
        /// Which plugin made it, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plugin: Option<String>,
        /// The picture.
        image: Box<ImageOut>,
    },
    /// Done; `jobs.wait` gives the result.
    Finished,
    /// It went wrong, or the daemon ended.
    Failed {
        /// Why.
        error: WireError,
    },
    /// Somebody cancelled it.
    Cancelled,
}

/// Where a plugin stands with what it does now. It never goes back within one thing that it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginProgress {
    /// Its name.
    pub name: String,
    /// Of this, 0 to 1.
    pub share: f64,
    /// What it does, in its words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
}

/// What is drawn of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// The picture, or of hires fix the first one.
    Base,
    /// The second one of hires fix.
    Hires,
}

impl EventKind {
    /// The names of all kinds on the wire.
    pub const NAMES: [&str; 7] =
        ["queued", "started", "progress", "preview", "finished", "failed", "cancelled"];

    /// Whether nothing more happens to the job.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Finished | Self::Failed { .. } | Self::Cancelled => true,
            Self::Queued | Self::Started | Self::Progress { .. } | Self::Preview { .. } => false,
        }
    }
}

/// Something changed in the models folders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LibraryEvent {
    /// Always "changed" today.
    #[serde(rename = "type")]
    pub kind: LibraryEventKind,
    /// New entries, as `KIND/NAME`.
    pub added: Vec<String>,
    /// Entries whose file, or what lies beside it, is another one now, or whose hash became known, as `KIND/NAME`.
    pub changed: Vec<String>,
    /// Entries that are gone, as `KIND/NAME`.
    pub removed: Vec<String>,
}

/// What happened to the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LibraryEventKind {
    /// Entries came, went or changed.
    Changed,
}
