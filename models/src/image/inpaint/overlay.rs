//! The original laid over what was drawn, so that outside of the mask it is the original (`modules/processing.py:
//! apply_overlay`).

use super::{Mask, Region};
use crate::image::{Channels, Fit, Picture, alpha};
use crate::{Error, Result};

/// A picture with holes where the mask is: RGBA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay(Picture);

impl Overlay {
    /// The original without what is drawn anew. `mask` has the original's size and says how much is; opacity that the
    /// original has is dropped (see [`Picture::over_colour`]).
    pub fn new(original: &Picture, mask: &Mask) -> Result<Self> {
        let original = original.over_colour([255; 3])?;
        if (original.width, original.height) != mask.size() {
            let (width, height) = mask.size();
            return Err(Error::Request(format!(
                "mask: {width}x{height} does not lie over a picture of {}x{}; give it the same size",
                original.width, original.height
            )));
        }
        let pixels = original.pixels.chunks_exact(3).zip(mask.values());
        let mut pixels: Vec<u8> = pixels
            .flat_map(|(pixel, drawn)| {
                [pixel[0], pixel[1], pixel[2], 255].map(|value| alpha::mix(value, 0, *drawn))
            })
            .collect();
        alpha::divide(&mut pixels);
        Ok(Self(Picture { channels: Channels::Rgba, pixels, ..original }))
    }

    /// As an RGBA picture.
    pub fn picture(&self) -> &Picture {
        &self.0
    }

    /// The overlay over what was drawn, RGB, of the overlay's size. With a `region`, what was drawn is brought to its size
    /// and put there first (`uncrop`), and what neither covers is black; without, it must have the overlay's size.
    pub fn over(&self, drawn: &Picture, region: Option<Region>) -> Result<Picture> {
        let drawn = match drawn.channels {
            Channels::Rgb => drawn.clone(),
            Channels::Grey | Channels::Rgba => Picture::from(drawn.clone().into_rgb()),
        };
        let (width, height) = (self.0.width, self.0.height);
        let below = match region {
            Some(region) => {
                // Says where a region is that has no pixels or stands out.
                self.0.cropped(region)?;
                let fitted = drawn.fitted(Fit::Crop, region.width(), region.height())?;
                let mut whole =
                    Picture { width, height, channels: Channels::Rgba, pixels: vec![0; width * height * 4] };
                whole.paste(&opaque(&fitted), region.left, region.top);
                whole
            }
            None if (drawn.width, drawn.height) == (width, height) => opaque(&drawn),
            None => {
                return Err(Error::Request(format!(
                    "picture: {}x{} does not lie under an overlay of {width}x{height}; give it the same size",
                    drawn.width, drawn.height
                )));
            }
        };
        let four = |pixel: &[u8]| [pixel[0], pixel[1], pixel[2], pixel[3]];
        let both = below.pixels.chunks_exact(4).zip(self.0.pixels.chunks_exact(4));
        let pixels = both
            .flat_map(|(below, above)| {
                let [red, green, blue, _] = alpha::over(four(below), four(above));
                [red, green, blue]
            })
            .collect();
        Ok(Picture { width, height, channels: Channels::Rgb, pixels })
    }
}

/// RGB as RGBA.
fn opaque(picture: &Picture) -> Picture {
    let pixels =
        picture.pixels.chunks_exact(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect();
    Picture { channels: Channels::Rgba, pixels, ..*picture }
}
