//! The hypernetworks that were used last: they stay while there is room and the next job wants the same.

use std::sync::{Arc, Mutex, PoisonError};

use latentd_models::adapters::Hypernetwork;
use latentd_models::model::PictureSize;
use latentd_models::nn::{Device, KeyValueTransform, Precision};
use sha2::{Digest, Sha256};

use super::budget::Lease;
use super::known::Known;
use crate::error::Result;
use crate::library::{Identity, Pinned};

/// A hypernetwork that a job wants.
#[derive(Clone)]
pub(crate) struct HypernetworkWish {
    pub file: Arc<Pinned>,
    pub network: Arc<Hypernetwork>,
    pub strength: f32,
}

impl HypernetworkWish {
    /// Bytes of its weights, and of what it computes for pictures of this size and prompts of this length.
    pub(super) fn bytes(&self, known: &Known, size: &PictureSize) -> Result<u64> {
        // Two numbers of every layer at once, of the largest attention: the widest layer's, and the tokens' own.
        let latents = size.samples * size.width.div_ceil(8) * size.height.div_ceil(8);
        let text = size.tokens.iter().max().copied().unwrap_or_default();
        let numbers = (latents * known.estimate.unet_channels())
            .max(text * known.targets().context_width().unwrap_or_default());
        let activations = 2 * numbers * (self.network.widening() + 1) * size_of::<f32>();
        Ok(self.network.weight_bytes(known.precision)? + activations as u64)
    }
}

/// Those that are kept, in the order in which they are applied.
#[derive(Default)]
pub(super) struct KeptHypernetworks(Mutex<Vec<Kept>>);

struct Kept {
    identity: Identity,
    precision: Precision,
    strength: u32,
    transform: Arc<dyn KeyValueTransform>,
    lease: Lease,
}

impl KeptHypernetworks {
    /// Those that a job wants; what is not kept is read now, and what is not wanted goes. `reserve` gives the room.
    pub(super) fn get(
        &self,
        wanted: &[HypernetworkWish],
        device: &Device,
        precision: Precision,
        reserve: impl Fn(u64, &str) -> Result<Lease>,
    ) -> Result<Vec<Arc<dyn KeyValueTransform>>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |kept: &Kept, wish: &HypernetworkWish| {
            (&kept.identity, kept.precision, kept.strength)
                == (wish.file.identity(), precision, wish.strength.to_bits())
        };
        kept.retain(|kept| wanted.iter().any(|wish| is(kept, wish)));
        for wish in wanted {
            if kept.iter().any(|kept| is(kept, wish)) {
                continue;
            }
            let bytes = wish.network.weight_bytes(precision)?;
            let lease = reserve(bytes, &wish.file.item().name)?;
            let identity = wish.file.identity().clone();
            let digest = Sha256::digest(format!("{identity:?}")).into();
            let tensors = wish.file.tensors()?;
            let loaded = wish.network.load(&tensors, device, precision, wish.strength, digest);
            // Asked first: what was written to meanwhile may look like anything.
            wish.file.check()?;
            kept.push(Kept {
                identity,
                precision,
                strength: wish.strength.to_bits(),
                transform: loaded?,
                lease,
            });
        }
        let find = |wish: &HypernetworkWish| kept.iter().find(|kept| is(kept, wish));
        Ok(wanted.iter().filter_map(find).map(|kept| Arc::clone(&kept.transform)).collect())
    }

    /// Lets go of those that no job has. Whether there were any.
    pub(super) fn clear(&self) -> bool {
        let Ok(mut kept) = self.0.try_lock() else { return false };
        let before = kept.len();
        kept.retain(|kept| Arc::strong_count(&kept.transform) > 1);
        kept.len() < before
    }

    /// Bytes that are to be had by letting go of them.
    pub(super) fn idle_bytes(&self) -> u64 {
        let Ok(kept) = self.0.try_lock() else { return 0 };
        let idle = kept.iter().filter(|kept| Arc::strong_count(&kept.transform) == 1);
        idle.map(|kept| kept.lease.bytes()).sum()
    }
}
