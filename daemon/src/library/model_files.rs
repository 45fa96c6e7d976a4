//! The files that a picture is drawn with, as they were when a request was resolved.

use std::sync::Arc;

use latentd_models::model::{Checkpoint, ComponentKind};

use super::pinned::{Identity, Pinned};
use crate::error::Result;

/// A checkpoint, and a VAE where another one than its own is wanted.
#[derive(Clone)]
pub(crate) struct ModelFiles {
    pub checkpoint: Arc<Pinned>,
    pub vae: Option<Arc<Pinned>>,
}

/// What tells the bytes of these files from those of others without reading them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilesIdentity {
    pub checkpoint: Identity,
    pub vae: Option<Identity>,
}

impl ModelFiles {
    /// Tells their bytes from those of any other.
    pub(crate) fn identity(&self) -> FilesIdentity {
        FilesIdentity {
            checkpoint: self.checkpoint.identity().clone(),
            vae: self.vae.as_ref().map(|vae| vae.identity().clone()),
        }
    }

    /// The file that a network comes from.
    pub(crate) fn of(&self, kind: ComponentKind) -> &Arc<Pinned> {
        match &self.vae {
            Some(vae) if kind == ComponentKind::Vae => vae,
            _ => &self.checkpoint,
        }
    }

    /// Their headers, read and checked, and their networks on demand.
    pub(crate) fn open(&self) -> Result<Arc<Checkpoint>> {
        let Some(vae) = &self.vae else {
            return self.checkpoint.checkpoint();
        };
        let vae = vae.tensors()?;
        let checkpoint = if self.checkpoint.item().is_built_in() {
            self.checkpoint.checkpoint()?.with_vae(vae)?
        } else {
            Checkpoint::of_files(self.checkpoint.tensors()?, vae)?
        };
        Ok(Arc::new(checkpoint))
    }

    /// An error if the bytes of any are no longer those that were pinned: somebody wrote to the file itself.
    pub(crate) fn check(&self) -> Result<()> {
        self.checkpoint.check()?;
        self.vae.as_ref().map_or(Ok(()), |vae| vae.check())
    }
}
