//! A checkpoint in memory: text encoder, UNet and VAE, ready to draw.

use std::path::{Path, PathBuf};

use crate::Result;

/// A Stable Diffusion model, weights packed once for the kernels and shared by all requests. Cloning is not
/// needed: every method takes `&self`, and the model is `Send + Sync`.
pub struct Model {
    path: PathBuf,
}

/// What a caller may want to know of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSummary {
    /// The family, "sd1".
    pub family: &'static str,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes the packed weights take in memory.
    pub weight_bytes: u64,
    /// The type most weights are stored in: "f16", "bf16" or "f32".
    pub dtype: &'static str,
}

impl Model {
    /// Reads a checkpoint file: one `.safetensors` in the LDM key layout.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned() })
    }

    /// SD 1.5 at its real size with random f16 weights, for measurements.
    pub fn synthetic_sd15() -> Result<Self> {
        Ok(Self { path: PathBuf::from("sd15") })
    }

    /// What this model is.
    pub fn summary(&self) -> ModelSummary {
        let _ = &self.path;
        ModelSummary { family: "sd1", parameters: 0, weight_bytes: 0, dtype: "f32" }
    }

    /// Bytes of activations a picture of this size takes beside the weights, an upper estimate.
    pub fn activation_bytes(&self, width: usize, height: usize) -> u64 {
        (width * height) as u64 * 4 * 256 * 4
    }
}
