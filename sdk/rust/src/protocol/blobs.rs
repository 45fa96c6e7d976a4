//! `blobs.put`: data that is sent once and used in any number of requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Bytes;

/// `blobs.put`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlobPutParams {
    /// A PNG, JPEG or WebP file's bytes.
    pub data: Bytes,
}

/// What `blobs.put` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Blob {
    /// SHA-256 of the data, 64 hex digits: `{blob: …}` stands for the picture wherever one is given. It is kept for as long as
    /// the daemon's `blob_ttl_s` says from its last use on, unless newer ones need the room (`blobs_bytes`).
    pub blob: String,
}
