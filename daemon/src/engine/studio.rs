//! What jobs are drawn with: models, the folders they come from, threads that compute, and the settings.

use std::path::PathBuf;
use std::sync::{Arc, Once};

use latentd_client::protocol::{LibraryKind, ModelParams, ResidentModel};
use latentd_models::nn::Precision;
use tracing::warn;

use super::contain::contain;
use super::plan::PlanLimits;
use crate::error::{Class, Error, Result};
use crate::library::{Item, Library};
use crate::residency::Residency;

/// What jobs are drawn with.
pub(crate) struct Studio {
    pub library: Arc<Library>,
    pub residency: Arc<Residency>,
    pub plan_limits: PlanLimits,
    /// The checkpoint used when a request names none; the library's first if empty.
    pub default_checkpoint: String,
    /// What requests that leave it open are computed in.
    pub precision: Precision,
    /// Where `output.format = "file"` writes when a request names no folder.
    pub outputs_dir: PathBuf,
    pub pool: rayon::ThreadPool,
    /// The log says once that only the built-in checkpoint is there.
    pub told_built_in: Once,
}

impl Studio {
    /// Threads that compute.
    pub(crate) fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Brings a checkpoint into memory, now, on the caller's time.
    pub(crate) fn load(&self, params: &ModelParams) -> Result<ResidentModel> {
        let item = self.checkpoint(Some(&params.checkpoint))?;
        let precision = self.precision;
        contain(|| self.residency.acquire(&self.library, &item, precision, &self.pool))?;
        let gone = || Error::new(Class::Memory, format!("'{}' was unloaded again for another", item.name));
        self.residency.view(&item, precision).ok_or_else(gone)
    }

    /// The checkpoint that a request means.
    pub(crate) fn checkpoint(&self, name: Option<&str>) -> Result<Item> {
        match name {
            Some(name) => self.library.find(LibraryKind::Checkpoint, name),
            None => self.library.default_checkpoint(&self.default_checkpoint),
        }
    }

    /// What to tell who gets `item` without having chosen it, if there is nothing but what is built in.
    pub(super) fn built_in_notice(&self, name: Option<&str>, item: &Item) -> Option<String> {
        if name.is_some() || !self.default_checkpoint.is_empty() || !item.is_built_in() {
            return None;
        }
        let notice = self.library.only_built_in();
        self.told_built_in.call_once(|| warn!("{notice}"));
        Some(notice)
    }
}
