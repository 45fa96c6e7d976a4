//! What is drawn anew, and where.

use crate::image::inpaint::{Mask, Region};
use crate::image::{Channels, Picture};
use crate::{Error, Result};

/// Inpainting of a whole picture: all three have one size, which is the size that is drawn at.
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

/// White but for a rectangle `(left, top, right, bottom)`, all four within it, as far as it is in the picture.
pub(super) fn frame(size: (usize, usize), inside: [i64; 4]) -> Result<Mask> {
    let [left, top, right, bottom] = inside;
    let mut pixels = vec![255; size.0 * size.1];
    let within = |first: i64, last: i64, side: usize| {
        let first = first.clamp(0, side as i64) as usize;
        let after = (last + 1).clamp(0, side as i64) as usize;
        first..after.max(first)
    };
    let (columns, rows) = (within(left, right, size.0), within(top, bottom, size.1));
    for line in pixels.chunks_exact_mut(size.0.max(1)).skip(rows.start).take(rows.len()) {
        line[columns.clone()].fill(0);
    }
    Mask::of(&Picture { width: size.0, height: size.1, channels: Channels::Grey, pixels }, false)
}

/// An error if a mask leaves nothing of a picture `(width, height)`.
pub(super) fn check_kept(mask: &Mask, mask_blur: usize, size: (usize, usize)) -> Result<()> {
    if mask.values().contains(&0) {
        return Ok(());
    }
    let (width, height) = size;
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
