//! Checkpoints as a job draws with them, over whose UNets networks of plugins are built.

use std::sync::Arc;

use latentd_models::files::Tensors;
use latentd_models::model::{ComponentKind, ModelShape};
use latentd_models::networks::known::KnownNetwork;

use super::changes::Changes;
use crate::error::Result;
use crate::library::{Identity, ModelFiles, Pinned};

/// A checkpoint with what the job changes in it.
#[derive(Clone)]
pub(crate) struct Base {
    /// Tells whose turn it is: one for each that a job draws with.
    pub shape: Arc<ModelShape>,
    files: ModelFiles,
    changes: Changes,
}

/// Tells the UNet of a checkpoint with changes from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseKey {
    checkpoint: Identity,
    changes: Option<[u8; 32]>,
}

impl Base {
    pub(crate) fn new(files: &ModelFiles, shape: &Arc<ModelShape>, changes: &Changes) -> Self {
        Self { shape: Arc::clone(shape), files: files.clone(), changes: changes.clone() }
    }

    /// The whole weights of a file's network over those of its UNet, each made as it is asked for.
    ///
    /// # Errors
    /// The UNet is none that they can be added to.
    pub(crate) fn under(&self, file: &Pinned, network: &KnownNetwork) -> Result<Tensors> {
        let base = self.files.checkpoint.tensors()?;
        Ok(network.over(file.tensors()?, base, self.changes.of(ComponentKind::UNet))?)
    }

    pub(super) fn key(&self) -> BaseKey {
        BaseKey {
            checkpoint: self.files.checkpoint.identity().clone(),
            changes: self.changes.digest(ComponentKind::UNet),
        }
    }

    /// An error if a file was written to since it was looked at.
    pub(super) fn check(&self) -> Result<()> {
        self.files.checkpoint.check()?;
        self.changes.check()
    }
}
