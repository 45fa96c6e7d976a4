//! Operations over pictures that give OpenCV 4's numbers, as preprocessors were written against them. Written anew: what is here is
//! what they use, no more.
//!
//! Where OpenCV's own builds differ (cubic sums in integers or floats, fused multiplications), the numbers are those of its x86
//! build on a processor with AVX2, without Intel's IPP.

pub mod canny;
pub mod colour;
pub mod gaussian;
pub mod median;
pub mod morphology;
pub mod otsu;
pub mod remap;
pub mod resize;
pub mod thin;

/// Numbers in rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid<T> {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Numbers of a pixel, side by side.
    pub channels: usize,
    /// Rows from the top.
    pub data: Vec<T>,
}

impl<T: Copy + Default> Grid<T> {
    /// Of nothing but zeros.
    pub fn new(width: usize, height: usize, channels: usize) -> Self {
        Self { width, height, channels, data: vec![T::default(); width * height * channels] }
    }

    /// Row `y`, all channels of it.
    pub fn row(&self, y: usize) -> &[T] {
        let stride = self.width * self.channels;
        &self.data[y * stride..(y + 1) * stride]
    }

    /// Row `y`, to be written.
    pub fn row_mut(&mut self, y: usize) -> &mut [T] {
        let stride = self.width * self.channels;
        &mut self.data[y * stride..(y + 1) * stride]
    }

    /// The pixels, each with its channels.
    pub fn pixels(&self) -> std::slice::ChunksExact<'_, T> {
        self.data.chunks_exact(self.channels)
    }

    /// The part of these sides whose corner is at `(left, top)`.
    pub fn part(&self, left: usize, top: usize, width: usize, height: usize) -> Self {
        let columns = left * self.channels..(left + width) * self.channels;
        let mut data = Vec::with_capacity(height * columns.len());
        (top..top + height).for_each(|y| data.extend_from_slice(&self.row(y)[columns.clone()]));
        Self { width, height, channels: self.channels, data }
    }

    /// The same number of a pixel in each of three channels.
    pub fn in_three(&self) -> Self {
        let mut to = Self::new(self.width, self.height, 3);
        to.data.chunks_exact_mut(3).zip(&self.data).for_each(|(pixel, value)| pixel.fill(*value));
        to
    }
}

/// To the nearest whole number, halves to the even one, within a byte.
pub fn to_byte(value: f32) -> u8 {
    // The conversion saturates.
    value.round_ties_even() as u8
}

/// `left × right + sum`, rounded once, as the processor's own instruction does it: in double precision both steps are exact but for
/// the last rounding.
pub fn fused(left: f32, right: f32, sum: f32) -> f32 {
    (f64::from(left) * f64::from(right) + f64::from(sum)) as f32
}
