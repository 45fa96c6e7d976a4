//! What is known of a checkpoint without its weights: settled when a request is resolved.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use latentd_models::adapters::Targets;
use latentd_models::model::{ComponentKind, Estimate, ModelFacts, ModelShape};
use latentd_models::nn::Precision;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::library::{FilesIdentity, ModelFiles, Pinned};

/// Checkpoints that are remembered.
const REMEMBERED: usize = 64;

/// Tensors of their files, all together: each takes some 500 bytes of what is known, with its names in add-ons, so SD 1.5
/// some 600 kilobytes, and this many some 64 megabytes.
const REMEMBERED_TENSORS: usize = 1 << 17;

/// A checkpoint in one precision.
pub(crate) struct Known {
    pub identity: FilesIdentity,
    pub precision: Precision,
    pub facts: ModelFacts,
    /// What it is made of.
    pub shape: Arc<ModelShape>,
    /// Width and height of the pictures it was made to draw.
    pub native_size: (usize, usize),
    /// The type most of its weights are stored in.
    pub dtype: String,
    /// What its networks and pictures take.
    pub estimate: Estimate,
    /// Stand for the files of the networks until more is known of what is in them, in the order of
    /// [`ComponentKind::ALL`].
    sources: [[u8; 32]; 3],
    /// How many its file has: what decides how much room this takes.
    tensors: usize,
    /// What its layers are called in add-ons, once one is wanted.
    targets: OnceLock<Targets>,
}

impl Known {
    /// Reads the header. Names and shapes of all tensors are checked.
    fn read(files: &ModelFiles, precision: Precision) -> Result<Self> {
        let checkpoint = files.open()?;
        let tensors = |kind| checkpoint.file_of(kind).map_or(0, |file| file.names().count());
        let facts = ModelFacts {
            family: checkpoint.family,
            prediction: checkpoint.prediction,
            unet_input: checkpoint.unet_input(),
            zero_terminal_snr: checkpoint.zero_terminal_snr,
            precision,
            text_layers: checkpoint.clip().layers,
        };
        Ok(Self {
            identity: files.identity(),
            precision,
            facts,
            shape: Arc::new(ModelShape { facts, unet: checkpoint.unet().clone() }),
            native_size: checkpoint.native_size,
            dtype: checkpoint.dtype.clone(),
            estimate: Estimate::new(&checkpoint, precision)?,
            sources: ComponentKind::ALL.map(|kind| source(files.of(kind))),
            tensors: tensors(ComponentKind::UNet)
                + if files.vae.is_some() { tensors(ComponentKind::Vae) } else { 0 },
            targets: OnceLock::new(),
        })
    }

    /// What its layers are called in the files that change them.
    pub(crate) fn targets(&self) -> &Targets {
        self.targets.get_or_init(|| {
            let tensors = [ComponentKind::TextEncoder, ComponentKind::UNet]
                .into_iter()
                .flat_map(|kind| self.estimate.tensors(kind))
                .map(|(name, shape)| (name.to_owned(), shape));
            Targets::new(tensors)
        })
    }

    /// Stands for the file of a network until more is known of what is in it.
    pub(super) fn source(&self, kind: ComponentKind) -> [u8; 32] {
        let place = ComponentKind::ALL.iter().position(|each| *each == kind);
        place.and_then(|place| self.sources.get(place)).copied().unwrap_or_default()
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
    pub(super) fn get(&self, files: &ModelFiles, precision: Precision) -> Result<Arc<Known>> {
        let identity = files.identity();
        let is = |known: &Arc<Known>| known.identity == identity && known.precision == precision;
        if let Some(found) =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|known| is(known))
        {
            return Ok(Arc::clone(found));
        }
        // Outside of the lock: a slow disk holds up nobody else.
        let read = Arc::new(Known::read(files, precision)?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_back(Arc::clone(&read));
        let tensors: Vec<_> = known.iter().map(|known| known.tensors).collect();
        known.drain(..forgotten(&tensors));
        Ok(read)
    }
}

/// How many of these, the oldest first, are too many. The last stays.
fn forgotten(tensors: &[usize]) -> usize {
    let mut room = REMEMBERED_TENSORS;
    let fits = |tensors: &&usize| {
        let left = room.checked_sub(**tensors);
        room = left.unwrap_or_default();
        left.is_some()
    };
    let kept = tensors.iter().rev().take(REMEMBERED).take_while(fits).count();
    tensors.len() - kept.max(1).min(tensors.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_by_number_and_by_size() {
        let half = REMEMBERED_TENSORS / 2;
        for (tensors, expected) in [
            (vec![], 0),
            (vec![1200; REMEMBERED], 0),
            (vec![1200; REMEMBERED + 3], 3),
            (vec![half, half], 0),
            (vec![half, 1, half], 1),
            (vec![half, half + 1], 1),
            (vec![1, 1, REMEMBERED_TENSORS], 2),
            (vec![1, REMEMBERED_TENSORS + 1], 1),
        ] {
            assert_eq!(forgotten(&tensors), expected, "{} of {tensors:?}", tensors.len());
        }
    }
}
