//! 2-d convolution over channels-last activations, without a patch buffer: the product's row pointers walk the
//! picture itself.

use crate::matmul::{Rows, SEGMENT, multiply, segments};
use crate::pack::PackedMatrix;
use crate::{Epilogue, Isa, elements};

/// Along which sides a picture goes on beyond its border with its other end, instead of with zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wrap {
    /// From the right to the left, and back.
    pub x: bool,
    /// From the bottom to the top, and back.
    pub y: bool,
}

impl Wrap {
    /// Where a padded picture has place `at` of a side of `size`, counted modulo 2⁶⁴ from the picture's own begin; `None` for a
    /// zero.
    pub(crate) fn place(wraps: bool, at: usize, size: usize) -> Option<usize> {
        if at < size {
            return Some(at);
        }
        (wraps && size > 0).then(|| at.cast_signed().rem_euclid(size.cast_signed()).cast_unsigned())
    }
}

/// The geometry of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Pictures.
    pub batch: usize,
    /// Input rows.
    pub height: usize,
    /// Input columns.
    pub width: usize,
    /// Input channels.
    pub channels: usize,
    /// Kernel rows and columns.
    pub kernel: usize,
    /// Step of the kernel.
    pub stride: usize,
    /// Rows above and columns to the left that the picture does not have: zeros, unless it wraps.
    pub pad_before: usize,
    /// The same below and to the right.
    pub pad_after: usize,
    /// The input is read enlarged by this factor, nearest neighbour: 1 or 2.
    pub upsample: usize,
    /// What stands beyond the border.
    pub wrap: Wrap,
}

impl ConvShape {
    /// Output rows and columns; zero where the kernel does not fit.
    pub fn output(&self) -> (usize, usize) {
        let size = |input: usize| {
            let padded = input * self.upsample + self.pad_before + self.pad_after;
            padded.checked_sub(self.kernel).map_or(0, |rest| rest / self.stride + 1)
        };
        (size(self.height), size(self.width))
    }
}

static ZEROS: [f32; SEGMENT] = [0.0; SEGMENT];

struct Pixels<'a> {
    values: &'a [f32],
    shape: ConvShape,
    output: (usize, usize),
    segments: Vec<(usize, usize)>,
}

impl Rows for Pixels<'_> {
    fn segments(&self) -> &[(usize, usize)] {
        &self.segments
    }

    fn locate(&self, segment: usize, first: usize, pointers: &mut [*const f32]) {
        let s = &self.shape;
        let k = self.segments[segment].0;
        let (tap, channel) = (k / s.channels, k % s.channels);
        let (tap_y, tap_x) = (tap / s.kernel, tap % s.kernel);
        let (rows, columns) = self.output;
        let (mut image, rest) = (first / (rows * columns), first % (rows * columns));
        let (mut y, mut x) = (rest / columns, rest % columns);
        for pointer in pointers {
            // Wraps far out of range where it would be negative.
            let source_y = (y * s.stride + tap_y).wrapping_sub(s.pad_before);
            let source_x = (x * s.stride + tap_x).wrapping_sub(s.pad_before);
            let place = |wraps, at, side| Wrap::place(wraps, at, side * s.upsample);
            let source = (place(s.wrap.y, source_y, s.height), place(s.wrap.x, source_x, s.width));
            *pointer = if let (Some(source_y), Some(source_x)) = source {
                let pixel = (image * s.height + source_y / s.upsample) * s.width + source_x / s.upsample;
                self.values[pixel * s.channels + channel..].as_ptr()
            } else {
                ZEROS.as_ptr()
            };
            x += 1;
            if x == columns {
                (x, y) = (0, y + 1);
                if y == rows {
                    (y, image) = (0, image + 1);
                }
            }
        }
    }
}

/// `x (batch, height, width, channels)` → `out (batch, rows, columns, outputs)`, see [`ConvShape::output`];
/// `weights` packed by [`PackedMatrix::convolution`]; finished by `epilogue`.
///
/// # Panics
/// If lengths do not fit the shape and the weights, or there are no channels, kernel, stride or factor.
pub fn conv2d(
    isa: Isa,
    x: &[f32],
    shape: ConvShape,
    weights: &PackedMatrix,
    epilogue: &Epilogue<f32>,
    out: &mut [f32],
) {
    let ConvShape { batch, height, width, channels, kernel, stride, upsample, .. } = shape;
    assert!(
        channels > 0 && kernel > 0 && stride > 0 && upsample > 0,
        "convolution: channels, kernel, stride and factor are at least 1"
    );
    assert_eq!(x.len(), elements(&[batch, height, width, channels]), "convolution: input");
    assert_eq!(
        weights.k,
        elements(&[channels, kernel, kernel]),
        "convolution: weights for {channels} channels"
    );
    let taps = kernel * kernel;
    let output = shape.output();
    let segments = (0..taps).flat_map(|tap| segments(tap * channels, channels)).collect();
    let rows = Pixels { values: x, shape, output, segments };
    multiply(isa, &rows, elements(&[batch, output.0, output.1]), weights, epilogue, out);
}
