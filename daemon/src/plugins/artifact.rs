//! Pictures that plugins leave beside the results.

use latentd_models::image::Picture;

use crate::memory::Lease;

/// How many one drawing may leave.
pub(crate) const MOST_ARTIFACTS: usize = 256;
/// Bytes of their pixels together.
pub(crate) const ARTIFACT_BYTES: usize = 128 << 20;

/// A picture that a plugin leaves beside the results.
pub(crate) struct Artifact {
    /// Whose it is.
    pub plugin: String,
    /// What it is, in the plugin's words.
    pub name: String,
    /// Which of the drawing's pictures it belongs to; of all if `None`.
    pub image: Option<usize>,
    pub picture: Picture,
    /// Its memory, until it is packed.
    pub lease: Lease,
}
