//! Weights for the tile product: bf16, in panels of 32 columns, two `k` side by side.

use std::sync::Arc;

use half::bf16;
use rayon::prelude::*;

use super::tiles::{BLOCK, PANEL_STEP, STEP, TILE};
use crate::matmul::linear;
use crate::pack::{PackError, PackedMatrix, WIDENED_AT_ONCE, WeightDtype, Weights};
use crate::{Arena, Buffer, Epilogue, Isa, OutOfMemory, elements};

/// Most channels of one segment of a convolution: with nine taps, a panel's part is 180 KiB.
const CONVOLUTION_SEGMENT: usize = 320;
/// Most inputs of one segment of a product.
const LINEAR_SEGMENT: usize = 1280;

/// The rows of the source that stand in the columns of a panel; `None` for columns beyond the last.
type Sources = [Option<usize>; BLOCK];

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
        let mut matrix = Self::empty(n, inputs, taps, longest, gated);
        matrix.check(weights)?;
        let length = inputs * taps;
        matrix.fill(
            || (),
            |rows, (), sources| {
                let mut finite = true;
                for (row, source) in rows.chunks_exact_mut(length.max(1)).zip(sources) {
                    match source {
                        Some(source) => finite &= read_row(weights, source * length, row),
                        None => row.fill(bf16::ZERO),
                    }
                }
                finite
            },
        )?;
        Ok(matrix)
    }

    /// A matrix of this one's form and sizes, packed of other weights and the product of two narrow ones: W + `up (n, rank)` ·
    /// `down (rank, inputs · taps)`, added in f32 and then rounded.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn of_sum(
        &self,
        isa: Isa,
        weights: Weights<'_>,
        up: &[f32],
        down: &[f32],
        rank: usize,
    ) -> Result<Self, PackError> {
        let length = self.inputs * self.taps;
        assert_eq!(
            (up.len(), down.len()),
            (elements(&[self.n, rank]), elements(&[rank, length])),
            "a product of rank {rank}"
        );
        let mut turned = vec![0.0; down.len()];
        for (r, row) in down.chunks_exact(length.max(1)).enumerate() {
            for (to, value) in turned.iter_mut().skip(r).step_by(rank.max(1)).zip(row) {
                *to = *value;
            }
        }
        let down = PackedMatrix::linear(Weights::of(&turned), length, rank)?;
        let mut matrix = Self { values: Buffer::fixed(0), ..*self };
        matrix.check(weights)?;
        let size = weights.dtype.size();
        // Rows of a panel in f32, the same with the product, and its rows of the first of both matrices.
        let scratch = || (vec![0f32; BLOCK * length], vec![0f32; BLOCK * length], vec![0f32; BLOCK * rank]);
        matrix.fill(scratch, |rows, (wide, sums, narrow), sources| {
            for (place, source) in sources.into_iter().enumerate() {
                let wide = &mut wide[place * length..(place + 1) * length];
                let narrow = &mut narrow[place * rank..(place + 1) * rank];
                let Some(source) = source else {
                    wide.fill(0.0);
                    narrow.fill(0.0);
                    continue;
                };
                let bytes = &weights.bytes[source * length * size..(source + 1) * length * size];
                Weights { dtype: weights.dtype, bytes }.widen(wide);
                narrow.copy_from_slice(&up[source * rank..(source + 1) * rank]);
            }
            let epilogue = Epilogue { residual: Some(&*wide), ..Epilogue::default() };
            linear(isa, narrow, BLOCK, &down, &epilogue, sums);
            read_row(Weights::of(sums), 0, rows)
        })?;
        Ok(matrix)
    }

    /// An error if there are more or fewer weights than this has.
    fn check(&self, weights: Weights<'_>) -> Result<(), PackError> {
        let (found, wanted) = (weights.len(), self.n.saturating_mul(self.inputs).saturating_mul(self.taps));
        if found != wanted || self.taps == 0 {
            return Err(PackError::Length { found, wanted });
        }
        Ok(())
    }

    /// Fills all panels: `read` puts 32 rows into place, of these rows of the source, and says whether all are finite.
    fn fill<S>(
        &mut self,
        scratch: impl Fn() -> S + Sync + Send,
        read: impl Fn(&mut [bf16], &mut S, Sources) -> bool + Sync + Send,
    ) -> Result<(), PackError> {
        let panel = self.steps() * PANEL_STEP;
        let mut values = Buffer::fixed(elements(&[self.panels(), panel]));
        if panel > 0 {
            let length = self.inputs * self.taps;
            let begin = || (vec![bf16::ZERO; BLOCK * length], scratch());
            values.par_chunks_mut(panel).enumerate().try_for_each_init(
                begin,
                |(rows, scratch), (index, out)| {
                    let sources = std::array::from_fn(|column| self.source_row(index, column));
                    let finite = read(rows, scratch, sources);
                    self.scatter(rows, out);
                    if finite { Ok(()) } else { Err(PackError::NotFinite) }
                },
            )?;
        }
        self.values = values;
        Ok(())
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

    /// Puts 32 rows `(inputs, taps)` into the columns of a panel: a step at a time, which stays in the first cache while each
    /// row adds to it.
    fn scatter(&self, rows: &[bf16], panel: &mut [bf16]) {
        let length = self.inputs * self.taps;
        let mut steps = panel.chunks_exact_mut(PANEL_STEP);
        for first in (0..self.inputs).step_by(self.segment) {
            let end = self.inputs.min(first + self.segment);
            for tap in 0..self.taps {
                for channel in (first..end).step_by(STEP) {
                    let Some(step) = steps.next() else { return };
                    let channels = STEP.min(end - channel);
                    for (column, row) in rows.chunks_exact(length).enumerate() {
                        if self.taps == 1 {
                            let half = &mut step[column / TILE * PANEL_STEP / 2 + column % TILE * 2..];
                            let (pairs, last) = row[channel..channel + channels].as_chunks::<2>();
                            for (pair, to) in pairs.iter().zip(half.chunks_mut(BLOCK)) {
                                to[..2].copy_from_slice(pair);
                            }
                            if let [last] = last {
                                half[pairs.len() * BLOCK] = *last;
                            }
                            continue;
                        }
                        let values =
                            row[channel * self.taps + tap..].iter().step_by(self.taps).take(channels);
                        let half = &mut step[column / TILE * PANEL_STEP / 2 + column % TILE * 2..];
                        for (within, value) in values.enumerate() {
                            half[within / 2 * BLOCK + within % 2] = *value;
                        }
                    }
                }
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

/// A row of weights, rounded to bf16. Whether all of them are finite.
fn read_row(weights: Weights<'_>, first: usize, row: &mut [bf16]) -> bool {
    let size = weights.dtype.size();
    let bytes = &weights.bytes[first * size..(first + row.len()) * size];
    let mut finite = true;
    match weights.dtype {
        WeightDtype::F32 => {
            for (out, b) in row.iter_mut().zip(bytes.as_chunks().0) {
                finite &= round(out, u32::from_le_bytes(*b));
            }
        }
        WeightDtype::F16 => {
            let mut wide = [0.0; WIDENED_AT_ONCE];
            for (out, bytes) in row.chunks_mut(WIDENED_AT_ONCE).zip(bytes.chunks(2 * WIDENED_AT_ONCE)) {
                let wide = &mut wide[..out.len()];
                Weights { dtype: WeightDtype::F16, bytes }.widen(wide);
                for (out, value) in out.iter_mut().zip(wide) {
                    finite &= round(out, value.to_bits());
                }
            }
        }
        WeightDtype::Bf16 => {
            for (out, b) in row.iter_mut().zip(bytes.as_chunks().0) {
                *out = bf16::from_le_bytes(*b);
                finite &= out.to_bits() & 0x7f80 != 0x7f80;
            }
        }
    }
    finite
}

/// Rounds the bits of an f32 to the nearest bf16, of two the even one. Whether the f32 is finite: of others nothing is made.
fn round(out: &mut bf16, bits: u32) -> bool {
    *out = bf16::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16);
    bits & 0x7f80_0000 != 0x7f80_0000
}
