//! Weights for the tile product: bf16, in panels of 32 columns, two `k` side by side.

use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use rayon::prelude::*;

use super::columns::{round_all, turn};
use super::tiles::{BLOCK, PANEL_STEP, STEP, TILE};
use crate::matmul::linear;
use crate::pack::{PackError, PackedMatrix, WeightDtype, Weights};
use crate::{Arena, Buffer, Epilogue, Isa, OutOfMemory, elements};

/// Most channels of one segment of a convolution: with nine taps, a panel's part is 180 KiB.
const CONVOLUTION_SEGMENT: usize = 320;
/// Most inputs of one segment of a product.
const LINEAR_SEGMENT: usize = 1280;

/// Numbers of each row that are put into place at once: what 32 rows of them become stays in a second-level cache from step
/// to step, and most rows are read as wholes.
const PIECE: usize = 1280;

/// The rows of the source that stand in the columns of a panel; `None` for columns beyond the last.
type Sources = [Option<usize>; BLOCK];

/// Gives weights from an element on, as many as there is room for.
type Read<'a, E> = dyn Fn(usize, &mut [f32]) -> Result<(), E> + Sync + 'a;

/// Channels that stand in whole steps behind each other, those of each tap apart.
struct Piece {
    channels: Range<usize>,
    /// The step in which the first of them stands, and steps from tap to tap.
    step: usize,
    tap_steps: usize,
}

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
        matrix.fill::<_, PackError>(
            || (),
            |rows, (), sources, _, columns| {
                let mut finite = true;
                for (row, source) in rows.chunks_exact_mut(columns.len()).zip(sources) {
                    match source {
                        Some(source) => finite &= read_row(weights, source * length + columns.start, row),
                        None => row.fill(bf16::ZERO),
                    }
                }
                Ok(finite)
            },
        )?;
        Ok(matrix)
    }

    /// A matrix of this one's form and sizes, packed of other weights and the product of two narrow ones: W + `up (n, rank)` ·
    /// `down (rank, inputs · taps)`, added in f32 and then rounded. `read` gives weights from the element on that it is told, as
    /// many as there is room for.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn of_sum<E: From<PackError> + Send>(
        &self,
        isa: Isa,
        read: &Read<'_, E>,
        up: &[f32],
        down: &[f32],
        rank: usize,
    ) -> Result<Self, E> {
        let length = self.inputs * self.taps;
        assert_eq!(
            (up.len(), down.len()),
            (elements(&[self.n, rank]), elements(&[rank, length])),
            "a product of rank {rank}"
        );
        let mut matrix = Self { values: Buffer::fixed(0), ..*self };
        let downs: Vec<PackedMatrix> = self
            .pieces()
            .map(|piece| PackedMatrix::turned(down, rank, length, self.columns(&piece)))
            .collect::<Result<_, PackError>>()?;
        // Rows of a panel in f32, the same with the product, and its rows of the first of both matrices.
        let widest = BLOCK * self.piece_channels() * self.taps;
        let scratch = || (Buffer::new(widest), Buffer::new(widest), Buffer::new(BLOCK * rank));
        matrix.fill::<_, E>(scratch, |rows, (wide, sums, narrow), sources, piece, columns| {
            let (wide, sums) = (&mut wide[..rows.len()], &mut sums[..rows.len()]);
            let mut place = 0;
            for run in sources.chunk_by(|row, next| columns.len() == length && follows(*row, *next)) {
                let wide = &mut wide[place * columns.len()..][..run.len() * columns.len()];
                let narrow = &mut narrow[place * rank..][..run.len() * rank];
                if let Some(Some(source)) = run.first() {
                    read(source * length + columns.start, wide)?;
                    narrow.copy_from_slice(&up[source * rank..][..narrow.len()]);
                } else {
                    wide.fill(0.0);
                    narrow.fill(0.0);
                }
                place += run.len();
            }
            let epilogue = Epilogue { residual: Some(&*wide), ..Epilogue::default() };
            linear(isa, narrow, BLOCK, &downs[piece], &epilogue, sums);
            let mut finite = true;
            round_all(isa, sums, rows, &mut finite);
            Ok(finite)
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

    /// Fills all panels, piece by piece: `read` puts 32 rows into place, of these rows and columns of the source, and says
    /// whether all are finite. It is told the number of the piece too.
    fn fill<S, E: From<PackError> + Send>(
        &mut self,
        scratch: impl Fn() -> S + Sync + Send,
        read: impl Fn(&mut [bf16], &mut S, Sources, usize, Range<usize>) -> Result<bool, E> + Sync + Send,
    ) -> Result<(), E> {
        let panel = self.steps() * PANEL_STEP;
        let mut values = Buffer::fixed(elements(&[self.panels(), panel]));
        if panel > 0 {
            let isa = Isa::current();
            let begin = || (Buffer::new(BLOCK * self.piece_channels() * self.taps), scratch());
            values.par_chunks_mut(panel).enumerate().try_for_each_init(
                begin,
                |(rows, scratch), (index, out)| -> Result<(), E> {
                    let sources = std::array::from_fn(|column| self.source_row(index, column));
                    let mut finite = true;
                    for (number, piece) in self.pieces().enumerate() {
                        let columns = self.columns(&piece);
                        let rows = &mut rows[..BLOCK * columns.len()];
                        finite &= read(rows, scratch, sources, number, columns)?;
                        self.scatter(isa, &piece, rows, out);
                    }
                    if finite { Ok(()) } else { Err(PackError::NotFinite.into()) }
                },
            )?;
        }
        self.values = values;
        Ok(())
    }

    /// The pieces that a panel is filled from, in the order of its source.
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let (most, taps) = (self.piece_channels(), self.taps);
        self.segments().into_iter().flat_map(move |segment| {
            let first_step = segment.start / STEP * taps;
            let tap_steps = segment.len().div_ceil(STEP);
            segment.clone().step_by(most).map(move |start| Piece {
                channels: start..segment.end.min(start + most),
                step: first_step + (start - segment.start) / STEP,
                tap_steps,
            })
        })
    }

    /// Most channels of a piece: whole steps of all taps.
    fn piece_channels(&self) -> usize {
        (PIECE / self.taps.max(1)).next_multiple_of(STEP)
    }

    /// The columns of the source that a piece is.
    fn columns(&self, piece: &Piece) -> Range<usize> {
        piece.channels.start * self.taps..piece.channels.end * self.taps
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

    /// Puts 32 rows `(channels of the piece, taps)` into the columns of a panel: a step at a time, which stays in the first
    /// cache while each row adds to it.
    fn scatter(&self, isa: Isa, piece: &Piece, rows: &[bf16], panel: &mut [bf16]) {
        let length = piece.channels.len() * self.taps;
        if self.taps == 1 && length.is_multiple_of(STEP) {
            let steps = &mut panel[piece.step * PANEL_STEP..][..BLOCK * length];
            turn(isa, rows.as_chunks().0, length, steps.as_chunks_mut().0);
            return;
        }
        for tap in 0..self.taps {
            let steps =
                panel[(piece.step + tap * piece.tap_steps) * PANEL_STEP..].chunks_exact_mut(PANEL_STEP);
            for (step, channel) in steps.zip((0..piece.channels.len()).step_by(STEP)) {
                let channels = STEP.min(piece.channels.len() - channel);
                for (column, row) in rows.chunks_exact(length).enumerate() {
                    let half = &mut step[column / TILE * PANEL_STEP / 2 + column % TILE * 2..];
                    if self.taps == 1 {
                        let (pairs, last) = row[channel..channel + channels].as_chunks::<2>();
                        for (pair, to) in pairs.iter().zip(half.chunks_mut(BLOCK)) {
                            to[..2].copy_from_slice(pair);
                        }
                        if let [last] = last {
                            half[pairs.len() * BLOCK] = *last;
                        }
                        continue;
                    }
                    let values = row[channel * self.taps + tap..].iter().step_by(self.taps).take(channels);
                    for (within, value) in values.enumerate() {
                        half[within / 2 * BLOCK + within % 2] = *value;
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

/// Whether two rows of a panel lie one behind the other in the source.
fn follows(row: Option<usize>, next: Option<usize>) -> bool {
    row.zip(next).is_some_and(|(row, next)| row + 1 == next)
}

/// A row of weights, rounded to bf16. Whether all of them are finite.
fn read_row(weights: Weights<'_>, first: usize, row: &mut [bf16]) -> bool {
    /// Numbers that are widened at once.
    const TOGETHER: usize = 512;
    let size = weights.dtype.size();
    let bytes = &weights.bytes[first * size..(first + row.len()) * size];
    let mut finite = true;
    if weights.dtype == WeightDtype::Bf16 {
        for (out, b) in row.iter_mut().zip(bytes.as_chunks().0) {
            *out = bf16::from_le_bytes(*b);
            finite &= out.to_bits() & 0x7f80 != 0x7f80;
        }
        return finite;
    }
    let mut wide = [0.0; TOGETHER];
    for (out, bytes) in row.chunks_mut(TOGETHER).zip(bytes.chunks(size * TOGETHER)) {
        let wide = &mut wide[..out.len()];
        Weights { dtype: weights.dtype, bytes }.widen(wide);
        round_all(Isa::current(), wide, out, &mut finite);
    }
    finite
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        // Exact in bf16, and so are their sums.
        (0..count).map(|index| ((index * 37 + seed * 11) % 17) as f32 / 8.0 - 1.0).collect()
    }

    /// In one piece or several, in whole steps or not, the matrix is that of the sums packed anew.
    #[test]
    fn a_sum_is_packed_as_if_it_had_been_made_before() {
        let isa = Isa::current();
        for (n, inputs, taps, gated) in [
            (40, 7, 1, false),
            (64, 96, 1, true),
            (33, 2600, 1, false),
            (5, 4, 9, false),
            (34, 350, 9, false),
        ] {
            let length = inputs * taps;
            let (weights, up, down) = (numbers(n * length, 1), numbers(n, 2), numbers(length, 3));
            let pack = |weights: &[f32]| {
                let weights = Weights::of(weights);
                match (gated, taps) {
                    (true, _) => TiledMatrix::gated(weights, n, inputs),
                    (false, 1) => TiledMatrix::linear(weights, n, inputs),
                    _ => TiledMatrix::convolution(weights, n, inputs, taps),
                }
                .expect("finite")
            };
            let sums: Vec<f32> =
                (0..n * length).map(|at| weights[at] + up[at / length] * down[at % length]).collect();
            let read = |first: usize, out: &mut [f32]| {
                out.copy_from_slice(&weights[first..][..out.len()]);
                Ok::<(), PackError>(())
            };
            let (base, expected) = (pack(&weights), pack(&sums));
            let found = base.of_sum(isa, &read, &up, &down, 1).expect("finite");
            assert!(found.values[..] == expected.values[..], "{n} {inputs} {taps}");
            let lost = base.of_sum(isa, &|_, _| Err(PackError::NotFinite), &up, &down, 1);
            assert_eq!(lost.err(), Some(PackError::NotFinite));
        }
    }

    /// Against the packed order's definition, for a part of the columns too.
    #[test]
    fn numbers_stand_where_they_are_said_to() {
        let (n, k) = (37, 69);
        let values = numbers(n * k, 5);
        let packed = TiledMatrix::linear(Weights::of(&values), n, k).expect("finite");
        for (row, column) in [(0, 0), (0, 1), (1, 0), (15, 31), (16, 32), (36, 68), (31, 63)] {
            let at = row / BLOCK * packed.steps() + column / STEP;
            let at = at * PANEL_STEP + row / TILE % 2 * PANEL_STEP / 2 + column % STEP / 2 * BLOCK;
            let found = packed.values[at + row % TILE * 2 + column % 2];
            assert_eq!(found.to_f32(), values[row * k + column], "{row} {column}");
        }
    }
}
