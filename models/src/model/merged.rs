//! A merge that is settled, written tensor by tensor: never more than one of them, and what it is made of, is in memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use latentd_kernels::Weights;
use rayon::prelude::*;

use super::convert::Tensor;
use super::interpolation::Formula;
use super::rewrite::{self, PIECE};
use crate::adapters::AdapterPatch;
use crate::files::Tensors;
use crate::nn::Patch;
use crate::{Error, Result};

/// A file that will be written, whose sources fit each other. No tensor was read yet.
pub struct Merged {
    pub(super) a: Tensors,
    pub(super) b: Option<Tensors>,
    pub(super) c: Option<Tensors>,
    pub(super) vae: Option<Tensors>,
    /// In order; each sees what the former left.
    pub(super) patches: Vec<AdapterPatch>,
    pub(super) tensors: Vec<MergedTensor>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) notices: Vec<String>,
    pub(super) formula: Formula,
}

/// A tensor that will be written.
pub(super) struct MergedTensor {
    pub tensor: Tensor,
    /// Whether the VAE's file has it, and not A.
    pub of_vae: bool,
    /// How B's is mixed into it, if it is.
    pub mixture: Option<Mixture>,
    /// Whether an add-on changes it.
    pub patched: bool,
}

/// Which part of a tensor another is mixed into.
#[derive(Clone, Copy)]
pub(super) enum Mixture {
    Whole,
    /// The first `part` numbers of each `row`: the channels that every model sees.
    Channels {
        row: usize,
        part: usize,
    },
}

impl Merged {
    /// How many tensors will be written.
    pub fn tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().filter_map(|merged| merged.tensor.planned.bytes().ok()).sum()
    }

    /// About how many bytes of memory it takes to write the largest of them.
    pub fn memory_bytes(&self) -> u64 {
        // A sum in f32, what an add-on adds to it, and what comes of both.
        const OF_A_NUMBER: u64 = 3 * size_of::<f32>() as u64;
        let counts =
            self.tensors.iter().map(|merged| merged.tensor.planned.shape.iter().product::<usize>() as u64);
        counts.max().unwrap_or_default() * OF_A_NUMBER
    }

    /// What who asked should know: what was left out, and what stays as it was.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Writes the file, which errors call `path`. `wrote` hears of each tensor's bytes, and may end it with an error. Computes on the threads of the rayon pool that it is called in.
    ///
    /// # Errors
    /// If a number is none any more, or has no place in the type; if a source was cut off meanwhile; if there is no room.
    pub fn write_file(
        &self,
        out: &mut File,
        path: &Path,
        wrote: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let planned: Vec<_> = self.tensors.iter().map(|merged| &merged.tensor.planned).collect();
        let tensor = |place: usize| {
            self.tensors.get(place).ok_or_else(|| Error::Compute("a tensor that is not planned".to_owned()))
        };
        rewrite::write(
            out,
            path,
            &planned,
            &self.metadata,
            |place| self.elements(tensor(place)?),
            |place| {
                let merged = tensor(place)?;
                for file in
                    [Some(self.source(merged)), self.b.as_ref(), self.c.as_ref()].into_iter().flatten()
                {
                    file.let_go(&merged.tensor.asked);
                }
                wrote(merged.tensor.planned.bytes()?)
            },
        )?;
        for file in [Some(&self.a), self.b.as_ref(), self.c.as_ref(), self.vae.as_ref()].into_iter().flatten()
        {
            file.check_intact()?;
        }
        self.patches.iter().try_for_each(Patch::check_intact)
    }

    fn source(&self, merged: &MergedTensor) -> &Tensors {
        self.vae.as_ref().filter(|_| merged.of_vae).unwrap_or(&self.a)
    }

    /// A tensor's elements as they are to be written.
    fn elements(&self, merged: &MergedTensor) -> Result<Cow<'_, [u8]>> {
        let MergedTensor { tensor: Tensor { asked, planned }, mixture, patched, .. } = merged;
        let source = self.source(merged);
        if mixture.is_none() && !patched {
            return rewrite::elements(source, asked, planned);
        }
        let mut values = rewrite::widened(weights(source, asked)?.as_weights())?;
        if let Some(mixture) = mixture {
            self.mix(asked, *mixture, &mut values)?;
        }
        for patch in self.patches.iter().filter(|patch| patch.touches(&planned.name)) {
            patch.apply(&planned.name, &planned.shape, &mut values)?;
            if values.par_chunks(PIECE).any(|piece| piece.iter().any(|value| !value.is_finite())) {
                return Err(patch.not_finite(&planned.name));
            }
        }
        rewrite::narrowed(&values, planned.dtype)?
            .map(Cow::Owned)
            .map_err(|value| rewrite::too_large(source, asked, value, planned.dtype))
    }

    /// Mixes B's tensor into A's.
    fn mix(&self, asked: &str, mixture: Mixture, values: &mut [f32]) -> Result<()> {
        let Some(b) = self.b.as_ref().map(|b| weights(b, asked)).transpose()? else { return Ok(()) };
        let c = self.c.as_ref().map(|c| weights(c, asked)).transpose()?;
        let (b, c) = (b.as_weights(), c.as_ref().map(Held::as_weights));
        let is_finite = AtomicBool::new(true);
        let mix = |scratch: &mut [Vec<f32>; 2], values: &mut [f32], start: usize| {
            let count = values.len();
            let of_c = c.map(|c| part(c, start, count));
            if !self.formula.mix(values, scratch, part(b, start, count), of_c) {
                is_finite.store(false, Ordering::Relaxed);
            }
        };
        match mixture {
            Mixture::Whole => values.par_chunks_mut(PIECE).enumerate().for_each_init(
                Default::default,
                |scratch, (place, piece)| {
                    mix(scratch, piece, place * PIECE);
                },
            ),
            Mixture::Channels { row, part } => {
                let mut scratch = Default::default();
                for (place, values) in values.chunks_exact_mut(row).enumerate() {
                    mix(&mut scratch, values.split_at_mut(part).0, place * part);
                }
            }
        }
        if is_finite.into_inner() {
            return Ok(());
        }
        for file in [Some(&self.a), self.b.as_ref(), self.c.as_ref()].into_iter().flatten() {
            // What was cut off may look like anything.
            file.check_intact()?;
        }
        let reason = format!(
            "tensor {asked} becomes NaN or infinite with a multiplier of {}: one of the models has such numbers there, or \
             it is too large; use another",
            self.formula.multiplier
        );
        Err(Error::model(self.a.path(), reason))
    }
}

/// A tensor's weights, mapped or made.
struct Held<'a> {
    dtype: latentd_kernels::WeightDtype,
    bytes: Cow<'a, [u8]>,
}

impl Held<'_> {
    fn as_weights(&self) -> Weights<'_> {
        Weights { dtype: self.dtype, bytes: &self.bytes }
    }
}

fn weights<'a>(file: &'a Tensors, asked: &str) -> Result<Held<'a>> {
    let missing = || Error::model(file.path(), format!("missing tensor {asked}"));
    let (dtype, bytes) = file.weights(asked)?.ok_or_else(missing)?;
    Ok(Held { dtype, bytes })
}

/// So many weights from a place on.
fn part(weights: Weights<'_>, start: usize, count: usize) -> Weights<'_> {
    let size = weights.dtype.size();
    let bytes = weights.bytes.get(start * size..(start + count) * size).unwrap_or_default();
    Weights { dtype: weights.dtype, bytes }
}
