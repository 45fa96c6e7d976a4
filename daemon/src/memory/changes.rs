//! What a job changes in a checkpoint's networks: patches of their weights.

use std::sync::Arc;

use latentd_models::model::ComponentKind;
use latentd_models::nn::Patch;
use sha2::{Digest, Sha256};

use super::known::Known;
use crate::error::Result;
use crate::library::Pinned;

/// Patches by network, in the order in which they are applied.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    pub text_encoder: Vec<Arc<dyn Patch>>,
    pub unet: Vec<Arc<dyn Patch>>,
    /// The files that they are read from.
    pub files: Vec<Arc<Pinned>>,
}

impl Changes {
    /// Those of a network.
    pub(super) fn of(&self, kind: ComponentKind) -> &[Arc<dyn Patch>] {
        match kind {
            ComponentKind::TextEncoder => &self.text_encoder,
            ComponentKind::UNet => &self.unet,
            ComponentKind::Vae => &[],
        }
    }

    /// Tells a network with these changes from all others; `None` if it has none.
    pub(super) fn digest(&self, kind: ComponentKind) -> Option<[u8; 32]> {
        let patches = self.of(kind);
        let mut all = Sha256::new();
        for patch in patches {
            all.update(patch.digest());
        }
        (!patches.is_empty()).then(|| all.finalize().into())
    }

    /// Bytes that the changed networks take beside the others, in the order of [`ComponentKind::ALL`].
    pub(crate) fn bytes(&self, known: &Known) -> Result<[u64; 3]> {
        let mut bytes = [0; 3];
        for (bytes, kind) in bytes.iter_mut().zip(ComponentKind::ALL) {
            *bytes = known.estimate.patched_bytes(kind, self.of(kind))?;
        }
        Ok(bytes)
    }

    /// An error if a file was written to since it was looked at.
    pub(crate) fn check(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| file.check())
    }
}
