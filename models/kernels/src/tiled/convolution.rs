//! 2-d convolution: a task's pixels are copied once, with their zero border, and every tap reads that copy.
#![allow(unsafe_code)]

use std::ops::Range;

use half::bf16;

use super::finish::{Finish, NO_ROW};
use super::norm::{ChannelScales, scale};
use super::pack::TiledMatrix;
use super::product::{Place, Source, multiply};
use super::tiles::{STEP, TILE};
use crate::convolution::Wrap;
use crate::lanes::Element;
use crate::{Buffer, ConvShape, Epilogue, Isa, elements};

/// Output pixels from which a norm is applied while pixels are copied. Small pictures are copied by several tasks,
/// each for some of the outputs, and are better normalised once.
pub const FUSED_PIXELS: usize = 4096;
/// Most output columns of a part.
const PART_COLUMNS: usize = 128;
/// Most bytes of a task's copy.
const COPY_BYTES: usize = 768 << 10;

/// `x (batch, height, width, channels)` → `out (batch, rows, columns, outputs)`, see [`ConvShape::output`];
/// `weights` packed by [`TiledMatrix::convolution`].
///
/// # Panics
/// If lengths do not fit the shape and the weights, or there are no channels, kernel, stride or factor.
pub fn conv2d<O: Element>(
    isa: Isa,
    x: &[bf16],
    shape: ConvShape,
    weights: &TiledMatrix,
    epilogue: &Epilogue<O>,
    out: &mut [O],
) {
    convolve(isa, x, None, shape, weights, epilogue, out);
}

/// As [`conv2d`] of what `norm` makes of `x`, to the same bits as if that was stored in between.
///
/// # Panics
/// As [`conv2d`], or if the norm is one of other sizes.
pub fn conv2d_normed<O: Element>(
    isa: Isa,
    x: &[bf16],
    norm: &ChannelScales,
    shape: ConvShape,
    weights: &TiledMatrix,
    epilogue: &Epilogue<O>,
    out: &mut [O],
) {
    assert!(norm.fits(shape.batch, shape.channels), "convolution: norm of another shape");
    let (rows, columns) = shape.output();
    if shape.batch * rows * columns >= FUSED_PIXELS {
        convolve(isa, x, Some(norm), shape, weights, epilogue, out);
    } else {
        let mut normed = Buffer::new(x.len());
        scale(isa, x, norm, &mut normed);
        convolve(isa, &normed, None, shape, weights, epilogue, out);
    }
}

fn convolve<O: Element>(
    isa: Isa,
    x: &[bf16],
    norm: Option<&ChannelScales>,
    shape: ConvShape,
    weights: &TiledMatrix,
    epilogue: &Epilogue<O>,
    out: &mut [O],
) {
    let ConvShape { batch, height, width, channels, kernel, stride, upsample, .. } = shape;
    assert!(
        channels > 0 && kernel > 0 && stride > 0 && upsample > 0,
        "convolution: channels, kernel, stride and factor are at least 1"
    );
    assert_eq!(x.len(), elements(&[batch, height, width, channels]), "convolution: input");
    // Distances between rows of tiles are products of these.
    assert!(stride <= 1 << 16 && upsample <= 1 << 16, "convolution: stride {stride}, factor {upsample}");
    assert!(
        weights.inputs == channels && weights.taps == elements(&[kernel, kernel]),
        "convolution: weights for {channels} channels"
    );
    let (rows, columns) = shape.output();
    let pixels = elements(&[batch, rows, columns]);
    assert!(u32::try_from(pixels).is_ok_and(|pixels| pixels < u32::MAX), "convolution: {pixels} pixels");
    let finish = Finish::new(epilogue, pixels, weights.n, weights.gated, out);
    if pixels == 0 {
        return;
    }
    let parts = columns.div_ceil(PART_COLUMNS);
    let part_columns = if parts == 1 { columns } else { columns.div_ceil(parts).next_multiple_of(TILE) };
    let parts = columns.div_ceil(part_columns);
    let copied_columns = (part_columns - 1) * stride + kernel;
    // Either tiles begin anew with each line, or, where that would leave much of them empty, they run on through the
    // border between two lines.
    let by_line = part_columns.next_multiple_of(TILE) <= copied_columns || stride > 1;
    let source = Picture {
        values: x,
        norm,
        shape,
        rows,
        columns,
        parts,
        part_columns,
        copied_columns,
        by_line,
        segment: weights.segment,
    };
    multiply(isa, &source, weights, &finish);
}

struct Picture<'a> {
    values: &'a [bf16],
    norm: Option<&'a ChannelScales>,
    shape: ConvShape,
    /// Output rows and columns.
    rows: usize,
    columns: usize,
    /// Wide pictures are cut into parts side by side, so that a copy of few columns and many rows shares its border
    /// rows among many. Lines go down a part, then down the next.
    parts: usize,
    /// Output columns of a part; the last may have fewer.
    part_columns: usize,
    /// Input columns, with border, that an output row of a part needs.
    copied_columns: usize,
    by_line: bool,
    segment: usize,
}

/// Consecutive output rows of one part of one image in a task.
struct Slab {
    image: usize,
    first_column: usize,
    columns: usize,
    rows: Range<usize>,
}

impl Picture<'_> {
    fn slabs(&self, lines: Range<usize>) -> impl Iterator<Item = Slab> + use<'_> {
        let parts = lines.start / self.rows..(lines.end - 1) / self.rows + 1;
        parts.map(move |part| {
            let first = part * self.rows;
            let first_column = part % self.parts * self.part_columns;
            Slab {
                image: part / self.parts,
                first_column,
                columns: self.part_columns.min(self.columns - first_column),
                rows: lines.start.max(first) - first..lines.end.min(first + self.rows) - first,
            }
        })
    }

    /// Values from a copied pixel to the next: its channels in whole steps, an odd number of cache lines, so that
    /// the rows of a tile spread over the cache's sets.
    fn pixel(channels: usize) -> usize {
        let steps = channels.div_ceil(STEP);
        (steps + usize::from(steps.is_multiple_of(2))) * STEP
    }

    fn copied_rows(&self, slab: &Slab) -> usize {
        (slab.rows.len() - 1) * self.shape.stride + self.shape.kernel
    }

    /// Tile rows from the start of a line to the start of the next.
    fn line(&self) -> usize {
        if self.by_line { self.part_columns.next_multiple_of(TILE) } else { self.copied_columns }
    }

    /// Tiles of a slab; the border behind its last line needs none.
    fn tiles(&self, slab: &Slab) -> usize {
        ((slab.rows.len() - 1) * self.line() + self.part_columns).div_ceil(TILE)
    }

    /// The output pixel of each tile row of a slab, counted within the slab as `(row, column)`.
    fn tile_rows(&self, slab: &Slab) -> impl Iterator<Item = Option<(usize, usize)>> + use<> {
        let (line, columns, rows) = (self.line(), slab.columns, slab.rows.len());
        (0..self.tiles(slab) * TILE).map(move |position| {
            let (y, x) = (position / line, position % line);
            (x < columns && y < rows).then_some((y, x))
        })
    }

    /// Pixels from the start of a slab's copy to each of its tiles.
    fn tile_starts(&self, slab: &Slab) -> impl Iterator<Item = usize> + use<> {
        let (by_line, line, copied) = (self.by_line, self.line(), self.copied_columns);
        let stride = self.shape.stride;
        (0..self.tiles(slab)).map(move |tile| {
            let position = tile * TILE;
            if by_line { (position / line * copied + position % line) * stride } else { position }
        })
    }

    /// Copies the channels of the pixels that a slab needs, `padded` values each; zeros around a picture that does not wrap,
    /// and behind the channels.
    fn copy(&self, isa: Isa, slab: &Slab, channels: &Range<usize>, padded: usize, to: &mut [bf16]) {
        let ConvShape { height, width, upsample, pad_before, stride, wrap, .. } = self.shape;
        let (first_row, first_column) = (slab.rows.start * stride, slab.first_column * stride);
        // Columns of the copy that the picture has, and where it has them.
        let end = (width * upsample + pad_before).saturating_sub(first_column).min(self.copied_columns);
        let start = pad_before.saturating_sub(first_column).min(end);
        let from = (first_column + start).saturating_sub(pad_before);
        for (row, line) in to.chunks_exact_mut(self.copied_columns * padded).enumerate() {
            let y = (first_row + row).wrapping_sub(pad_before);
            let Some(y) = Wrap::place(wrap.y, y, height * upsample) else {
                line.fill(bf16::ZERO);
                continue;
            };
            let source = &self.values[(slab.image * height + y / upsample) * width * self.shape.channels..];
            let source = &source[..width * self.shape.channels];
            let copy_pixel = |x: usize, pixel: &mut [bf16]| {
                let from = &source[x / upsample * self.shape.channels..][channels.clone()];
                let (inner, rest) = pixel.split_at_mut(from.len());
                match self.norm {
                    Some(norm) => norm.apply(isa, slab.image, channels.clone(), from, inner),
                    None => inner.copy_from_slice(from),
                }
                rest.fill(bf16::ZERO);
            };
            for beyond in [0..start, end..self.copied_columns] {
                if wrap.x {
                    for column in beyond {
                        let x = (first_column + column).wrapping_sub(pad_before);
                        // What wraps has a place for everything.
                        let x = Wrap::place(true, x, width * upsample).unwrap_or_default();
                        copy_pixel(x, &mut line[column * padded..(column + 1) * padded]);
                    }
                } else {
                    line[beyond.start * padded..beyond.end * padded].fill(bf16::ZERO);
                }
            }
            let line = &mut line[start * padded..end * padded];
            for (x, pixel) in line.chunks_exact_mut(padded).enumerate() {
                copy_pixel(from + x, pixel);
            }
        }
    }
}

impl Source for Picture<'_> {
    fn lines(&self) -> usize {
        self.shape.batch * self.parts * self.rows
    }

    fn rows_per_line(&self) -> usize {
        self.part_columns
    }

    fn task_lines(&self) -> (usize, usize) {
        let line = self.copied_columns * Self::pixel(self.segment) * size_of::<bf16>() * self.shape.stride;
        (1, (COPY_BYTES / line.max(1)).saturating_sub(self.shape.kernel).max(1))
    }

    fn place(&self, lines: Range<usize>, rows: &mut Vec<u32>) {
        for slab in self.slabs(lines) {
            let first = slab.image * self.rows + slab.rows.start;
            let pixel = |(y, x)| ((first + y) * self.columns + slab.first_column + x) as u32;
            rows.extend(self.tile_rows(&slab).map(|place| place.map_or(NO_ROW, pixel)));
        }
    }

    fn locate(&self, isa: Isa, lines: Range<usize>, channels: Range<usize>, place: &mut Place) {
        let padded = Self::pixel(channels.len());
        place.stride = padded * self.shape.stride;
        let slab_values = |slab: &Slab| self.copied_rows(slab) * self.copied_columns * padded;
        let total: usize = self.slabs(lines.clone()).map(|slab| slab_values(&slab)).sum();
        // The last tile may reach beyond the last line by less than a tile and the kernel.
        let beyond = (TILE * self.shape.stride + self.shape.kernel * (self.copied_columns + 1)) * padded;
        place.room(total + beyond);
        let copy = place.copy.as_deref_mut().unwrap_or_default();
        place.tiles.clear();
        let mut first = 0;
        for slab in self.slabs(lines) {
            let length = slab_values(&slab);
            self.copy(isa, &slab, &channels, padded, &mut copy[first..first + length]);
            place.tiles.extend(self.tile_starts(&slab).map(|pixel| copy[first + pixel * padded..].as_ptr()));
            first += length;
        }
        let kernel = self.shape.kernel;
        place.taps.clear();
        place.taps.extend(
            (0..kernel * kernel)
                .map(|tap| (tap / kernel * self.copied_columns + tap % kernel) * padded * size_of::<bf16>()),
        );
    }
}
