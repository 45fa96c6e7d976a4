//! Weights for the tile product: bf16, in panels of 32 columns, two `k` side by side.

use std::sync::Arc;

use half::{bf16, f16};
use rayon::prelude::*;

use super::tiles::{BLOCK, PANEL_STEP, STEP, TILE};
use crate::pack::{PackError, WeightDtype, Weights};
use crate::{Arena, Buffer, OutOfMemory, elements};

/// Most channels of one segment of a convolution: with nine taps, a panel's part is 180 KiB.
const CONVOLUTION_SEGMENT: usize = 320;
/// Most inputs of one segment of a product.
const LINEAR_SEGMENT: usize = 1280;

/// A matrix `(n, k)` of weights rounded to bf16. `k` runs over segments of channels, then taps, then the channels
/// of the segment, which are padded to a multiple of 32: the order in which sums are taken, part of the result's
/// definition.
pub struct TiledMatrix {
    pub(crate) n: usize,
    pub(crate) inputs: usize,
    pub(crate) taps: usize,
    /// Channels of a segment; the last may have fewer.
    pub(crate) segment: usize,
    pub(crate) gated: bool,
    /// `[n / 32][k / 32][column / 16 % 2][k / 2 % 16][column % 16][k % 2]`
    pub(crate) values: Buffer<bf16>,
}

impl TiledMatrix {
    /// A linear layer's weights `(n, k)`, row-major: n outputs, k inputs.
    pub fn linear(weights: Weights<'_>, n: usize, k: usize) -> Result<Self, PackError> {
        Self::pack(weights, n, k, 1, LINEAR_SEGMENT, false)
    }

    /// A linear layer whose outputs are values, then as many gates: for [`Activation::Geglu`](crate::Activation).
    /// `n` counts both and is a multiple of 32.
    pub fn gated(weights: Weights<'_>, n: usize, k: usize) -> Result<Self, PackError> {
        assert!(n.is_multiple_of(BLOCK), "gated: {n} outputs");
        Self::pack(weights, n, k, 1, LINEAR_SEGMENT, true)
    }

    /// A convolution's weights `(outputs, inputs, kernel height, kernel width)`; `taps` is kernel height × width.
    pub fn convolution(
        weights: Weights<'_>,
        outputs: usize,
        inputs: usize,
        taps: usize,
    ) -> Result<Self, PackError> {
        Self::pack(weights, outputs, inputs, taps, CONVOLUTION_SEGMENT, false)
    }

    fn pack(
        weights: Weights<'_>,
        n: usize,
        inputs: usize,
        taps: usize,
        longest: usize,
        gated: bool,
    ) -> Result<Self, PackError> {
        let (found, wanted) = (weights.len(), n.saturating_mul(inputs).saturating_mul(taps));
        if found != wanted || taps == 0 {
            return Err(PackError::Length { found, wanted });
        }
        if !weights.all_finite() {
            return Err(PackError::NotFinite);
        }
        let mut matrix = Self::empty(n, inputs, taps, longest, gated);
        let panel = matrix.steps() * PANEL_STEP;
        matrix.values = Buffer::fixed(elements(&[matrix.panels(), panel]));
        if panel == 0 {
            return Ok(matrix);
        }
        let mut values = std::mem::replace(&mut matrix.values, Buffer::fixed(0));
        values.par_chunks_mut(panel).enumerate().for_each(|(index, out)| {
            let mut row = vec![bf16::ZERO; inputs * taps];
            for column in 0..BLOCK {
                let Some(source) = matrix.source_row(index, column) else { continue };
                read_row(weights, source * row.len(), &mut row);
                matrix.scatter(&row, column, out);
            }
        });
        matrix.values = values;
        Ok(matrix)
    }

    /// One without its values.
    fn empty(n: usize, inputs: usize, taps: usize, longest: usize, gated: bool) -> Self {
        let pieces = inputs.div_ceil(longest).max(1);
        let segment = inputs.div_ceil(pieces).next_multiple_of(STEP);
        Self { n, inputs, taps, segment, gated, values: Buffer::fixed(0) }
    }

    /// Bytes that a matrix takes once it is packed; `taps` is 1 for a linear layer's.
    pub fn bytes_of(n: usize, inputs: usize, taps: usize) -> usize {
        let longest = if taps == 1 { LINEAR_SEGMENT } else { CONVOLUTION_SEGMENT };
        let matrix = Self::empty(n, inputs, taps, longest, false);
        matrix.panels() * matrix.steps() * PANEL_STEP * size_of::<bf16>()
    }

    /// The same in an arena's memory, which must be open.
    ///
    /// # Errors
    /// If the arena is full.
    pub fn moved_to(self, arena: &Arc<Arena>) -> Result<Self, OutOfMemory> {
        Ok(Self { values: self.values.moved_to(arena)?, ..self })
    }

    /// Which of the given rows stands in this column of a panel.
    fn source_row(&self, panel: usize, column: usize) -> Option<usize> {
        let row = if self.gated {
            // 16 values, then their gates.
            panel * TILE + column % TILE + column / TILE * (self.n / 2)
        } else {
            panel * BLOCK + column
        };
        (row < self.n).then_some(row)
    }

    /// Puts one row `(inputs, taps)` into its column of a panel.
    fn scatter(&self, row: &[bf16], column: usize, panel: &mut [bf16]) {
        let mut step = 0;
        for first in (0..self.inputs).step_by(self.segment) {
            let channels = self.segment.min(self.inputs - first);
            for tap in 0..self.taps {
                for channel in 0..channels {
                    let within = (step + channel / STEP) * PANEL_STEP + column / TILE * PANEL_STEP / 2;
                    let pair = channel % STEP / 2 * BLOCK + column % TILE * 2 + channel % 2;
                    panel[within + pair] = row[(first + channel) * self.taps + tap];
                }
                step += channels.div_ceil(STEP);
            }
        }
    }

    /// Outputs and inputs of one tap: `(n, inputs)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.inputs)
    }

    /// Bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        self.values.len() * size_of::<bf16>()
    }

    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(BLOCK)
    }

    /// Steps of `k` in all.
    pub(crate) fn steps(&self) -> usize {
        let whole = self.inputs / self.segment.max(1) * (self.segment / STEP);
        let rest = (self.inputs % self.segment.max(1)).div_ceil(STEP);
        (whole + rest) * self.taps
    }
}

/// A row of weights, rounded to bf16.
fn read_row(weights: Weights<'_>, first: usize, row: &mut [bf16]) {
    let size = weights.dtype.size();
    let bytes = &weights.bytes[first * size..(first + row.len()) * size];
    match weights.dtype {
        WeightDtype::F32 => {
            for (out, b) in row.iter_mut().zip(bytes.chunks_exact(4)) {
                *out = bf16::from_f32(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            }
        }
        WeightDtype::F16 => {
            for (out, b) in row.iter_mut().zip(bytes.chunks_exact(2)) {
                *out = bf16::from_f32(f16::from_le_bytes([b[0], b[1]]).to_f32());
            }
        }
        WeightDtype::Bf16 => {
            for (out, b) in row.iter_mut().zip(bytes.chunks_exact(2)) {
                *out = bf16::from_le_bytes([b[0], b[1]]);
            }
        }
    }
}
