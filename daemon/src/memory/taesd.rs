//! The TAESD decoder that was used last: a few megabytes that stay while there is room.

use std::sync::{Arc, Mutex, PoisonError};

use latentd_models::networks::taesd::Taesd;
use latentd_models::nn::{Device, Precision};

use super::budget::Lease;
use crate::error::Result;
use crate::library::{Identity, Pinned};

/// The one that is kept.
#[derive(Default)]
pub(super) struct KeptTaesd(Mutex<Option<Kept>>);

struct Kept {
    identity: Identity,
    precision: Precision,
    network: Arc<Taesd>,
    _lease: Lease,
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
        // Packed weights take no more than twice what they do in a file of f16.
        let lease = reserve(2 * file.item().size())?;
        let tensors = file.tensors()?;
        let network = Arc::new(Taesd::open(&tensors, device, precision)?);
        let identity = file.identity().clone();
        *kept = Some(Kept { identity, precision, network: Arc::clone(&network), _lease: lease });
        Ok(network)
    }

    /// Lets go of it. Whether there was one.
    pub(super) fn clear(&self) -> bool {
        // One that is being read is not idle.
        self.0.try_lock().is_ok_and(|mut kept| kept.take().is_some())
    }
}
