//! The size in which a module looks at a picture.

use super::cv::Grid;
use super::cv::resize::{Interpolation, resize};
use super::hint::ResizeMode;

/// What sides are filled up to be a multiple of.
const STEP: usize = 64;

/// The resolution by which a picture of these sides needs no more resizing to become a hint of those; sides are width and height,
/// none of them 0.
pub fn pixel_perfect(picture: (usize, usize), hint: (usize, usize), mode: ResizeMode) -> u32 {
    let across = hint.0 as f64 / picture.0 as f64;
    let down = hint.1 as f64 / picture.1 as f64;
    let times = if mode == ResizeMode::Fill { down.min(across) } else { down.max(across) };
    (times * picture.0.min(picture.1) as f64).round_ties_even() as u32
}

/// The sides of a picture whose shorter one becomes `resolution`.
pub fn sides(width: usize, height: usize, resolution: u32) -> (usize, usize) {
    let times = f64::from(resolution) / width.min(height) as f64;
    let side = |side: usize| (side as f64 * times).round_ties_even() as usize;
    (side(width), side(height))
}

/// A picture of another size, filled up on the right and below by what is at its edge.
pub struct Padded {
    grid: Grid<u8>,
    /// Without what was filled up.
    width: usize,
    height: usize,
}

impl Padded {
    /// The shorter side is to be `resolution` pixels, 1 or more.
    pub fn of(picture: &Grid<u8>, resolution: u32) -> Self {
        let (width, height) = sides(picture.width, picture.height, resolution);
        let grows = resolution as usize > picture.width.min(picture.height);
        let how = if grows { Interpolation::Cubic } else { Interpolation::Area };
        let grid = padded(&resize(picture, width, height, how));
        Self { grid, width, height }
    }

    /// What becomes of it, where that was picture.
    pub fn through(&self, of: impl FnOnce(&Grid<u8>) -> Grid<u8>) -> Grid<u8> {
        of(&self.grid).part(0, 0, self.width, self.height)
    }

    /// The picture alone.
    pub fn without(&self) -> Grid<u8> {
        self.grid.part(0, 0, self.width, self.height)
    }
}

fn padded(from: &Grid<u8>) -> Grid<u8> {
    let mut to =
        Grid::new(from.width.next_multiple_of(STEP), from.height.next_multiple_of(STEP), from.channels);
    let filled = from.width * from.channels;
    for y in 0..to.height {
        let row = from.row(y.min(from.height - 1));
        let to = to.row_mut(y);
        to[..filled].copy_from_slice(row);
        let last = &row[filled - from.channels..];
        to[filled..].chunks_exact_mut(from.channels).for_each(|pixel| pixel.copy_from_slice(last));
    }
    to
}
