//! Which way up a camera held a picture, as EXIF tells, and the picture turned so (Pillow's `ImageOps.exif_transpose`).

use super::tiff::Tiff;
use super::{Picture, Sample, metadata};
use crate::Result;

/// What is to be done to a picture's pixels before it is seen as it was taken; EXIF's numbers 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Orientation {
    /// Left and right are swapped, after what follows.
    mirrored: bool,
    /// Top and bottom are.
    upside_down: bool,
    /// Rows become columns, before that.
    transposed: bool,
}

impl Orientation {
    /// What an encoded picture's EXIF says; nothing to be done if it says nothing, or nonsense.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let number = metadata::exif(bytes)?.and_then(Tiff::new).and_then(|tiff| tiff.orientation());
        Ok(number.map_or_else(Self::default, Self::from_exif))
    }

    /// By EXIF's number; those that it does not know do nothing.
    pub fn from_exif(number: u8) -> Self {
        let (mirrored, upside_down, transposed) = match number {
            2 => (true, false, false),
            3 => (true, true, false),
            4 => (false, true, false),
            5 => (false, false, true),
            6 => (true, false, true),
            7 => (true, true, true),
            8 => (false, true, true),
            _ => (false, false, false),
        };
        Self { mirrored, upside_down, transposed }
    }
}

impl Orientation {
    /// Whether rows become columns, and the sides change places.
    pub fn is_transposed(self) -> bool {
        self.transposed
    }
}

impl<S: Sample> Picture<S> {
    /// The picture as it was taken. Sides may be swapped.
    pub fn oriented(self, orientation: Orientation) -> Result<Self> {
        self.check()?;
        if orientation == Orientation::default() {
            return Ok(self);
        }
        let Orientation { mirrored, upside_down, transposed } = orientation;
        let (width, height) = if transposed { (self.height, self.width) } else { (self.width, self.height) };
        let count = self.channels.count();
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for y in 0..height {
            let y = if upside_down { height - 1 - y } else { y };
            for x in 0..width {
                let x = if mirrored { width - 1 - x } else { x };
                let (column, row) = if transposed { (y, x) } else { (x, y) };
                pixels.extend_from_slice(&self.pixels[(row * self.width + column) * count..][..count]);
            }
        }
        Ok(Self { width, height, channels: self.channels, pixels })
    }
}
