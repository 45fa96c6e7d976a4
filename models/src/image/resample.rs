//! Pictures at another size, byte for byte as Pillow makes them (`Image.resize`; `libImaging/Resample.c` has the numbers).
//!
//! Two passes, rows first, each with weights of 22 bits and rounded to 8 bits. Pictures of 16 bits a channel, which Pillow does
//! not know, go the same way. Pictures with opacity are multiplied with it
//! before and divided by it after. The crate `fast_image_resize` 6.1 was tried first: on noise its Lanczos differs from
//! Pillow's by up to 41, in 11 to 39 % of the bytes, so it cannot stand for it.

use std::f64::consts::PI;
use std::ops::Range;

use super::limits::{check_between, check_sides};
use super::{Channels, Picture, Sample, alpha};
use crate::Result;

/// How the pixels of another size are made from those around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// The mean of those that lie within.
    Box,
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = −0.5; what Pillow takes if nothing is said.
    Bicubic,
    /// A sinc in a window of three lobes.
    Lanczos,
}

impl Filter {
    /// How far it reaches, in pixels of the coarser of both sizes.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        let distance = x.abs();
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Bicubic if distance < 1.0 => ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0,
            Self::Bicubic if distance < 2.0 => (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

impl<S: Sample> Picture<S> {
    /// The whole picture at another size. The sizes that can be are those of [`super::LONGEST_SIDE`] and
    /// [`super::MOST_PIXELS`]; any ratio will do, as long as the old height times the new width is within the latter too.
    /// Besides the result up to 8 MiB are taken, and for opacity a copy.
    pub fn resized(&self, width: usize, height: usize, filter: Filter) -> Result<Self> {
        self.check()?;
        check_sides("size", width, height)?;
        let across = Stretch { begin: 0, end: self.width, size: width, window: 0..width };
        let down = Stretch { begin: 0, end: self.height, size: height, window: 0..height };
        self.stretched(&across, &down, filter)
    }

    /// A part of the picture, stretched, and of that a part. The windows are of sides that can be.
    pub(super) fn stretched(&self, across: &Stretch, down: &Stretch, filter: Filter) -> Result<Self> {
        let (width, height) = (across.window.len(), down.window.len());
        check_sides("size", width, height)?;
        let straight = self.channels != Channels::Rgba || filter == Filter::Nearest;
        let pixels = if across.changes_nothing(self.width) && down.changes_nothing(self.height) {
            self.part(&across.window, &down.window)
        } else if filter == Filter::Nearest {
            self.nearest(&across.positions(), &down.positions())
        } else {
            let (across, down) = (across.axis(self.width, filter), down.axis(self.height, filter));
            check_between(down.covered().len(), width)?;
            let premultiplied = (!straight).then(|| {
                let mut pixels = self.pixels.clone();
                alpha::multiply(&mut pixels);
                pixels
            });
            let pixels = premultiplied.as_ref().unwrap_or(&self.pixels);
            let mut made = match self.channels {
                Channels::Grey => resample::<S, 1>(pixels, self.width, &across, &down),
                Channels::Rgb => resample::<S, 3>(pixels, self.width, &across, &down),
                Channels::Rgba => resample::<S, 4>(pixels, self.width, &across, &down),
            };
            if !straight {
                alpha::divide(&mut made);
            }
            made
        };
        Ok(Self { width, height, channels: self.channels, pixels })
    }

    /// The pixels of these columns and rows, which must be within.
    pub(super) fn part(&self, columns: &Range<usize>, rows: &Range<usize>) -> Vec<S> {
        let count = self.channels.count();
        let lines = self.pixels.chunks_exact(self.width * count);
        let lines = lines.skip(rows.start).take(rows.len());
        lines.flat_map(|line| &line[columns.start * count..columns.end * count]).copied().collect()
    }

    /// Where there is no pixel, there are zeros.
    fn nearest(&self, across: &[Option<usize>], down: &[Option<usize>]) -> Vec<S> {
        let count = self.channels.count();
        let mut made = Vec::with_capacity(across.len() * down.len() * count);
        for row in down {
            for column in across {
                match (row, column) {
                    (Some(row), Some(column)) => {
                        made.extend_from_slice(&self.pixels[(row * self.width + column) * count..][..count]);
                    }
                    _ => made.resize(made.len() + count, S::default()),
                }
            }
        }
        made
    }
}

/// What happens to a side: its pixels from `begin` to `end` become `size` pixels, of which `window` is kept. `begin` may be
/// `end`: then all pixels are what lies there.
pub(super) struct Stretch {
    pub begin: usize,
    pub end: usize,
    pub size: usize,
    pub window: Range<usize>,
}

impl Stretch {
    fn changes_nothing(&self, side: usize) -> bool {
        self.size == side && (self.begin, self.end) == (0, side)
    }

    fn scale(&self) -> f64 {
        (self.end - self.begin) as f64 / self.size as f64
    }

    /// The nearest pixel of each in the window, if there is one. Pillow adds up where it is, so this does.
    fn positions(&self) -> Vec<Option<usize>> {
        let scale = self.scale();
        let mut at = self.begin as f64 + scale * 0.5;
        let mut positions = Vec::with_capacity(self.window.len());
        for pixel in 0..self.window.end {
            let position = at as usize;
            if self.window.contains(&pixel) {
                positions.push((position < self.end).then_some(position));
            }
            at += scale;
        }
        positions
    }

    /// What each pixel of the window is made of, on a side of this length.
    pub(super) fn axis(&self, side: usize, filter: Filter) -> Axis {
        if self.changes_nothing(side) {
            let cell = |pixel| Cell { first: pixel, weights: 0..1 };
            return Axis { cells: self.window.clone().map(cell).collect(), weights: vec![ONE] };
        }
        let scale = self.scale();
        let coarser = scale.max(1.0);
        let support = filter.support() * coarser;
        let mut axis = Axis { cells: Vec::with_capacity(self.window.len()), weights: Vec::new() };
        let mut exact: Vec<f64> = Vec::new();
        for pixel in self.window.clone() {
            let centre = self.begin as f64 + (pixel as f64 + 0.5) * scale;
            // From floats to whole numbers everything below 0 becomes 0.
            let first = (centre - support + 0.5) as usize;
            let last = ((centre + support + 0.5) as usize).min(side);
            let place = |pixel: usize| (pixel as f64 - centre + 0.5) * (1.0 / coarser);
            exact.clear();
            exact.extend((first..last).map(|pixel| filter.weight(place(pixel))));
            let sum: f64 = exact.iter().sum();
            let begin = axis.weights.len();
            axis.weights.extend(exact.iter().map(|weight| {
                let weight = if sum == 0.0 { *weight } else { weight / sum } * f64::from(ONE);
                // Half away from zero.
                (weight + if weight < 0.0 { -0.5 } else { 0.5 }) as i32
            }));
            axis.cells.push(Cell { first, weights: begin..axis.weights.len() });
        }
        axis
    }
}

/// Bits of a weight behind the point.
const PRECISION: u32 = 32 - 8 - 2;
const ONE: i32 = 1 << PRECISION;
const HALF: i32 = ONE / 2;

/// What the pixels of a side are made of.
pub(super) struct Axis {
    pub cells: Vec<Cell>,
    pub weights: Vec<i32>,
}

/// Pixels that follow on each other, and where their weights are.
pub(super) struct Cell {
    pub first: usize,
    pub weights: Range<usize>,
}

impl Axis {
    /// All pixels that any is made of.
    fn covered(&self) -> Range<usize> {
        let first = self.cells.iter().map(|cell| cell.first).min().unwrap_or_default();
        let last = self.cells.iter().map(|cell| cell.first + cell.weights.len()).max().unwrap_or_default();
        first..last
    }
}

/// Pixels of N channels that lie in rows of `width`. Columns are done in bands, so that what is kept between the passes is
/// small however high the picture is.
fn resample<S: Sample, const N: usize>(pixels: &[S], width: usize, across: &Axis, down: &Axis) -> Vec<S> {
    const BETWEEN: usize = 8 << 20;
    let rows = down.covered();
    let columns = (BETWEEN / (rows.len() * N).max(1)).max(1);
    let line = across.cells.len() * N;
    let mut made = vec![S::default(); line * down.cells.len()];
    for (index, band) in across.cells.chunks(columns).enumerate() {
        let length = band.len() * N;
        let mut between = vec![S::default(); rows.len() * length];
        let lines = pixels.chunks_exact(width * N).skip(rows.start);
        for (narrow, wide) in between.chunks_exact_mut(length).zip(lines) {
            along_a_row::<S, N>(wide, band, &across.weights, narrow);
        }
        let begin = index * columns * N;
        let mut sums = vec![S::Sum::from(0); length];
        for (cell, line) in down.cells.iter().zip(made.chunks_exact_mut(line)) {
            let lines = between[(cell.first - rows.start) * length..].chunks_exact(length);
            let weights = down.weights[cell.weights.clone()].iter();
            down_columns(weights.zip(lines), &mut sums, &mut line[begin..begin + length]);
        }
    }
    made
}

/// A row of what rows of the same length make, each with its weight; `sums` are as many.
pub(super) fn down_columns<'a, S: Sample>(
    rows: impl Iterator<Item = (&'a i32, &'a [S])>,
    sums: &mut [S::Sum],
    made: &mut [S],
) {
    sums.fill(S::Sum::from(HALF));
    for (weight, row) in rows {
        let weight = S::Sum::from(*weight);
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value.sum() * weight;
        }
    }
    for (value, sum) in made.iter_mut().zip(sums) {
        *value = S::of_sum(*sum, PRECISION);
    }
}

pub(super) fn along_a_row<S: Sample, const N: usize>(
    row: &[S],
    cells: &[Cell],
    weights: &[i32],
    made: &mut [S],
) {
    for (cell, pixel) in cells.iter().zip(made.chunks_exact_mut(N)) {
        let weights = &weights[cell.weights.clone()];
        let pixels = row[cell.first * N..].chunks_exact(N);
        let mut sums = [S::Sum::from(HALF); N];
        for (weight, pixel) in weights.iter().zip(pixels) {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += value.sum() * S::Sum::from(*weight);
            }
        }
        for (value, sum) in pixel.iter_mut().zip(sums) {
            *value = S::of_sum(sum, PRECISION);
        }
    }
}
