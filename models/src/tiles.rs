//! Tiles that cover a picture and overlap, and the picture that becomes of them: blended where they overlap, so that no
//! edge shows.

use crate::error::{Result, bail};
use crate::tensor::Tensor;

/// How a plane is cut: square tiles of `side` that share `overlap` with their neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    side: usize,
    overlap: usize,
}

/// Where a tile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Tile {
    /// The same in a plane that is `factor` times as large.
    #[must_use]
    pub fn scaled(self, factor: usize) -> Self {
        let Self { top, left, height, width } = self;
        Self { top: top * factor, left: left * factor, height: height * factor, width: width * factor }
    }
}

impl Tiling {
    /// An error unless tiles are larger than what they share.
    pub fn new(side: usize, overlap: usize) -> Result<Self> {
        if side <= overlap {
            bail!("tiles of {side} cannot overlap by {overlap}");
        }
        Ok(Self { side, overlap })
    }

    /// What neighbours share at least.
    pub fn overlap(self) -> usize {
        self.overlap
    }

    /// The tiles of a plane of this height and width, row by row, evenly spread.
    pub fn tiles(self, height: usize, width: usize) -> impl Iterator<Item = Tile> {
        let columns = self.starts(width);
        self.starts(height).into_iter().flat_map(move |top| {
            let tile = move |left: &usize| Tile {
                top,
                left: *left,
                height: self.side.min(height - top),
                width: self.side.min(width - left),
            };
            columns.iter().map(tile).collect::<Vec<_>>()
        })
    }

    fn starts(self, size: usize) -> Vec<usize> {
        if size <= self.side {
            return vec![0];
        }
        let count = (size - self.overlap).div_ceil(self.side - self.overlap);
        (0..count).map(|index| index * (size - self.side) / (count - 1)).collect()
    }
}

/// Planes that are put together of tiles.
pub struct Blend {
    dims: [usize; 4],
    /// Rows and columns over which a tile fades in from its edge.
    ramp: usize,
    sum: Vec<f32>,
    /// Of each position, the same in all planes.
    weight: Vec<f32>,
}

impl Blend {
    /// Nothing yet of `(batch, channels, height, width)`.
    pub fn new(dims: [usize; 4], ramp: usize) -> Self {
        let [batch, channels, height, width] = dims;
        let plane = height * width;
        Self { dims, ramp, sum: vec![0.0; batch * channels * plane], weight: vec![0.0; plane] }
    }

    /// Adds a tile's values, `(batch, channels, tile's height, tile's width)`.
    pub fn add(&mut self, tile: Tile, part: &Tensor) -> Result<()> {
        let [batch, channels, height, width] = self.dims;
        if part.dims() != [batch, channels, tile.height, tile.width] {
            bail!("a tile of {}×{} came out as {:?}", tile.height, tile.width, part.dims());
        }
        let values = part.values();
        for y in 0..tile.height {
            let down = edge(y, tile.height, self.ramp);
            for x in 0..tile.width {
                let share = down * edge(x, tile.width, self.ramp);
                let to = (tile.top + y) * width + tile.left + x;
                self.weight[to] += share;
                for plane in 0..batch * channels {
                    let from = (plane * tile.height + y) * tile.width + x;
                    self.sum[plane * height * width + to] += share * values[from];
                }
            }
        }
        Ok(())
    }

    /// The whole, once every position was covered.
    pub fn finish(self) -> Result<Tensor> {
        let Self { dims, mut sum, weight, .. } = self;
        for plane in sum.chunks_exact_mut(weight.len().max(1)) {
            for (value, weight) in plane.iter_mut().zip(&weight) {
                *value /= weight;
            }
        }
        Tensor::new(sum, dims)
    }
}

/// A position's weight: rising from the tile's edge over `ramp`.
fn edge(position: usize, size: usize, ramp: usize) -> f32 {
    let distance = position.min(size - 1 - position) + 1;
    (distance as f32 / ramp.max(1) as f32).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_everything_and_overlap() {
        for (side, overlap) in [(1, 0), (4, 1), (8, 3), (96, 24)] {
            let tiling = Tiling::new(side, overlap).expect("tiles");
            for size in
                [1, side - 1, side, side + 1, 2 * side, 3 * side + 5].into_iter().filter(|size| *size > 0)
            {
                let starts = tiling.starts(size);
                assert_eq!((starts.first(), starts.last()), (Some(&0), Some(&size.saturating_sub(side))));
                for pair in starts.windows(2) {
                    assert!(pair[1] > pair[0] && pair[1] + overlap <= pair[0] + side, "{size}: {starts:?}");
                }
            }
        }
        assert!(Tiling::new(8, 8).is_err());
    }

    #[test]
    fn what_is_cut_and_blended_is_what_it_was() {
        let (height, width) = (23, 31);
        let values: Vec<f32> = (0..2 * height * width).map(|index| (index % 17) as f32).collect();
        let whole = Tensor::new(values, [1, 2, height, width]).expect("a tensor");
        let mut blend = Blend::new([1, 2, height, width], 4);
        for tile in Tiling::new(9, 4).expect("tiles").tiles(height, width) {
            let part =
                whole.narrow(2, tile.top, tile.height).and_then(|rows| rows.narrow(3, tile.left, tile.width));
            blend.add(tile, &part.expect("a part")).expect("fits");
        }
        let blended = blend.finish().expect("whole");
        let differences = blended.values().iter().zip(whole.values()).map(|(a, b)| (a - b).abs());
        assert!(differences.fold(0.0, f32::max) < 1e-5);
    }
}
