//! The TAESD decoder that was used last: a few megabytes that stay while there is room.

use std::sync::{Arc, Mutex, PoisonError};

use latentd_models::model::PictureSize;
use latentd_models::networks::taesd::Taesd;
use latentd_models::nn::{Device, Precision};

use super::budget::Lease;
use crate::error::Result;
use crate::library::{Identity, Pinned};

/// Bytes that TAESD takes in a job, where it is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaesdNeeds {
    /// Beside the UNet, for previews.
    pub beside_unet: u64,
    /// In the VAE's place, for pictures.
    pub decoding: Option<u64>,
}

/// A TAESD that a job wants.
#[derive(Clone)]
pub(crate) struct TaesdWish {
    pub file: Arc<Pinned>,
    /// For previews: where there is no room for it, they are made without.
    pub previews: bool,
    /// For pictures.
    pub decodes: bool,
}

impl TaesdWish {
    /// What it takes for pictures of this size.
    pub(crate) fn needs(&self, size: &PictureSize) -> TaesdNeeds {
        let bytes = weight_bytes(&self.file) + activation_bytes(size);
        TaesdNeeds {
            beside_unet: if self.previews { bytes } else { 0 },
            decoding: self.decodes.then_some(bytes),
        }
    }
}

/// Packed weights take no more than twice what they do in a file of f16.
fn weight_bytes(file: &Pinned) -> u64 {
    2 * file.item().size()
}

pub(super) fn activation_bytes(size: &PictureSize) -> u64 {
    Taesd::activation_bytes((size.height.div_ceil(8), size.width.div_ceil(8)))
}

/// The one that is kept.
#[derive(Default)]
pub(super) struct KeptTaesd(Mutex<Option<Kept>>);

struct Kept {
    identity: Identity,
    precision: Precision,
    network: Arc<Taesd>,
    lease: Lease,
}

impl KeptTaesd {
    /// That of a file; read now if another is kept. `reserve` gives the room for it.
    pub(super) fn get(
        &self,
        file: &Pinned,
        device: &Device,
        precision: Precision,
        reserve: impl FnOnce(u64) -> Result<Lease>,
    ) -> Result<Arc<Taesd>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*kept
            && kept.identity == *file.identity()
            && kept.precision == precision
        {
            return Ok(Arc::clone(&kept.network));
        }
        *kept = None;
        let lease = reserve(weight_bytes(file))?;
        let tensors = file.tensors()?;
        let network = Arc::new(Taesd::open(&tensors, device, precision)?);
        let identity = file.identity().clone();
        *kept = Some(Kept { identity, precision, network: Arc::clone(&network), lease });
        Ok(network)
    }

    /// Lets go of it if no job has it. Whether it did.
    pub(super) fn clear(&self) -> bool {
        self.idle(|kept| kept.take().is_some()).unwrap_or_default()
    }

    /// Bytes that are to be had by letting go of it.
    pub(super) fn idle_bytes(&self) -> u64 {
        self.idle(|kept| kept.as_ref().map_or(0, |kept| kept.lease.bytes())).unwrap_or_default()
    }

    /// Does something with it unless a job has it, or it is just being read.
    fn idle<T>(&self, work: impl FnOnce(&mut Option<Kept>) -> T) -> Option<T> {
        let mut kept = self.0.try_lock().ok()?;
        let is_idle = kept.as_ref().is_none_or(|kept| Arc::strong_count(&kept.network) == 1);
        is_idle.then(|| work(&mut kept))
    }
}
