//! A picture made larger tile by tile: tiles of one size, evenly spaced, that overlap; what is made of them is laid over one
//! another, each fading in over the one before. The rows of the result come as they are finished, so that no more than two rows
//! of tiles are in memory, whatever the picture's size.

use std::ops::Range;

use crate::tensor::Tensor;
use crate::{Error, Result};

/// How a picture is cut, in its own pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// How many times as large the result is.
    pub scale: usize,
    /// Sides of a tile; 0: one tile is the whole picture.
    pub size: usize,
    /// Pixels over which a tile fades in; no more than half of a tile.
    pub overlap: usize,
    /// What the sides of a tile are multiples of: it is filled up by its own mirror image where it is none.
    pub multiple: usize,
    /// Tiles that are made at once.
    pub at_once: usize,
}

/// One side of a picture, cut.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut {
    /// Where tiles begin.
    starts: Vec<usize>,
    /// Pixels of each.
    size: usize,
    /// Over which each but the first fades in.
    overlap: usize,
    /// Pixels of a tile once it is filled up.
    filled: usize,
}

impl Tiling {
    fn cut(&self, length: usize) -> Cut {
        let multiple = self.multiple.max(1);
        // A tile is a multiple itself, so that only what is smaller than one is filled up.
        let size = if self.size == 0 { length } else { (self.size / multiple).max(1) * multiple };
        if size >= length {
            let filled = length.next_multiple_of(multiple);
            return Cut { starts: vec![0], size: length, overlap: 0, filled };
        }
        let overlap = self.overlap.min(size / 2);
        let count = (length - overlap).div_ceil(size - overlap);
        let starts = (0..count).map(|index| index * (length - size) / (count - 1).max(1)).collect();
        Cut { starts, size, overlap, filled: size }
    }

    /// How many tiles a picture of these sides has.
    pub fn count(&self, width: usize, height: usize) -> usize {
        self.cut(width).starts.len() * self.cut(height).starts.len()
    }

    /// Numbers that are in memory at once beside the picture and its result, of three colours.
    pub fn numbers(&self, width: usize, height: usize) -> usize {
        let (columns, rows) = (self.cut(width), self.cut(height));
        let (area, scale) = (self.scale * self.scale, self.scale.max(1));
        let tile = columns.filled * rows.filled * self.at_once.max(1).min(columns.starts.len());
        3 * (tile * (1 + area) + 2 * width * scale * rows.size * scale)
    }

    /// Goes over a picture of `width` × `height` whose colours are 0…1: `colours` gives them by column and row, `make` is given
    /// tiles as `(tiles, 3, height, width)` with how many were made before, and gives the same of `scale` times the sides;
    /// `finished` is given the rows of the result from the top, each with its colours side by side.
    pub fn go(
        &self,
        (width, height): (usize, usize),
        colours: &dyn Fn(usize, usize) -> [f32; 3],
        make: &mut dyn FnMut(Tensor, usize) -> Result<Tensor>,
        finished: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        if width == 0 || height == 0 || self.scale == 0 {
            return Err(Error::Request(format!("{width}x{height} by {} cannot be", self.scale)));
        }
        let (columns, rows) = (self.cut(width), self.cut(height));
        let row_of_result = width * self.scale * 3;
        // Rows of the result that are not finished, from `top` on.
        let (mut rest, mut top) = (Vec::<f32>::new(), 0);
        for (number, start) in rows.starts.iter().enumerate() {
            let before = number * columns.starts.len();
            let strip = self.strip((*start, &columns, &rows), width, colours, make, before)?;
            let begin = start * self.scale;
            let ready = begin.saturating_sub(top) * row_of_result;
            rest.get(..ready).unwrap_or(&rest).chunks_exact(row_of_result).for_each(&mut *finished);
            let old = rest.get(ready..).unwrap_or_default();
            let fading = rows.overlap * self.scale;
            let mut strip = strip;
            for (at, (new, old)) in strip.iter_mut().zip(old).take(fading * row_of_result).enumerate() {
                *new = faded(*old, *new, at / row_of_result, fading);
            }
            (rest, top) = (strip, begin);
        }
        rest.chunks_exact(row_of_result).for_each(finished);
        Ok(())
    }

    /// A row of tiles, put together: rows of the result with their colours side by side.
    fn strip(
        &self,
        (top, columns, rows): (usize, &Cut, &Cut),
        width: usize,
        colours: &dyn Fn(usize, usize) -> [f32; 3],
        make: &mut dyn FnMut(Tensor, usize) -> Result<Tensor>,
        before: usize,
    ) -> Result<Vec<f32>> {
        let (scale, count) = (self.scale, columns.starts.len());
        let (wide, high) = (columns.size * scale, rows.size * scale);
        let mut strip = vec![0.0; width * scale * high * 3];
        for first in (0..count).step_by(self.at_once.max(1)) {
            let group = first..(first + self.at_once.max(1)).min(count);
            let tiles = tiles((top, columns, rows), group.clone(), colours)?;
            let wanted = [group.len(), 3, rows.filled * scale, columns.filled * scale];
            let made = make(tiles, before + first)?;
            if made.dims() != wanted {
                let text = format!("an upscaler made {:?} where {wanted:?} was wanted", made.dims());
                return Err(Error::Stage(text));
            }
            let plane = wanted[2] * wanted[3];
            for (place, index) in group.enumerate() {
                let left = columns.starts.get(index).map_or(0, |start| start * scale);
                let fading = if index == 0 { 0 } else { columns.overlap * scale };
                for y in 0..high {
                    let row = strip.get_mut((y * width * scale + left) * 3..).unwrap_or_default();
                    for (x, pixel) in row.chunks_exact_mut(3).take(wide).enumerate() {
                        for (colour, old) in pixel.iter_mut().enumerate() {
                            let at = (place * 3 + colour) * plane + y * wanted[3] + x;
                            let new = made.values().get(at).copied().unwrap_or_default();
                            *old = if x < fading { faded(*old, new, x, fading) } else { new };
                        }
                    }
                }
            }
        }
        Ok(strip)
    }
}

/// Between two numbers, so far on the way from the one to the other.
fn faded(old: f32, new: f32, at: usize, of: usize) -> f32 {
    let share = at as f32 / of as f32;
    old * (1.0 - share) + new * share
}

/// Some tiles of a row, filled up: `(tiles, 3, height, width)`.
fn tiles(
    (top, columns, rows): (usize, &Cut, &Cut),
    which: Range<usize>,
    colours: &dyn Fn(usize, usize) -> [f32; 3],
) -> Result<Tensor> {
    let plane = columns.filled * rows.filled;
    let mut values = vec![0.0; which.len() * 3 * plane];
    for (place, start) in columns.starts.get(which.clone()).unwrap_or_default().iter().enumerate() {
        for y in 0..rows.filled {
            for x in 0..columns.filled {
                let pixel = colours(start + mirrored(x, columns.size), top + mirrored(y, rows.size));
                for (colour, value) in pixel.into_iter().enumerate() {
                    let at = (place * 3 + colour) * plane + y * columns.filled + x;
                    if let Some(to) = values.get_mut(at) {
                        *to = value;
                    }
                }
            }
        }
    }
    Tensor::new(values, [which.len(), 3, rows.filled, columns.filled])
}

/// A place within so many pixels, beyond which they are seen as in mirrors at both ends; the ends are not seen twice.
fn mirrored(at: usize, size: usize) -> usize {
    if size <= 1 {
        return 0;
    }
    let round = 2 * (size - 1);
    let within = at % round;
    if within < size { within } else { round - within }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Tiling = Tiling { scale: 1, size: 0, overlap: 0, multiple: 1, at_once: 1 };

    fn starts(length: usize, size: usize, overlap: usize) -> Vec<usize> {
        Tiling { size, overlap, ..PLAIN }.cut(length).starts
    }

    #[test]
    fn tiles_are_evenly_spaced() {
        assert_eq!(starts(512, 192, 8), [0, 160, 320]);
        assert_eq!(starts(512, 0, 8), [0]);
        assert_eq!(starts(100, 192, 8), [0]);
        assert_eq!(starts(193, 192, 8), [0, 1]);
        assert_eq!(starts(512, 128, 0), [0, 128, 256, 384]);
        // A tile is a multiple; what is smaller than one is filled up.
        let cut = Tiling { size: 50, multiple: 16, overlap: 8, ..PLAIN }.cut(100);
        assert_eq!((cut.size, cut.filled, &cut.starts[..]), (48, 48, &[0, 26, 52][..]));
        let cut = Tiling { size: 50, multiple: 16, ..PLAIN }.cut(33);
        assert_eq!((cut.size, cut.filled), (33, 48));
        assert_eq!((0..8).map(|at| mirrored(at, 3)).collect::<Vec<_>>(), [0, 1, 2, 1, 0, 1, 2, 1]);
    }

    /// Each pixel becomes `scale`² of the same.
    fn nearest(tiles: &Tensor, scale: usize) -> Tensor {
        let &[count, 3, height, width] = tiles.dims() else { panic!("{:?}", tiles.dims()) };
        let mut values = vec![];
        for plane in tiles.values().chunks_exact(height * width) {
            for y in 0..height * scale {
                values.extend((0..width * scale).map(|x| plane[y / scale * width + x / scale]));
            }
        }
        Tensor::new(values, [count, 3, height * scale, width * scale]).expect("fits")
    }

    fn colours(x: usize, y: usize) -> [f32; 3] {
        [(x * 7 % 31) as f32 / 31.0, (y * 5 % 29) as f32 / 29.0, ((x + y) % 17) as f32 / 17.0]
    }

    proptest! {
        #[test]
        fn what_each_pixel_decides_alone_shows_no_tiles(
            (width, height) in (1usize..70, 1usize..70),
            (size, overlap) in (0usize..40, 0usize..40),
            (scale, multiple, at_once) in (1usize..4, 1usize..9, 1usize..4),
        ) {
            let tiling = Tiling { scale, size, overlap, multiple, at_once };
            let (mut made, mut calls, mut rows) = (vec![], 0, 0);
            let mut make = |tiles: Tensor, before: usize| {
                assert_eq!(before, calls);
                calls += tiles.dim(0);
                let is_filled = |side: usize| tiles.dim(side).is_multiple_of(multiple);
                assert!(is_filled(2) && is_filled(3) && tiles.dim(0) <= at_once);
                Ok(nearest(&tiles, scale))
            };
            let mut finished = |row: &[f32]| {
                made.extend_from_slice(row);
                rows += 1;
            };
            tiling.go((width, height), &colours, &mut make, &mut finished).expect("made");
            prop_assert_eq!((rows, calls), (height * scale, tiling.count(width, height)));
            prop_assert_eq!(made.len(), width * scale * height * scale * 3);
            for (at, value) in made.iter().enumerate() {
                let (x, y) = (at / 3 % (width * scale) / scale, at / 3 / (width * scale) / scale);
                prop_assert!((value - colours(x, y)[at % 3]).abs() < 1e-6, "{} {} {}", x, y, value);
            }
        }
    }

    #[test]
    fn a_tile_fades_in_over_the_one_before() {
        // Each tile is its number: 6 columns in tiles of 4 that begin at 0 and 2, and fade over 2.
        let tiling = Tiling { size: 4, overlap: 2, ..PLAIN };
        let mut made = vec![];
        let mut make = |tiles: Tensor, before: usize| Ok(tiles.map(|_| before as f32));
        tiling.go((6, 6), &colours, &mut make, &mut |row| made.push(row[0..18].to_vec())).expect("made");
        let red = |y: usize| made[y].iter().step_by(3).copied().collect::<Vec<f32>>();
        assert_eq!(red(0), [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]);
        assert_eq!(red(2), red(1), "it begins with what was there");
        assert_eq!(red(3), [1.0, 1.0, 1.0, 1.5, 2.0, 2.0]);
        assert_eq!(red(5), [2.0, 2.0, 2.0, 2.5, 3.0, 3.0]);
    }

    #[test]
    fn what_is_made_must_fit_and_sides_must_be() {
        let mut wrong = |tiles: Tensor, _| Ok(tiles);
        let twice = Tiling { scale: 2, ..PLAIN };
        let error = twice.go((4, 4), &colours, &mut wrong, &mut |_| ()).expect_err("refused").to_string();
        assert!(error.contains("[1, 3, 4, 4] where [1, 3, 8, 8] was wanted"), "{error}");
        assert!(PLAIN.go((0, 4), &colours, &mut wrong, &mut |_| ()).is_err());
        assert!(Tiling { scale: 0, ..PLAIN }.go((4, 4), &colours, &mut wrong, &mut |_| ()).is_err());
    }
}
