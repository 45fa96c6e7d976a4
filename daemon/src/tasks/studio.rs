//! What tasks are resolved against and drawn with: models, the folders they come from, what computes, the settings.

use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

use latentd_client::protocol::ResidentModel;
use latentd_models::nn::Precision;
use tracing::warn;

use super::decoding::Decoding;
use super::device::Device;
use crate::blobs::{BlobLimits, Blobs};
use crate::contain::contain;
use crate::error::Result;
use crate::folders::Folders;
use crate::library::{Item, Library, ModelFiles, Patient, Waiter};
use crate::live::Live;
use crate::plugins::Plugins;
use crate::styles::Styles;

/// What tasks are resolved against and drawn with.
pub(crate) struct Studio {
    pub library: Arc<Library>,
    pub device: Arc<Device>,
    pub settings: Live<Drawing>,
    /// What goes on in the folders that requests name.
    pub folders: Folders,
    /// Pictures that were given before.
    pub blobs: Blobs,
    /// Pictures in requests that are decoded now.
    pub decoding: Decoding,
    pub styles: Styles,
    pub plugins: Plugins,
    /// Where `output.format = "file"` writes when a request names no folder.
    pub outputs_dir: PathBuf,
    /// The log says once that only the built-in checkpoint is there.
    pub told_built_in: Once,
}

/// Settings of what is drawn.
pub(crate) struct Drawing {
    /// The checkpoint used when a request names none; the library's first if empty.
    pub default_checkpoint: String,
    /// The VAE of requests that leave it open.
    pub vae: String,
    /// Seconds that a checkpoint stays in memory after its last job, of requests that leave it open; for ever if `None`.
    pub keep_alive_s: Option<f64>,
    /// What requests that leave it open are computed in.
    pub precision: Precision,
    /// Folders with A1111's files of styles.
    pub styles_dirs: Vec<PathBuf>,
    /// Bytes that the pixels of one request's pictures may take.
    pub result_bytes: u64,
    /// Bytes that a picture in a request may take, as a file and as pixels.
    pub picture_bytes: u64,
    /// What given pictures may take that are kept.
    pub blobs: BlobLimits,
    /// Bytes that a run of an ONNX graph may take; half of all if 0.
    pub onnx_bytes: u64,
    /// Time that it may take.
    pub onnx_time: Duration,
}

impl Studio {
    /// Threads that compute.
    pub(crate) fn threads(&self) -> usize {
        self.device.threads
    }

    /// Brings a checkpoint into memory, now, on the caller's time.
    pub(crate) fn load(&self, name: &str, vae: Option<&str>) -> Result<ResidentModel> {
        let files = self.files(Some(name), vae, &Patient)?;
        let precision = self.settings.get().precision;
        contain(|| self.device.memory.load(&files, precision))
    }

    /// The checkpoint and the VAE that a request means, held open from now on. `waiter` waits if they are named by a hash
    /// that must be computed.
    pub(crate) fn files(
        &self,
        name: Option<&str>,
        vae: Option<&str>,
        waiter: &dyn Waiter,
    ) -> Result<ModelFiles> {
        let settings = self.settings.get();
        let checkpoint = self.library.pin(name, &settings.default_checkpoint, waiter)?;
        checkpoint.item().check_draws()?;
        let vae = self.library.pin_vae(vae.unwrap_or(&settings.vae), checkpoint.item(), waiter)?;
        Ok(ModelFiles { checkpoint, vae })
    }

    /// What to tell who gets `item` without having chosen it, if there is nothing but what is built in.
    pub(super) fn built_in_notice(&self, name: Option<&str>, item: &Item) -> Option<String> {
        if name.is_some() || !self.settings.get().default_checkpoint.is_empty() || !item.is_built_in() {
            return None;
        }
        let notice = self.library.only_built_in();
        self.told_built_in.call_once(|| warn!("{notice}"));
        Some(notice)
    }
}
