//! "Poor man's outpainting" (`scripts/poor_mans_outpainting.py` of A1111 1.10.1): black around the picture, and what of it is
//! drawn, in tiles.

use super::job::{Job, check_kept, frame, in_eighths, part};
use super::margins::{Margins, rounded_up};
use crate::image::grid::Grid;
use crate::image::inpaint::{LARGEST_BLUR, Mask, Region};
use crate::image::{Channels, Picture};
use crate::{Error, Result};

/// A picture with room around it, and the tiles that have to be drawn.
#[derive(Clone, Debug)]
pub struct PoorMans {
    canvas: Picture,
    mask: Mask,
    latent_mask: Mask,
    mask_blur: usize,
    grid: Grid,
    /// All tiles, and whether they are drawn.
    tiles: Vec<(Region, bool)>,
    /// What of the canvas was asked for.
    wanted: Region,
}

impl PoorMans {
    /// Room for `margins` (A1111's default is 128 on each side, from 8 to 256), rounded up to multiples of 64. `mask_blur` is the
    /// method's own (its default is 4): the mask reaches two times as far into the picture. `tile` is the request's `(width,
    /// height)`, without what is beyond whole eighths. Opacity is dropped.
    pub fn new(picture: &Picture, margins: Margins, mask_blur: usize, tile: (usize, usize)) -> Result<Self> {
        picture.check()?;
        let plan = Plan::new((picture.width, picture.height), margins, mask_blur, tile)?;
        let (size, margins) = (plan.size, plan.margins);
        let mut canvas = Picture {
            width: size.0,
            height: size.1,
            channels: Channels::Rgb,
            pixels: vec![0; size.0 * size.1 * 3],
        };
        canvas.paste(&Picture::from(picture.clone().into_rgb()), margins.left, margins.up);
        let mask = frame(size, plan.kept(mask_blur * 2))?;
        let latent_mask = frame(size, plan.kept(mask_blur / 2))?;
        let Plan { grid, tiles, wanted, .. } = plan;
        Ok(Self { canvas, mask, latent_mask, mask_blur: mask_blur * 2, grid, tiles, wanted })
    }

    /// The [`regions`](Self::regions) of a picture `(width, height)`, before it is there; an error if it cannot be continued so.
    pub fn planned(
        size: (usize, usize),
        margins: Margins,
        mask_blur: usize,
        tile: (usize, usize),
    ) -> Result<Vec<Region>> {
        let tiles = Plan::new(size, margins, mask_blur, tile)?.tiles;
        Ok(tiles.into_iter().filter(|(_, drawn)| *drawn).map(|(region, _)| region).collect())
    }

    /// The picture with black around it, RGB; both sides are multiples of 64.
    pub fn canvas(&self) -> &Picture {
        &self.canvas
    }

    /// Where what is drawn is seen: around the picture and some way into it.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// Where latents are drawn anew: less far into it.
    pub fn latent_mask(&self) -> &Mask {
        &self.latent_mask
    }

    /// Where on the canvas there is something to draw, in the order in which A1111 does, each with a seed of one more than the
    /// one before.
    pub fn regions(&self) -> impl Iterator<Item = Region> {
        self.tiles.iter().filter(|(_, drawn)| *drawn).map(|(region, _)| *region)
    }

    /// What is drawn for one of [`Self::regions`], with the request's `inpainting_fill`, of which A1111's default is "fill".
    pub fn job(&self, region: Region) -> Result<Job> {
        part(&self.canvas, &self.mask, &self.latent_mask, self.mask_blur, region)
    }

    /// The continued picture, RGB, from what was drawn for each of [`Self::regions`]. Where only the other side was continued, and
    /// this is no multiple of 64, A1111 leaves a black stripe, which is cut off here.
    pub fn combined(&self, drawn: &[Picture]) -> Result<Picture> {
        let needed = self.regions().count();
        if drawn.len() != needed {
            let given = drawn.len();
            return Err(Error::Request(format!("tiles: {given} are drawn, {needed} are needed")));
        }
        let mut drawn = drawn.iter();
        let tiles: Vec<Picture> = self
            .tiles
            .iter()
            .map(|(region, is_drawn)| match is_drawn.then(|| drawn.next()).flatten() {
                Some(drawn) => Ok(drawn.clone()),
                None => self.canvas.cropped(*region),
            })
            .collect::<Result<_>>()?;
        self.grid.combined(&tiles)?.cropped(self.wanted)
    }
}

/// What can be told before there is the picture.
struct Plan {
    /// Of the canvas.
    size: (usize, usize),
    /// As they are drawn.
    margins: Margins,
    grid: Grid,
    tiles: Vec<(Region, bool)>,
    wanted: Region,
}

impl Plan {
    fn new(
        picture: (usize, usize),
        margins: Margins,
        mask_blur: usize,
        tile: (usize, usize),
    ) -> Result<Self> {
        if 2 * mask_blur as u128 > LARGEST_BLUR as u128 {
            return Err(Error::Request(format!(
                "mask_blur: {mask_blur} is no blur; give 0 to {}",
                LARGEST_BLUR / 2.0
            )));
        }
        let overlap = margins.widest();
        let margins = margins.rounded(picture.0, picture.1)?;
        let Margins { left, right, up, down } = margins;
        let (wide, high) = (picture.0 + left + right, picture.1 + up + down);
        let size = (rounded_up(wide), rounded_up(high));
        let grid = Grid::new(size, (in_eighths(tile.0), in_eighths(tile.1)), overlap)?;
        let is_kept = |region: &Region| {
            region.left >= left
                && region.right <= size.0 - right
                && region.top >= up
                && region.bottom <= size.1 - down
        };
        let tiles = grid.regions().map(|region| (region, !is_kept(&region))).collect();
        let wanted = Region { left: 0, top: 0, right: wide, bottom: high };
        let plan = Self { size, margins, grid, tiles, wanted };
        check_kept(size, plan.kept(mask_blur * 2), mask_blur, picture)?;
        Ok(plan)
    }

    /// What remains, as [`frame`] takes it, where what is drawn reaches so far into the picture.
    fn kept(&self, reach: usize) -> [i64; 4] {
        let Margins { left, right, up, down } = self.margins;
        let before = |margin: usize| if margin > 0 { margin + reach } else { 0 } as i64;
        let (width, height) = (self.size.0 as i64, self.size.1 as i64);
        [before(left), before(up), width - before(right), height - before(down)]
    }
}
