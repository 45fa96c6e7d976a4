//! The mask that soft inpainting lays the original over the result with (`extensions-builtin/soft-inpainting` of A1111 1.10.1:
//! `apply_adaptive_masks`).

use super::{Mask, Region};
use crate::image::limits::check_sides;
use crate::image::{Channels, Fit, Picture, box_blur};
use crate::{Error, Result};

/// What takes the steps of a picture away that was made larger.
const RADIUS: f32 = 4.0;

/// From how much is seen of what was drawn, grey and of the latents' size, to the mask for [`super::Overlay::new`]. `drawn` is
/// the `(width, height)` that was drawn at; with "only masked" `place` is the region that this is of and the original's size.
/// The overlay is of the original as it is, fitted to the size that was drawn at unless there is a `place`.
pub fn soft_mask(
    seen: &Picture,
    drawn: (usize, usize),
    place: Option<(Region, (usize, usize))>,
) -> Result<Mask> {
    if seen.channels != Channels::Grey {
        let text = format!("mask: {:?} does not say how much is seen; give grey", seen.channels);
        return Err(Error::Request(text));
    }
    let mut whole = seen.fitted(Fit::Fill, drawn.0, drawn.1)?;
    box_blur::gaussian::<1>(&mut whole.pixels, whole.width, RADIUS);
    if let Some((region, (width, height))) = place {
        let part = whole.fitted(Fit::Crop, region.width(), region.height())?;
        check_sides("picture", width, height)?;
        whole = Picture { width, height, channels: Channels::Grey, pixels: vec![0; width * height] };
        // Says where a region is that stands out.
        whole.cropped(region)?;
        whole.paste(&part, region.left, region.top);
    }
    Mask::of(&whole, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_told() {
        let seen = Picture { width: 2, height: 2, channels: Channels::Grey, pixels: vec![255; 4] };
        let region = Region { left: 0, top: 0, right: 20, bottom: 16 };
        let refused = soft_mask(&seen, (16, 16), Some((region, (16, 16)))).expect_err("refused").to_string();
        assert!(refused.contains("columns 0 to 20"), "{refused}");
        assert!(soft_mask(&seen, (16, 16), Some((region, (0, 16)))).is_err());
        assert!(soft_mask(&seen, (0, 16), None).is_err());
        let colours = Picture { channels: Channels::Rgb, pixels: vec![1; 12], ..seen };
        let refused = soft_mask(&colours, (16, 16), None).expect_err("refused").to_string();
        assert!(refused.contains("Rgb") && refused.contains("give grey"), "{refused}");
    }
}
