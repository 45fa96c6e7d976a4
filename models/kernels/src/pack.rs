//! Weights laid out once for the microkernel: panels of [`PANEL`] output columns, `k` running inside a panel.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::bytes::bytes_of;
use crate::half_floats::widen_f16;
use crate::{Arena, Buffer, Isa, OutOfMemory, Plain};

/// Output columns of one panel.
pub(crate) const PANEL: usize = 32;

/// Values of a row that are packed before the next row is looked at.
const BLOCK: usize = 64;

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightDtype {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl WeightDtype {
    /// Bytes of one weight.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// Weights as a file holds them: little-endian, any alignment.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// The type of each element.
    pub dtype: WeightDtype,
    /// The elements.
    pub bytes: &'a [u8],
}

impl<'a> Weights<'a> {
    /// Weights that are numbers already.
    pub fn of(values: &'a [f32]) -> Self {
        Self { dtype: WeightDtype::F32, bytes: bytes_of(values) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All elements as f32, into as many places.
    ///
    /// # Panics
    /// If there are more or fewer places than elements.
    pub fn widen(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.len(), "weights and room for them");
        match self.dtype {
            WeightDtype::F32 => {
                for (to, b) in out.iter_mut().zip(self.bytes.chunks_exact(4)) {
                    *to = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            WeightDtype::F16 => widen_f16(Isa::current(), self.bytes.as_chunks().0, out),
            WeightDtype::Bf16 => {
                for (to, bits) in out.iter_mut().zip(self.halves()) {
                    *to = bf16::from_bits(bits).to_f32();
                }
            }
        }
    }

    /// All elements as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            WeightDtype::F32 => {
                self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            WeightDtype::F16 => self.halves().map(|bits| f16::from_bits(bits).to_f32()).collect(),
            WeightDtype::Bf16 => self.halves().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        }
    }

    /// Whether none is NaN or infinite.
    pub fn all_finite(&self) -> bool {
        match self.dtype {
            WeightDtype::F32 => self.bytes.chunks_exact(4).all(|b| b[3] & 0x7f != 0x7f || b[2] & 0x80 == 0),
            WeightDtype::F16 => self.halves().all(|bits| bits & 0x7c00 != 0x7c00),
            WeightDtype::Bf16 => self.halves().all(|bits| bits & 0x7f80 != 0x7f80),
        }
    }

    fn halves(&self) -> impl Iterator<Item = u16> + '_ {
        self.bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }
}

/// Why weights cannot be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackError {
    /// The number of elements is not rows × columns.
    Length {
        /// Elements given.
        found: usize,
        /// Elements needed.
        wanted: usize,
    },
    /// An element is NaN or infinite.
    NotFinite,
}

impl std::fmt::Display for PackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length { found, wanted } => write!(f, "has {found} elements, {wanted} are needed"),
            Self::NotFinite => f.write_str("holds NaN or infinite weights"),
        }
    }
}

impl std::error::Error for PackError {}

pub(crate) enum Storage {
    F32(Buffer<f32>),
    F16(Buffer<u16>),
    Bf16(Buffer<u16>),
}

/// A matrix `(n, k)` of weights in panels: element `(n, k)` stands at `[n / 32][k][n % 32]`, missing columns of
/// the last panel are zero. Kept in the type it came in.
pub struct PackedMatrix {
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Each panel has 16 columns of the first half of `n`, then their gates, the same of the second half.
    pub(crate) gated: bool,
    pub(crate) storage: Storage,
}

impl PackedMatrix {
    /// Packs a linear layer's weights `(n, k)`, row-major: n outputs, k inputs.
    pub fn linear(weights: Weights<'_>, n: usize, k: usize) -> Result<Self, PackError> {
        Self::pack(weights, n, k, 1, false)
    }

    /// As [`Self::linear`] for [`Activation::Geglu`](crate::Activation::Geglu): the second half of the `n` outputs are
    /// the gates of the first.
    ///
    /// # Panics
    /// If `n` is no multiple of 32.
    pub fn gated(weights: Weights<'_>, n: usize, k: usize) -> Result<Self, PackError> {
        assert!(n.is_multiple_of(PANEL), "gates: {n} outputs");
        Self::pack(weights, n, k, 1, true)
    }

    /// Packs a convolution's weights `(outputs, inputs, kernel height, kernel width)`; the packed `k` runs over
    /// kernel positions, then inputs. `taps` is kernel height × width.
    pub fn convolution(
        weights: Weights<'_>,
        outputs: usize,
        inputs: usize,
        taps: usize,
    ) -> Result<Self, PackError> {
        let Some(k) = inputs.checked_mul(taps) else {
            return Err(PackError::Length { found: weights.len(), wanted: usize::MAX });
        };
        Self::pack(weights, outputs, k, taps, false)
    }

    fn pack(weights: Weights<'_>, n: usize, k: usize, taps: usize, gated: bool) -> Result<Self, PackError> {
        let (found, wanted) = (weights.len(), n.saturating_mul(k));
        if found != wanted || taps == 0 {
            return Err(PackError::Length { found, wanted });
        }
        let bytes = weights.bytes;
        let panels = Panels { n, k, taps, gated };
        let storage = match weights.dtype {
            WeightDtype::F32 => Storage::F32(panels.fill(bytes, |b: [u8; 4]| {
                let value = f32::from_le_bytes(b);
                (value, value.is_finite())
            })?),
            WeightDtype::F16 => Storage::F16(panels.fill(bytes, |b: [u8; 2]| {
                let bits = u16::from_le_bytes(b);
                (bits, bits & 0x7c00 != 0x7c00)
            })?),
            WeightDtype::Bf16 => Storage::Bf16(panels.fill(bytes, |b: [u8; 2]| {
                let bits = u16::from_le_bytes(b);
                (bits, bits & 0x7f80 != 0x7f80)
            })?),
        };
        Ok(Self { n, k, gated, storage })
    }

    /// Packs columns of a matrix that lies the other way, `(k, n)`, row-major: k inputs, n outputs.
    ///
    /// # Panics
    /// If it has no such columns.
    pub fn turned(values: &[f32], k: usize, n: usize, columns: Range<usize>) -> Result<Self, PackError> {
        assert!(columns.start <= columns.end && columns.end <= n, "columns of {n}");
        let (found, wanted) = (values.len(), n.saturating_mul(k));
        if found != wanted {
            return Err(PackError::Length { found, wanted });
        }
        let n_packed = columns.len();
        let mut packed = Buffer::new(n_packed.div_ceil(PANEL) * PANEL * k);
        let mut finite = true;
        for (panel, out) in packed.chunks_exact_mut((PANEL * k).max(1)).enumerate() {
            let first = columns.start + panel * PANEL;
            let width = PANEL.min(columns.end - first);
            for (row, out) in out.chunks_exact_mut(PANEL).enumerate() {
                let from = &values[row * n + first..][..width];
                finite &= from.iter().fold(true, |finite, value| finite & value.is_finite());
                out[..width].copy_from_slice(from);
                out[width..].fill(0.0);
            }
        }
        if !finite {
            return Err(PackError::NotFinite);
        }
        Ok(Self { n: n_packed, k, gated: false, storage: Storage::F32(packed) })
    }

    /// Outputs and inputs: `(n, k)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// Bytes that `n` outputs of `k` inputs, stored as `dtype`, take once they are packed.
    pub fn bytes_of(dtype: WeightDtype, n: usize, k: usize) -> usize {
        n.next_multiple_of(PANEL).saturating_mul(k).saturating_mul(dtype.size())
    }

    /// The same in an arena's memory, which must be open.
    ///
    /// # Errors
    /// If the arena is full.
    pub fn moved_to(self, arena: &Arc<Arena>) -> Result<Self, OutOfMemory> {
        let storage = match self.storage {
            Storage::F32(values) => Storage::F32(values.moved_to(arena)?),
            Storage::F16(values) => Storage::F16(values.moved_to(arena)?),
            Storage::Bf16(values) => Storage::Bf16(values.moved_to(arena)?),
        };
        Ok(Self { storage, ..self })
    }

    /// Bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(values) => values.len() * 4,
            Storage::F16(values) | Storage::Bf16(values) => values.len() * 2,
        }
    }

    pub(crate) fn panel_count(&self) -> usize {
        self.n.div_ceil(PANEL)
    }
}

/// How a matrix lies in its panels.
pub(crate) struct Panels {
    pub n: usize,
    pub k: usize,
    pub taps: usize,
    pub gated: bool,
}

impl Panels {
    /// Filled from the bytes of the `(n, k / taps, taps)` source: `read` gives a number, and whether it is finite.
    fn fill<T: Plain, const SIZE: usize>(
        &self,
        bytes: &[u8],
        read: impl Fn([u8; SIZE]) -> (T, bool) + Sync,
    ) -> Result<Buffer<T>, PackError> {
        let Self { n, k, taps, .. } = *self;
        if n == 0 || k == 0 {
            return Ok(Buffer::fixed(0));
        }
        let inputs = k / taps;
        // A few inputs of all columns at once: what they become stays in the first cache while each row is passed.
        let block = (BLOCK / taps).max(1);
        let mut packed = Buffer::fixed(n.div_ceil(PANEL) * PANEL * k);
        packed.par_chunks_mut(PANEL * k).enumerate().try_for_each(|(panel, out)| {
            let mut finite = true;
            for first in (0..inputs).step_by(block) {
                let count = block.min(inputs - first);
                for column in 0..PANEL.min(n - panel * PANEL) {
                    let start = self.row(panel, column) * k + first * taps;
                    let (source, _) = bytes[start * SIZE..(start + count * taps) * SIZE].as_chunks();
                    for tap in 0..taps {
                        let to = out[(tap * inputs + first) * PANEL + column..].iter_mut().step_by(PANEL);
                        for (to, from) in to.zip(source[tap..].iter().step_by(taps)) {
                            let (value, is_finite) = read(*from);
                            finite &= is_finite;
                            *to = value;
                        }
                    }
                }
            }
            if finite { Ok(()) } else { Err(PackError::NotFinite) }
        })?;
        Ok(packed)
    }

    /// The source's row that is this column of a panel.
    pub(crate) fn row(&self, panel: usize, column: usize) -> usize {
        const HALF: usize = PANEL / 2;
        if self.gated {
            column / HALF * self.n / 2 + panel * HALF + column % HALF
        } else {
            panel * PANEL + column
        }
    }
}
