//! A picture drawn anew part by part, each by inpainting with what lies around it: the parts and their masks, as the script "Ultimate SD
//! upscale" has them (Coyote-A/ultimate-upscale-for-automatic1111, `scripts/ultimate-upscale.py`). Nothing is drawn here.

use super::{Channels, Filter, Picture};
use crate::{Error, Result};

/// So many parts a picture may have.
const MOST_PARTS: usize = 4096;
/// Sides of Pillow's gradients.
const GRADIENT: usize = 256;

/// In which order tiles are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedrawOrder {
    /// Row by row.
    Linear,
    /// Those of one colour of a chessboard, then those of the other.
    Chess,
}

/// What is drawn over the seams between tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeamFix {
    /// A band along each, as long as the picture.
    Bands {
        /// Pixels across.
        width: usize,
    },
    /// Tiles that lie half over one and half over the next.
    HalfTile,
    /// These, and those over four at once.
    HalfTileIntersections,
}

/// How a picture is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redraw {
    /// `(width, height)` of the picture.
    pub size: (usize, usize),
    /// The same of a tile.
    pub tile: (usize, usize),
}

/// What is drawn at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedrawPart {
    /// `(width, height)` at which it is drawn.
    pub drawn: (usize, usize),
    /// Pixels around its mask that are drawn with it.
    pub padding: usize,
    shape: Shape,
    /// The mask's first column and row; it may stand out.
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

/// What a mask is within its rectangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    White,
    /// From black to white and back, across rows.
    Rows,
    /// The same across columns.
    Columns,
    /// The same as `Rows` and `Columns`, brought from a gradient of one size to the picture's.
    BandOfRows,
    BandOfColumns,
    /// White in the middle, darker away from it.
    Round,
}

impl Redraw {
    /// Tiles across and down.
    pub fn counts(&self) -> (usize, usize) {
        (self.size.0.div_ceil(self.tile.0.max(1)), self.size.1.div_ceil(self.tile.1.max(1)))
    }

    /// Which of the tiles one of them is, counted row by row.
    pub fn place(&self, tile: &RedrawPart) -> usize {
        let (columns, _) = self.counts();
        tile.top / self.tile.1.max(1) * columns + tile.left / self.tile.0.max(1)
    }

    /// The tiles, in their order.
    pub fn tiles(&self, order: RedrawOrder, padding: usize) -> Result<Vec<RedrawPart>> {
        let (columns, rows) = self.counts();
        check(columns.saturating_mul(rows))?;
        let drawn = |side: usize| (side + padding).next_multiple_of(64);
        let part = |x: usize, y: usize| RedrawPart {
            drawn: (drawn(self.tile.0), drawn(self.tile.1)),
            padding,
            shape: Shape::White,
            left: x * self.tile.0,
            top: y * self.tile.1,
            // As Pillow draws a rectangle: with its last column and row.
            width: self.tile.0 + 1,
            height: self.tile.1 + 1,
        };
        let all = (0..rows).flat_map(|y| (0..columns).map(move |x| (x, y)));
        let of = |is_wanted: &dyn Fn(usize, usize) -> bool| {
            all.clone().filter(|(x, y)| is_wanted(*x, *y)).map(|(x, y)| part(x, y)).collect::<Vec<_>>()
        };
        Ok(match order {
            RedrawOrder::Linear => of(&|_, _| true),
            RedrawOrder::Chess => {
                [of(&|x, y| (x + y).is_multiple_of(2)), of(&|x, y| !(x + y).is_multiple_of(2))].concat()
            }
        })
    }

    /// What is drawn over their seams, in its order.
    pub fn seams(&self, fix: SeamFix, padding: usize) -> Result<Vec<RedrawPart>> {
        let (columns, rows) = self.counts();
        check(3 * columns.saturating_mul(rows))?;
        let (wide, high) = self.tile;
        let of_tile = |shape: Shape, padding: usize, left: usize, top: usize| RedrawPart {
            drawn: self.tile,
            padding,
            shape,
            left,
            top,
            width: wide,
            height: high,
        };
        if let SeamFix::Bands { width } = fix {
            let across = (width + 2 * padding).next_multiple_of(8);
            let middle = |at: usize| at.saturating_sub(width / 2);
            let band = |x: usize| RedrawPart {
                drawn: (across, self.size.1.next_multiple_of(8)),
                padding,
                shape: Shape::BandOfColumns,
                left: middle(x * wide),
                top: 0,
                width,
                height: self.size.1,
            };
            let along = |y: usize| RedrawPart {
                drawn: (self.size.0.next_multiple_of(8), across),
                padding,
                shape: Shape::BandOfRows,
                left: 0,
                top: middle(y * high),
                width: self.size.0,
                height: width,
            };
            return Ok((1..columns).map(band).chain((1..rows).map(along)).collect());
        }
        let pairs =
            |columns: usize, rows: usize| (0..rows).flat_map(move |y| (0..columns).map(move |x| (x, y)));
        let over_rows = pairs(columns, rows.saturating_sub(1))
            .map(|(x, y)| of_tile(Shape::Rows, padding, x * wide, y * high + high / 2));
        let over_columns = pairs(columns.saturating_sub(1), rows)
            .map(|(x, y)| of_tile(Shape::Columns, padding, x * wide + wide / 2, y * high));
        let mut parts: Vec<_> = over_rows.chain(over_columns).collect();
        if fix == SeamFix::HalfTileIntersections {
            let corners = pairs(columns.saturating_sub(1), rows.saturating_sub(1));
            let over = |(x, y)| of_tile(Shape::Round, 0, x * wide + wide / 2, y * high + high / 2);
            parts.extend(corners.map(over));
        }
        Ok(parts)
    }
}

fn check(parts: usize) -> Result<()> {
    if parts <= MOST_PARTS {
        return Ok(());
    }
    Err(Error::Request(format!(
        "tiles: {parts} parts are more than {MOST_PARTS}; give a larger width or height"
    )))
}

impl RedrawPart {
    /// Its mask over a picture of this size, grey.
    pub fn mask(&self, (width, height): (usize, usize)) -> Result<Picture> {
        let own = self.shape()?;
        let mut mask = Picture { width, height, channels: Channels::Grey, pixels: vec![0; width * height] };
        let columns = self.width.min(width.saturating_sub(self.left));
        let rows = mask.pixels.chunks_exact_mut(width.max(1)).skip(self.top);
        for (to, from) in rows.zip(own.pixels.chunks_exact(self.width.max(1))) {
            if let (Some(to), Some(from)) = (to.get_mut(self.left..self.left + columns), from.get(..columns))
            {
                to.copy_from_slice(from);
            }
        }
        Ok(mask)
    }

    fn shape(&self) -> Result<Picture> {
        let (width, height) = (self.width, self.height);
        let grey = |pixels: Vec<u8>| Picture { width, height, channels: Channels::Grey, pixels };
        let by_rows = |profile: &[u8]| profile.iter().flat_map(|value| vec![*value; width]).collect();
        let by_columns = |profile: &[u8]| profile.repeat(height);
        Ok(match self.shape {
            Shape::White => grey(vec![255; width * height]),
            Shape::Rows => grey(by_rows(&there_and_back(height)?)),
            Shape::Columns => grey(by_columns(&there_and_back(width)?)),
            Shape::BandOfRows => grey(by_rows(&resized(&there_and_back(GRADIENT)?, height)?)),
            Shape::BandOfColumns => grey(by_columns(&resized(&there_and_back(GRADIENT)?, width)?)),
            Shape::Round => {
                let away = |at: usize| {
                    let side = |at: usize| (at as f64 - GRADIENT as f64 / 2.0).powi(2);
                    255 - ((side(at % GRADIENT) + side(at / GRADIENT)) * 2.0).sqrt().min(255.0) as u8
                };
                // Inverted after it is resized, as there.
                let pixels = (0..GRADIENT * GRADIENT).map(|at| 255 - away(at)).collect();
                let round = Picture { width: GRADIENT, height: GRADIENT, channels: Channels::Grey, pixels };
                let round = round.resized(width, height, Filter::Bicubic)?;
                grey(round.pixels.iter().map(|value| 255 - value).collect())
            }
        })
    }
}

/// Half of the places from black to white, the others back; one that is left over is black.
fn there_and_back(places: usize) -> Result<Vec<u8>> {
    let half = places / 2;
    let up: Vec<u8> = (0..GRADIENT).map(|at| at as u8).collect();
    let down: Vec<u8> = up.iter().rev().copied().collect();
    let mut profile = vec![0; places];
    if half > 0 {
        let both = [resized(&up, half)?, resized(&down, half)?].concat();
        profile.iter_mut().zip(both).for_each(|(place, value)| *place = value);
    }
    Ok(profile)
}

fn resized(profile: &[u8], places: usize) -> Result<Vec<u8>> {
    let line =
        Picture { width: profile.len(), height: 1, channels: Channels::Grey, pixels: profile.to_vec() };
    Ok(line.resized(places, 1, Filter::Bicubic)?.pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Redraw = Redraw { size: (160, 128), tile: (64, 64) };

    fn places(parts: &[RedrawPart]) -> Vec<(usize, usize)> {
        parts.iter().map(|part| (part.left, part.top)).collect()
    }

    #[test]
    fn tiles_and_seams_come_in_their_order() {
        let tiles = SMALL.tiles(RedrawOrder::Linear, 16).expect("tiles");
        assert_eq!(places(&tiles), [(0, 0), (64, 0), (128, 0), (0, 64), (64, 64), (128, 64)]);
        assert!(tiles.iter().all(|part| part.drawn == (128, 128) && part.padding == 16));
        let chess = SMALL.tiles(RedrawOrder::Chess, 0).expect("tiles");
        assert_eq!(places(&chess), [(0, 0), (128, 0), (64, 64), (64, 0), (0, 64), (128, 64)]);
        assert!(chess.iter().all(|part| part.drawn == (64, 64)));
        let bands = SMALL.seams(SeamFix::Bands { width: 20 }, 8).expect("bands");
        assert_eq!(places(&bands), [(54, 0), (118, 0), (0, 54)]);
        assert_eq!(
            bands.iter().map(|part| part.drawn).collect::<Vec<_>>(),
            [(40, 128), (40, 128), (160, 40)]
        );
        let half = SMALL.seams(SeamFix::HalfTile, 8).expect("tiles");
        assert_eq!(places(&half), [(0, 32), (64, 32), (128, 32), (32, 0), (96, 0), (32, 64), (96, 64)]);
        let all = SMALL.seams(SeamFix::HalfTileIntersections, 8).expect("tiles");
        assert_eq!(places(&all[7..]), [(32, 32), (96, 32)]);
        assert!(all[7..].iter().all(|part| part.padding == 0 && part.drawn == (64, 64)));
        let many = Redraw { size: (8192, 8192), tile: (64, 64) };
        assert!(many.tiles(RedrawOrder::Linear, 0).is_err());
    }
}
