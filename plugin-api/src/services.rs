//! What a call may ask the host for beside tensors: progress, previews, pictures beside the results, memory, a folder,
//! settings, a cache.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

use crate::abi::{
    LATENTD_ANY, LATENTD_FAILED, LATENTD_NOT_FOUND, LATENTD_UNSUPPORTED, latentd_bytes, latentd_handle,
    latentd_text,
};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::handed_over::HandedOver;
use crate::host::{bytes, lend, text};
use crate::image::Image;
use crate::tensor::Tensor;

/// What an older host does not have.
fn older() -> Error {
    Error::new(LATENTD_UNSUPPORTED, "the host is older than this function of its services")
}

fn key_of(key: &[u8]) -> latentd_bytes {
    latentd_bytes { data: key.as_ptr().cast(), length: key.len() as u64 }
}

impl<'a> Call<'a> {
    /// How much of what this call does is done, 0 to 1, and in a few words what that is. What is told never goes back.
    pub fn progress(&self, done: f64, what: &str) -> Result<()> {
        let progress = self.host.jobs.progress.ok_or_else(older)?;
        // SAFETY: the call is under way, and the text is lent.
        Error::of_service(unsafe { progress(self.pointer, done.clamp(0.0, 1.0), lend(what)) })
    }

    /// Shows an image on the way there, if the request asks for previews.
    pub fn preview(&self, image: impl Into<HandedOver<'a>>) -> Result<()> {
        let preview = self.host.jobs.preview.ok_or_else(older)?;
        let handle = image.into().into_handle(self)?;
        // SAFETY: the call is under way.
        Error::of_service(unsafe { preview(self.pointer, handle) })
    }

    /// Leaves an image beside the results: of one of the job's pictures, or of all.
    pub fn artifact(&self, name: &str, of: Option<usize>, image: impl Into<HandedOver<'a>>) -> Result<()> {
        let artifact = self.host.jobs.artifact.ok_or_else(older)?;
        let handle = image.into().into_handle(self)?;
        let of = of.map_or(LATENTD_ANY, |of| u32::try_from(of).unwrap_or(LATENTD_ANY - 1));
        // SAFETY: the call is under way, and the text is lent.
        Error::of_service(unsafe { artifact(self.pointer, lend(name), of, handle) })
    }

    /// Counts memory that the plugin takes by itself until its function returns: of the host, and of the device.
    pub fn reserve(&self, host_bytes: u64, device_bytes: u64) -> Result<()> {
        let reserve = self.host.jobs.reserve.ok_or_else(older)?;
        // SAFETY: the call is under way.
        Error::of_service(unsafe { reserve(self.pointer, host_bytes, device_bytes) })
    }

    /// A folder of the plugin's own.
    pub fn folder(&self) -> Result<PathBuf> {
        let folder = self.host.jobs.folder.ok_or_else(older)?;
        let mut path = latentd_text { data: std::ptr::null(), length: 0 };
        // SAFETY: the call is under way; the text is ours.
        Error::of_service(unsafe { folder(self.pointer, &raw mut path) })?;
        // SAFETY: lent until the next time.
        let path = unsafe { text(path) };
        if path.is_empty() {
            Err(Error::new(LATENTD_FAILED, "the host names no folder"))
        } else {
            Ok(path.into())
        }
    }

    /// The plugin's settings, as the configuration file has them now, with their defaults.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        let settings = self.host.jobs.settings.ok_or_else(older)?;
        let mut map = latentd_bytes { data: std::ptr::null(), length: 0 };
        // SAFETY: the call is under way; the map is ours.
        Error::of_service(unsafe { settings(self.pointer, &raw mut map) })?;
        // SAFETY: lent until the call ends.
        let map = unsafe { bytes(map.data, map.length) };
        rmp_serde::from_slice(map).map_err(|error| {
            Error::new(LATENTD_FAILED, format!("its settings are not what it takes for them: {error}"))
        })
    }

    /// SHA-256 of a tensor's sizes and numbers, or of an image's: for keys of [`Call::cache`].
    pub fn digest(&self, of: impl Into<HandedOver<'a>>) -> Result<[u8; 32]> {
        let digest = self.host.tensors.digest.ok_or_else(older)?;
        let handle = of.into().into_handle(self)?;
        let mut sha256 = [0; 32];
        // SAFETY: the call is under way; there are 32 bytes.
        Error::of_service(unsafe { digest(self.pointer, handle, sha256.as_mut_ptr()) })?;
        Ok(sha256)
    }

    fn cached(&self, key: &[u8]) -> Result<Option<latentd_handle>> {
        let get = self.host.cache.and_then(|cache| cache.get).ok_or_else(older)?;
        let mut handle = 0;
        // SAFETY: the call is under way, and the key is lent.
        match Error::of_service(unsafe { get(self.pointer, key_of(key), &raw mut handle) }) {
            Ok(()) => Ok(Some(handle)),
            Err(error) if error.status == LATENTD_NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The tensor that was kept under a key, if it is still there.
    pub fn cached_tensor(&self, key: &[u8]) -> Result<Option<Tensor<'a>>> {
        Ok(self.cached(key)?.map(|handle| Tensor { call: *self, handle }))
    }

    /// The image that was kept under a key, if it is still there.
    pub fn cached_image(&self, key: &[u8]) -> Result<Option<Image<'a>>> {
        self.cached(key)?.map(|handle| Image::of(*self, handle)).transpose()
    }

    /// Keeps a tensor or image under a key beyond the job, while there is room.
    pub fn cache(&self, key: &[u8], kept: impl Into<HandedOver<'a>>) -> Result<()> {
        let put = self.host.cache.and_then(|cache| cache.put).ok_or_else(older)?;
        let handle = kept.into().into_handle(self)?;
        // SAFETY: the call is under way, and the key is lent.
        Error::of_service(unsafe { put(self.pointer, key_of(key), handle) })
    }
}
