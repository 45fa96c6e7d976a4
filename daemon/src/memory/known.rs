//! What is known of a checkpoint without its weights: settled when a request is resolved.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use latentd_models::model::{ComponentKind, Estimate, ModelFacts};
use latentd_models::nn::Precision;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::library::{Identity, Pinned};

/// Checkpoints that are remembered. Each takes some tens of kilobytes.
const REMEMBERED: usize = 64;

/// A checkpoint in one precision.
pub(crate) struct Known {
    pub identity: Identity,
    pub precision: Precision,
    pub facts: ModelFacts,
    /// Width and height of the pictures it was made to draw.
    pub native_size: (usize, usize),
    /// The type most of its weights are stored in.
    pub dtype: String,
    /// What its networks and pictures take.
    pub estimate: Estimate,
    /// Stands for the file until more is known of what is in it.
    pub(super) source: [u8; 32],
}

impl Known {
    /// Reads the header. Names and shapes of all tensors are checked.
    fn read(pinned: &Pinned, precision: Precision) -> Result<Self> {
        let checkpoint = pinned.checkpoint()?;
        Ok(Self {
            identity: pinned.identity().clone(),
            precision,
            facts: ModelFacts {
                family: checkpoint.family,
                prediction: checkpoint.prediction,
                precision,
                text_layers: checkpoint.clip().layers,
            },
            native_size: checkpoint.native_size,
            dtype: checkpoint.dtype.clone(),
            estimate: Estimate::new(&checkpoint, precision)?,
            source: source(pinned),
        })
    }

    /// Bytes of all its weights.
    pub(super) fn weight_bytes(&self) -> u64 {
        ComponentKind::ALL.into_iter().map(|kind| self.estimate.weight_bytes(kind)).sum()
    }
}

/// Stands for a file until more is known of what is in it.
pub(super) fn source(pinned: &Pinned) -> [u8; 32] {
    Sha256::digest(format!("{:?}", pinned.identity())).into()
}

/// The checkpoints that were looked at last.
#[derive(Default)]
pub(super) struct KnownCheckpoints(Mutex<VecDeque<Arc<Known>>>);

impl KnownCheckpoints {
    /// What is known of a checkpoint; read now if nothing is.
    pub(super) fn get(&self, pinned: &Pinned, precision: Precision) -> Result<Arc<Known>> {
        let is = |known: &Arc<Known>| known.identity == *pinned.identity() && known.precision == precision;
        if let Some(found) =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|known| is(known))
        {
            return Ok(Arc::clone(found));
        }
        // Outside of the lock: a slow disk holds up nobody else.
        let read = Arc::new(Known::read(pinned, precision)?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == REMEMBERED {
            known.pop_front();
        }
        known.push_back(Arc::clone(&read));
        Ok(read)
    }
}
