//! From pictures as they are given to what is drawn from, and from what was drawn to what is given back, in the order of A1111
//! 1.10.1 (`modules/processing.py`: `StableDiffusionProcessingImg2Img.init`, and the end of `process_images_inner`).

use super::{Mask, Overlay, Region, fill_from_surroundings, soft_mask};
use crate::image::colour::ColourCorrection;
use crate::image::{Fit, Picture, RgbImage, picture_to_tensor};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// How pictures come to the size that is drawn at, and what is drawn of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// `(width, height)` that is drawn at.
    pub size: (usize, usize),
    /// How a picture of another size comes to it; `None` for by its latents, once it is encoded at its own (`resize_mode` 3).
    pub fit: Option<Fit>,
    /// What is behind what is not opaque.
    pub background: [u8; 3],
    /// Whether what is drawn gets the colours of what it was drawn from.
    pub corrects_colour: bool,
    /// How masks are used, if there are any.
    pub inpaint: Inpaint,
}

/// How a mask is used. Names are A1111's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a field of the request")]
pub struct Inpaint {
    /// Whether what is not painted is drawn (`inpainting_mask_invert`).
    pub inverted: bool,
    /// Whether the mask has nothing between all and nothing, where it is opacity, and on latents (`mask_round`).
    pub round: bool,
    /// Sigmas in pixels across and down (`mask_blur_x`, `mask_blur_y`).
    pub blur: (f64, f64),
    /// Whether what is drawn anew begins with the colours around it, not with what it has (`inpainting_fill` 0; A1111 does so with
    /// 2 and 3 too).
    pub fills: bool,
    /// Draws only the box around the mask, with so many pixels around it (`inpaint_full_res`, `inpaint_full_res_padding`).
    pub only_masked: Option<usize>,
    /// Whether the original is kept: for soft inpainting, after which what hardly changed is it again, and for masks that are
    /// [exchanged](Prepared::exchanged).
    pub keeps_original: bool,
}

/// A mask that was brought to the sizes where it is needed.
struct Ready {
    /// At the size that is drawn at.
    drawn: Mask,
    /// Where the original is not laid over the result, at the result's size.
    overlay: Mask,
    region: Option<Region>,
}

/// A picture that can be drawn from.
#[derive(Clone)]
pub struct Prepared {
    /// RGB at the size that is drawn at, or, with `resize_mode` 3, at its own without what is beyond whole eighths.
    pub picture: Picture,
    /// What is drawn of it, at the size that is drawn at. All of it if `None`.
    pub mask: Option<Mask>,
    overlay: Option<Overlay>,
    region: Option<Region>,
    correction: Option<ColourCorrection>,
    /// What the overlay is of, if that is kept.
    original: Option<Picture>,
    /// What `picture` was before it was filled in where it is drawn, if it was.
    unfilled: Option<Picture>,
}

impl Preparation {
    /// Makes a picture ready, with what is drawn of it if that is not all. A mask of which nothing is left with `only_masked` is
    /// as none: see [`Prepared::mask`].
    pub fn prepare(&self, picture: &Picture, mask: Option<&Picture>) -> Result<Prepared> {
        let opaque = picture.over_colour(self.background)?;
        let ready = match mask {
            Some(mask) => self.ready(mask, &opaque)?,
            None => None,
        };
        let (width, height) = self.size;
        let region = ready.as_ref().and_then(|ready| ready.region);
        let (mut fitted, overlaid) = match (region, self.fit) {
            (Some(region), _) => (opaque.cropped(region)?.fitted(Fit::Fill, width, height)?, Some(opaque)),
            (None, Some(fit)) => (opaque.fitted(fit, width, height)?, None),
            // A1111 lays what has its own size over what has another, and fails.
            (None, None) if ready.is_some() => (opaque.fitted(Fit::Stretch, width, height)?, None),
            (None, None) => (in_eighths(&opaque)?, None),
        };
        let original = overlaid.as_ref().unwrap_or(&fitted);
        let overlay = ready.as_ref().map(|ready| Overlay::new(original, &ready.overlay)).transpose()?;
        let original = (self.inpaint.keeps_original && overlay.is_some()).then(|| original.clone());
        let mut unfilled = None;
        if let Some(ready) = ready.as_ref().filter(|_| self.inpaint.fills) {
            let filled = fill_from_surroundings(&fitted, &ready.drawn)?;
            unfilled = Some(std::mem::replace(&mut fitted, filled));
        }
        let correction = self.corrects_colour.then(|| ColourCorrection::of(&fitted)).transpose()?;
        let mask = ready.map(|ready| ready.drawn);
        Ok(Prepared { picture: fitted, mask, overlay, region, correction, original, unfilled })
    }

    /// `None` if only what is masked is drawn, and nothing is.
    fn ready(&self, mask: &Picture, picture: &Picture) -> Result<Option<Ready>> {
        let Inpaint { inverted, round, blur, only_masked, .. } = self.inpaint;
        let mut mask = Mask::of(mask, round)?;
        if inverted {
            mask = mask.inverted();
        }
        let (width, height) = self.size;
        let Some(padding) = only_masked else {
            let drawn =
                mask.blurred(blur.0, blur.1)?.fitted(self.fit.unwrap_or(Fit::Stretch), width, height)?;
            return Ok(Some(Ready { overlay: drawn.clone().doubled(), drawn, region: None }));
        };
        let size = (picture.width, picture.height);
        if mask.size() != size {
            mask = mask.fitted(Fit::Stretch, size.0, size.1)?;
        }
        let overlay = mask.blurred(blur.0, blur.1)?;
        let Some(region) = overlay.region(padding) else { return Ok(None) };
        let region = region.expanded(self.size, size);
        let drawn = overlay.cropped(region)?.fitted(Fit::Fill, width, height)?;
        Ok(Some(Ready { drawn, overlay, region: Some(region) }))
    }
}

impl Prepared {
    /// The same with another picture's colours.
    #[must_use]
    pub fn corrected_as(self, picture: &ColourCorrection) -> Self {
        Self { correction: Some(picture.clone()), ..self }
    }

    /// The same where somebody puts another `picture` of the same size in the place of the one that is encoded, or another `mask`
    /// of the size that is drawn at in that of what is drawn. What lies around what is drawn stays the user's picture, and so do
    /// its colours; it is seen where the new mask is not. An error if there was a mask and the original was not kept.
    pub fn exchanged(mut self, picture: Option<Picture>, mask: Option<Mask>) -> Result<Self> {
        if let Some(mask) = mask {
            let original = match (&self.original, &self.overlay) {
                (Some(original), _) => original.clone(),
                (None, None) => self.picture.clone(),
                (None, Some(_)) => {
                    return Err(Error::Request("mask: the picture that it was of is not kept".to_owned()));
                }
            };
            let over = match self.region {
                None => mask.clone().doubled(),
                Some(region) => {
                    let part = mask.picture().fitted(Fit::Crop, region.width(), region.height())?;
                    let (width, height) = (original.width, original.height);
                    let mut whole = Picture { width, height, pixels: vec![0; width * height], ..part };
                    whole.paste(&part, region.left, region.top);
                    Mask::of(&whole, false)?
                }
            };
            self.overlay = Some(Overlay::new(&original, &over)?);
            self.mask = Some(mask);
        }
        if let Some(picture) = picture {
            self.picture = picture;
        }
        Ok(self)
    }

    /// The picture as it was before it was filled in where it is drawn, if it was.
    pub fn unfilled(&self) -> Option<&Picture> {
        self.unfilled.as_ref()
    }

    /// Where in the user's picture, and of which size that is, if only a part of it is drawn.
    pub fn part(&self) -> Option<(Region, (usize, usize))> {
        let overlay = self.overlay.as_ref().map(Overlay::picture)?;
        self.region.map(|region| (region, (overlay.width, overlay.height)))
    }

    /// RGB at the size that is drawn at, with two masks of that size: where the overlay is not, once it was doubled, and where
    /// latents are drawn, which the picture is filled in by if it `fills`. A1111's `image_mask`, softened, and `latent_mask`.
    pub(in crate::image) fn with_masks(
        picture: &Picture,
        mask: Mask,
        latent_mask: &Mask,
        fills: bool,
        keeps_original: bool,
    ) -> Result<Self> {
        let overlay = Overlay::new(picture, &mask.doubled())?;
        let filled = if fills { fill_from_surroundings(picture, latent_mask)? } else { picture.clone() };
        Ok(Self {
            picture: filled,
            mask: Some(latent_mask.clone()),
            overlay: Some(overlay),
            region: None,
            correction: None,
            original: keeps_original.then(|| picture.clone()),
            unfilled: fills.then(|| picture.clone()),
        })
    }

    /// The picture as networks take it: `(1, 3, height, width)` in [−1, 1].
    pub fn tensor(&self) -> Result<Tensor> {
        picture_to_tensor(&self.picture)
    }

    /// What is given back of what was drawn: colours set right, and the original where it is not drawn anew. With soft inpainting
    /// `seen` says how much of it is seen ([`crate::pipeline::SoftInpainting::seen`]).
    pub fn finish(&self, drawn: RgbImage, seen: Option<&Picture>) -> Result<RgbImage> {
        if self.correction.is_none() && self.overlay.is_none() {
            return Ok(drawn);
        }
        let mut picture = Picture::from(drawn);
        let size = (picture.width, picture.height);
        if let Some(correction) = &self.correction {
            picture = correction.apply(&picture)?;
        }
        if let (Some(original), Some(seen)) = (&self.original, seen) {
            let place = self.region.map(|region| (region, (original.width, original.height)));
            let overlay = Overlay::new(original, &soft_mask(seen, size, place)?)?;
            picture = overlay.over(&picture, self.region)?;
        } else if let Some(overlay) = &self.overlay {
            picture = overlay.over(&picture, self.region)?;
        }
        Ok(picture.into_rgb())
    }

    /// `(width, height)` of what [`finish`](Self::finish) gives of what is drawn at a size.
    pub fn finished_size(&self, drawn: (usize, usize)) -> (usize, usize) {
        let overlay = self.overlay.as_ref().map(Overlay::picture);
        overlay.map_or(drawn, |overlay| (overlay.width, overlay.height))
    }
}

/// Without the columns and rows beyond whole eighths, of which there are no latents.
fn in_eighths(picture: &Picture) -> Result<Picture> {
    let (right, bottom) = (picture.width / 8 * 8, picture.height / 8 * 8);
    if right == 0 || bottom == 0 {
        let Picture { width, height, .. } = picture;
        return Err(Error::Request(format!(
            "picture: {width}x{height} has no latents of its own; give 8 pixels or more, or another resize_mode than 3"
        )));
    }
    picture.cropped(Region { left: 0, top: 0, right, bottom })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Channels;

    fn plain(width: usize, height: usize, value: u8, channels: Channels) -> Picture {
        Picture { width, height, channels, pixels: vec![value; width * height * channels.count()] }
    }

    /// What is seen goes by what changed, not by the mask, and only within what was drawn.
    #[test]
    fn soft_inpainting_shows_what_changed_of_the_region() {
        let inpaint = Inpaint { only_masked: Some(0), keeps_original: true, ..Inpaint::default() };
        let preparation = Preparation {
            size: (64, 64),
            fit: Some(Fit::Stretch),
            background: [255; 3],
            corrects_colour: false,
            inpaint,
        };
        let mut mask = plain(96, 32, 0, Channels::Grey);
        mask.paste(&plain(32, 32, 99, Channels::Grey), 40, 0);
        let original = plain(96, 32, 7, Channels::Rgb);
        let prepared = preparation.prepare(&original, Some(&mask)).expect("prepares");
        let drawn = || plain(64, 64, 200, Channels::Rgb).into_rgb();
        let seen = |value| Some(plain(8, 8, value, Channels::Grey));
        let finished = prepared.finish(drawn(), seen(0).as_ref()).expect("finishes");
        assert_eq!(Picture::from(finished), original);
        let finished = prepared.finish(drawn(), seen(255).as_ref()).expect("finishes");
        for (at, pixel) in finished.pixels.chunks_exact(3).enumerate() {
            assert_eq!(pixel, [if (40..72).contains(&(at % 96)) { 200 } else { 7 }; 3], "{at}");
        }
        // Without it the mask alone counts.
        let hard = Preparation { inpaint: Inpaint { keeps_original: false, ..inpaint }, ..preparation };
        let hard = hard.prepare(&original, Some(&mask)).expect("prepares");
        let told = hard.finish(drawn(), seen(0).as_ref()).expect("finishes");
        assert_eq!(told, hard.finish(drawn(), None).expect("finishes"));
        assert_ne!(Picture::from(told), original);
    }
}
