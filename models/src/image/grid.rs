//! A picture cut into tiles that overlap, and put together again with soft seams (`modules/images.py: split_grid` and
//! `combine_grid` of A1111 1.10.1), byte for byte.

use super::inpaint::Region;
use super::{Channels, Picture, alpha};
use crate::{Error, Result};

/// So many tiles a picture may be cut into.
pub const MOST_TILES: usize = 4096;

/// Where the tiles of a picture lie. All have one size, and together they cover it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    size: (usize, usize),
    tile: (usize, usize),
    overlap: usize,
    lefts: Vec<usize>,
    tops: Vec<usize>,
}

impl Grid {
    /// Tiles `(width, height)` over a picture `(width, height)`, of which neighbours share `overlap` pixels or more. A tile is
    /// no larger than the picture: A1111 would have black around it.
    pub fn new(size: (usize, usize), tile: (usize, usize), overlap: usize) -> Result<Self> {
        let (across, lefts) = along("width", size.0, tile.0, overlap)?;
        let (down, tops) = along("height", size.1, tile.1, overlap)?;
        if lefts.len().saturating_mul(tops.len()) > MOST_TILES {
            return Err(Error::Request(format!(
                "tiles: {across}x{down} over {}x{} are {} by {}, more than {MOST_TILES}; give a larger width or height",
                size.0,
                size.1,
                lefts.len(),
                tops.len()
            )));
        }
        Ok(Self { size, tile: (across, down), overlap, lefts, tops })
    }

    /// Tiles across and down.
    pub fn counts(&self) -> (usize, usize) {
        (self.lefts.len(), self.tops.len())
    }

    /// What each tile has of the picture, row by row.
    pub fn regions(&self) -> impl Iterator<Item = Region> {
        let (width, height) = self.tile;
        self.tops.iter().flat_map(move |top| {
            self.lefts.iter().map(move |left| Region {
                left: *left,
                top: *top,
                right: left + width,
                bottom: top + height,
            })
        })
    }

    /// The picture, RGB, that the tiles make, in the order of [`Self::regions`]: where two overlap, the first `overlap` pixels
    /// of the later one are faded in.
    pub fn combined(&self, tiles: &[Picture]) -> Result<Picture> {
        let (width, height) = self.tile;
        if tiles.len() != self.lefts.len() * self.tops.len() {
            let (given, needed) = (tiles.len(), self.lefts.len() * self.tops.len());
            return Err(Error::Request(format!("tiles: {given} are given, {needed} are needed")));
        }
        if let Some(wrong) = tiles.iter().find(|tile| (tile.width, tile.height) != self.tile) {
            return Err(Error::Request(format!(
                "tiles: one is {}x{}, {width}x{height} is needed",
                wrong.width, wrong.height
            )));
        }
        let line = self.size.0 * 3;
        let mut made = vec![0; line * self.size.1];
        for (row, tiles) in self.tops.iter().zip(tiles.chunks_exact(self.lefts.len())) {
            let tiles: Vec<Picture> =
                tiles.iter().map(|tile| Picture::from(tile.clone().into_rgb())).collect();
            let mut band = vec![0; line];
            let lines = made.chunks_exact_mut(line).skip(*row).take(height).enumerate();
            for (y, line) in lines {
                band.fill(0);
                for (left, tile) in self.lefts.iter().zip(&tiles) {
                    let own = tile.pixels.chunks_exact(width * 3).nth(y).unwrap_or_default();
                    for (x, (below, above)) in
                        band[left * 3..].chunks_exact_mut(3).zip(own.chunks_exact(3)).enumerate()
                    {
                        lay(below, above, if *left == 0 { 255 } else { self.share(x) });
                    }
                }
                let share = if *row == 0 { 255 } else { self.share(y) };
                for (below, above) in line.chunks_exact_mut(3).zip(band.chunks_exact(3)) {
                    lay(below, above, share);
                }
            }
        }
        Ok(Picture { width: self.size.0, height: self.size.1, channels: Channels::Rgb, pixels: made })
    }

    /// How much of a tile is seen at this distance from its first column or row, of 255.
    fn share(&self, distance: usize) -> u8 {
        if distance < self.overlap { (distance as f32 * 255.0 / self.overlap as f32) as u8 } else { 255 }
    }
}

fn lay(below: &mut [u8], above: &[u8], share: u8) {
    for (below, above) in below.iter_mut().zip(above) {
        *below = alpha::mix(*below, *above, share);
    }
}

/// The size of tiles along a side, and where they begin.
fn along(name: &str, side: usize, tile: usize, overlap: usize) -> Result<(usize, Vec<usize>)> {
    if tile >= side {
        return Ok((side, vec![0]));
    }
    if tile <= overlap {
        return Err(Error::Request(format!(
            "{name}: tiles of {tile} pixels cannot overlap by {overlap}; give a {name} above {overlap}"
        )));
    }
    let count = (side - overlap).div_ceil(tile - overlap);
    let step = (side - tile) as f64 / (count - 1) as f64;
    let places = (0..count).map(|index| ((index as f64 * step) as usize).min(side - tile)).collect();
    Ok((tile, places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_told_with_its_remedy() {
        for (size, tile, overlap, said) in [
            ((512, 64), (128, 64), 128, "width above 128"),
            ((512, 512), (512, 9), 9, "height above 9"),
            ((6400, 6400), (64, 64), 32, "199 by 199"),
        ] {
            let refused = Grid::new(size, tile, overlap).expect_err("refused").to_string();
            assert!(refused.contains(said), "{refused}");
        }
        let grid = Grid::new((20, 10), (64, 64), 70).expect("one tile");
        let tile = Picture { width: 19, height: 10, channels: Channels::Grey, pixels: vec![7; 190] };
        let refused = grid.combined(std::slice::from_ref(&tile)).expect_err("refused").to_string();
        assert!(refused.contains("19x10, 20x10"), "{refused}");
        let refused = grid.combined(&[]).expect_err("refused").to_string();
        assert!(refused.contains("0 are given, 1 are needed"), "{refused}");
    }

    #[test]
    fn tiles_make_the_picture_that_they_are_of() {
        for (size, tile, overlap) in
            [((300, 170), (64, 96), 20), ((65, 64), (64, 64), 0), ((9, 9), (64, 64), 3)]
        {
            let pixels = (0..size.0 * size.1 * 3).map(|at| (at * 7919 % 251) as u8).collect();
            let picture = Picture { width: size.0, height: size.1, channels: Channels::Rgb, pixels };
            let grid = Grid::new(size, tile, overlap).expect("a grid");
            let tiles: Vec<Picture> =
                grid.regions().map(|region| picture.cropped(region).expect("inside")).collect();
            assert_eq!(grid.combined(&tiles).expect("tiles"), picture, "{size:?}");
        }
    }
}
