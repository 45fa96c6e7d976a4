//! `setup_color_correction` and `apply_color_correction` of A1111's `modules/processing.py`.

use super::{histogram, lab, luminosity};
use crate::Result;
use crate::image::Picture;

/// How L, a and b are distributed in the picture that one begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColourCorrection([[u64; 256]; 3]);

impl ColourCorrection {
    /// Of a picture whose opacity has been dealt with ([`Picture::over_colour`]).
    pub fn of(picture: &Picture) -> Result<Self> {
        picture.check()?;
        Ok(Self(counts(&in_lab(&picture.clone().into_rgb().pixels))))
    }

    /// RGB: the colours of what was drawn, distributed as in the picture that one began with; the lightness stays. Any size.
    pub fn apply(&self, drawn: &Picture) -> Result<Picture> {
        drawn.check()?;
        let mut corrected = drawn.clone().into_rgb();
        let lab = in_lab(&corrected.pixels);
        let own = counts(&lab);
        let tables: [[u8; 256]; 3] =
            std::array::from_fn(|part| histogram::matched(&own[part], &self.0[part]));
        for (pixel, lab) in corrected.pixels.chunks_exact_mut(3).zip(&lab) {
            let matched = std::array::from_fn(|part| tables[part][usize::from(lab[part])]);
            let made = luminosity::luminosity(lab::to_rgb(matched), [pixel[0], pixel[1], pixel[2]]);
            pixel.copy_from_slice(&made);
        }
        Ok(Picture::from(corrected))
    }
}

fn in_lab(rgb: &[u8]) -> Vec<[u8; 3]> {
    rgb.chunks_exact(3).map(|pixel| lab::from_rgb([pixel[0], pixel[1], pixel[2]])).collect()
}

fn counts(lab: &[[u8; 3]]) -> [[u64; 256]; 3] {
    std::array::from_fn(|part| histogram::counts(lab.iter().map(|pixel| pixel[part])))
}
