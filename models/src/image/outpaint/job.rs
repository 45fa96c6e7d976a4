//! What is drawn anew, and where.

use std::ops::Range;

use crate::image::inpaint::{Mask, Prepared, Region};
use crate::image::{Channels, Picture};
use crate::{Error, Result};

/// Inpainting of a whole picture: all three have one size, which is the size that is drawn at, in multiples of 8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What it begins with.
    pub picture: Picture,
    /// Where what is drawn is seen, before it is softened.
    pub mask: Mask,
    /// The request's `mask_blur` with which the mask, and no other, is softened, along rows and columns.
    pub mask_blur: usize,
    /// Where latents are drawn anew, and where masked content is filled in; not softened.
    pub latent_mask: Mask,
}

impl Job {
    /// What image to image draws from, and what finishes it. `fills` says whether masked content begins with the colours around it
    /// (`inpainting_fill` 0, and 2 and 3 as A1111 has them), `soft` whether it is soft inpainting.
    pub fn prepare(&self, fills: bool, keeps_original: bool) -> Result<Prepared> {
        let sigma = self.mask_blur as f64;
        let mask = self.mask.clone().blurred(sigma, sigma)?;
        Prepared::with_masks(&self.picture, mask, &self.latent_mask, fills, keeps_original)
    }
}

/// White but for a rectangle `(left, top, right, bottom)`, all four within it, as far as it is in the picture.
pub(super) fn frame(size: (usize, usize), inside: [i64; 4]) -> Result<Mask> {
    let mut pixels = vec![255; size.0 * size.1];
    let (columns, rows) = within(size, inside);
    for line in pixels.chunks_exact_mut(size.0.max(1)).skip(rows.start).take(rows.len()) {
        line[columns.clone()].fill(0);
    }
    Mask::of(&Picture { width: size.0, height: size.1, channels: Channels::Grey, pixels }, false)
}

/// The columns and rows of a rectangle `(left, top, right, bottom)`, all four within it, that a picture has.
fn within(size: (usize, usize), [left, top, right, bottom]: [i64; 4]) -> (Range<usize>, Range<usize>) {
    let along = |first: i64, last: i64, side: usize| {
        let first = first.clamp(0, side as i64) as usize;
        let after = (last + 1).clamp(0, side as i64) as usize;
        first..after.max(first)
    };
    (along(left, right, size.0), along(top, bottom, size.1))
}

/// An error if a [`frame`] leaves nothing of a picture `(width, height)`.
pub(super) fn check_kept(
    canvas: (usize, usize),
    inside: [i64; 4],
    mask_blur: usize,
    (width, height): (usize, usize),
) -> Result<()> {
    let (columns, rows) = within(canvas, inside);
    if !columns.is_empty() && !rows.is_empty() {
        return Ok(());
    }
    Err(Error::Request(format!(
        "mask_blur: {mask_blur} leaves nothing of a picture of {width}x{height}; give less, or a larger picture"
    )))
}

/// What a region has of the three.
pub(super) fn part(
    picture: &Picture,
    mask: &Mask,
    latent_mask: &Mask,
    mask_blur: usize,
    region: Region,
) -> Result<Job> {
    Ok(Job {
        picture: picture.cropped(region)?,
        mask: mask.cropped(region)?,
        mask_blur,
        latent_mask: latent_mask.cropped(region)?,
    })
}

/// A side as it can be drawn: without what is beyond whole eighths.
pub(super) fn in_eighths(side: usize) -> usize {
    (side / 8 * 8).max(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, pixels: &[u8]) -> Picture {
        let height = pixels.len() / width;
        Picture { width, height, channels: Channels::Grey, pixels: pixels.to_vec() }
    }

    /// The overlay goes by one mask, what is filled in and drawn by the other.
    #[test]
    fn a_job_is_prepared_with_both_masks() {
        let mask = |pixels: &[u8]| Mask::of(&grey(16, pixels), false).expect("a mask");
        let columns =
            |from: usize| (0..128).map(|at| if at % 16 < from { 0 } else { 255 }).collect::<Vec<u8>>();
        let picture = Picture { width: 16, height: 8, channels: Channels::Rgb, pixels: vec![50; 384] };
        let job = Job { picture, mask: mask(&columns(4)), mask_blur: 0, latent_mask: mask(&columns(10)) };
        let prepared = job.prepare(true, true).expect("can be drawn");
        assert_eq!(prepared.mask.as_ref().map(Mask::values), Some(&columns(10)[..]));
        let drawn = Picture { pixels: vec![200; 384], ..job.picture.clone() };
        let finished = prepared.finish(drawn.clone().into_rgb(), None).expect("fits");
        for (at, pixel) in finished.pixels.chunks_exact(3).enumerate() {
            assert_eq!(pixel, [if at % 16 < 4 { 50 } else { 200 }; 3], "{at}");
        }
        // With soft inpainting it is what changed that is seen.
        for (seen, shown) in [(0, 50), (255, 200)] {
            let finished =
                prepared.finish(drawn.clone().into_rgb(), Some(&grey(2, &[seen; 2]))).expect("fits");
            assert_eq!(finished.pixels, [shown; 384]);
        }
        let hard = job.prepare(false, false).expect("can be drawn");
        assert_eq!(hard.picture, job.picture);
        let finished = hard.finish(drawn.into_rgb(), Some(&grey(2, &[0; 2]))).expect("fits");
        assert_eq!(finished.pixels[4 * 3..6 * 3], [200; 6]);
        assert!(Job { mask_blur: 2000, ..job }.prepare(false, false).is_err());
    }
}
