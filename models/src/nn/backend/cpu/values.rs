//! Activations of the CPU's kernels.

use half::bf16;
use latentd_kernels::{Buffer, Plain};
use rayon::prelude::*;

use super::memory::Memory;
use crate::error::{Result, bail};
use crate::nn::backend::{Activations, Precision};

/// The numbers.
pub(super) enum Values {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
}

impl Values {
    /// Room for results of a precision.
    pub(super) fn new(memory: &impl Memory, precision: Precision, length: usize) -> Result<Self> {
        Ok(match precision {
            Precision::F32 => Self::F32(memory.buffer(length)?),
            Precision::Bf16 => Self::Bf16(memory.buffer(length)?),
        })
    }

    /// As activations of these sizes.
    pub(super) fn with_dims(self, dims: impl Into<Vec<usize>>) -> Activations {
        let precision = match self {
            Self::F32(_) => Precision::F32,
            Self::Bf16(_) => Precision::Bf16,
        };
        Activations::new(self, precision, dims)
    }
}

/// The numbers, which must be f32.
pub(super) fn f32(x: &Activations) -> Result<&[f32]> {
    match x.storage()? {
        Values::F32(values) => Ok(values),
        Values::Bf16(_) => bail!("activations {:?} are bf16, f32 is needed", x.dims()),
    }
}

/// The numbers, which must be bf16.
pub(super) fn bf16(x: &Activations) -> Result<&[bf16]> {
    match x.storage()? {
        Values::Bf16(values) => Ok(values),
        Values::F32(_) => bail!("activations {:?} are f32, bf16 is needed", x.dims()),
    }
}

/// Values handled by one task.
pub(super) const CHUNK: usize = 1 << 15;

/// A function of each number.
pub(super) fn map<A: Copy + Sync, B: Send>(from: &[A], to: &mut [B], f: impl Fn(A) -> B + Sync) {
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f(*from);
        }
    });
}

/// Rows of `a` and `b`, of these widths, side by side.
pub(super) fn interleave<T: Plain>(a: &[T], b: &[T], widths: (usize, usize), joined: &mut [T]) {
    let rows = (CHUNK / (widths.0 + widths.1).max(1)).max(1);
    let parts = a.par_chunks((rows * widths.0).max(1)).zip(b.par_chunks((rows * widths.1).max(1)));
    joined.par_chunks_mut((rows * (widths.0 + widths.1)).max(1)).zip(parts).for_each(|(to, (a, b))| {
        let rows = a.chunks_exact(widths.0.max(1)).zip(b.chunks_exact(widths.1.max(1)));
        for (to, (a, b)) in to.chunks_exact_mut((widths.0 + widths.1).max(1)).zip(rows) {
            let (left, right) = to.split_at_mut(widths.0);
            left.copy_from_slice(a);
            right.copy_from_slice(b);
        }
    });
}

/// Row `i` of `to`, of `width` values, is row `source(i)` of `from`.
pub(super) fn gather<T: Plain>(
    from: &[T],
    width: usize,
    to: &mut [T],
    source: impl Fn(usize) -> usize + Sync,
) {
    to.par_chunks_mut(width.max(1)).with_min_len(256).enumerate().for_each(|(index, row)| {
        row.copy_from_slice(&from[source(index) * width..][..width]);
    });
}
