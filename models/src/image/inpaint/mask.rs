//! What is drawn anew: 255 here, 0 not, and as much as it says between (`modules/processing.py` of A1111 1.10.1).

use super::Region;
use super::gaussian::{self, Kernel};
use crate::image::{Channels, Filter, Fit, Picture};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The widest blur that a mask is given.
pub const LARGEST_BLUR: f64 = 1024.0;

/// A grey picture that says where, within the sizes that can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask(Picture);

impl Mask {
    /// By opacity where not all is opaque, else by brightness (`create_binary_mask`). `round` is the request's `mask_round`:
    /// opacity above 128 counts in full, and no other. Brightness is taken as it is. Of grey with opacity it is the opacity too,
    /// where A1111 takes the brightness: such a picture is RGBA once it is decoded.
    pub fn of(picture: &Picture, round: bool) -> Result<Self> {
        picture.check()?;
        let by_opacity = picture.alpha().is_some_and(|alpha| alpha.iter().any(|alpha| *alpha < 255));
        let mut pixels = picture.mask();
        if by_opacity && round {
            for value in &mut pixels {
                *value = if *value > 128 { 255 } else { 0 };
            }
        }
        Ok(Self(Picture { channels: Channels::Grey, pixels, ..*picture }))
    }

    /// As a grey picture.
    pub fn picture(&self) -> &Picture {
        &self.0
    }

    /// `(width, height)` in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.0.width, self.0.height)
    }

    /// How much each pixel counts, rows from the top.
    pub fn values(&self) -> &[u8] {
        &self.0.pixels
    }

    /// Black for white: what was painted stays.
    #[must_use]
    pub fn inverted(mut self) -> Self {
        self.change(|value| 255 - value);
        self
    }

    /// Softened along rows, then columns, with these sigmas in pixels (`mask_blur_x`, `mask_blur_y`), byte for byte as
    /// OpenCV's `GaussianBlur` with A1111's kernel of 2·⌊2.5σ + 0.5⌋ + 1 pixels. 0 or less does nothing, more than
    /// [`LARGEST_BLUR`] is an error.
    pub fn blurred(mut self, across: f64, down: f64) -> Result<Self> {
        for (name, sigma) in [("mask_blur_x", across), ("mask_blur_y", down)] {
            if sigma.is_nan() || sigma > LARGEST_BLUR {
                return Err(Error::Request(format!("{name}: {sigma} is no blur; give 0 to {LARGEST_BLUR}")));
            }
        }
        let (width, height) = self.size();
        if across > 0.0 {
            gaussian::along_rows(&mut self.0.pixels, width, &Kernel::new(across));
        }
        if down > 0.0 {
            let mut turned = gaussian::transposed(&self.0.pixels, width);
            gaussian::along_rows(&mut turned, height, &Kernel::new(down));
            self.0.pixels = gaussian::transposed(&turned, height);
        }
        Ok(self)
    }

    /// At the size that is drawn at, together with the picture.
    pub fn fitted(&self, fit: Fit, width: usize, height: usize) -> Result<Self> {
        self.0.fitted(fit, width, height).map(Self)
    }

    /// Twice as much everywhere, at most 255: what the original is laid over the result with when the whole picture is drawn.
    #[must_use]
    pub fn doubled(mut self) -> Self {
        self.change(|value| value.saturating_mul(2));
        self
    }

    /// What a region has of it.
    pub fn cropped(&self, region: Region) -> Result<Self> {
        self.0.cropped(region).map(Self)
    }

    /// The box around all that is not 0, and `padding` pixels more on each side as far as there are any (`modules/masking.py:
    /// get_crop_region_v2`); none if all is.
    pub fn region(&self, padding: usize) -> Option<Region> {
        let (width, height) = self.size();
        let lines = || self.values().chunks_exact(width);
        let painted = |line: &[u8]| line.iter().any(|value| *value > 0);
        let top = lines().position(painted)?;
        let bottom = height - lines().rev().position(painted)?;
        let first = lines().filter_map(|line| line.iter().position(|value| *value > 0)).min()?;
        let last = lines().filter_map(|line| line.iter().rposition(|value| *value > 0)).max()?;
        Some(Region {
            left: first.saturating_sub(padding),
            top: top.saturating_sub(padding),
            right: last.saturating_add(1).saturating_add(padding).min(width),
            bottom: bottom.saturating_add(padding).min(height),
        })
    }

    /// The mask on latents: `(rows, columns)` from 0 (kept) to 1 (drawn), bicubic; with `round`, the request's `mask_round`,
    /// nothing between. A1111's `nmask` for each channel; its `mask` is 1 minus this.
    pub fn on_latents(&self, rows: usize, columns: usize, round: bool) -> Result<Tensor> {
        let small = self.0.resized(columns, rows, Filter::Bicubic)?;
        Tensor::new(shares(&small.pixels, round), [rows, columns])
    }

    /// What an inpainting checkpoint is shown of it: `(1, height, width)` of pixels from 0 to 1; with `round`, the request's
    /// `mask_round`, nothing between.
    pub fn on_pixels(&self, round: bool) -> Result<Tensor> {
        let (width, height) = self.size();
        Tensor::new(shares(self.values(), round), [1, height, width])
    }

    fn change(&mut self, change: impl Fn(u8) -> u8) {
        for value in &mut self.0.pixels {
            *value = change(*value);
        }
    }
}

/// From 0 to 1, or one of them.
fn shares(values: &[u8], round: bool) -> Vec<f32> {
    let shares = values.iter().map(|value| f32::from(*value) / 255.0);
    if round { shares.map(f32::round_ties_even).collect() } else { shares.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(width: usize, pixels: &[u8]) -> Mask {
        Mask::of(
            &Picture {
                width,
                height: pixels.len() / width,
                channels: Channels::Grey,
                pixels: pixels.to_vec(),
            },
            true,
        )
        .expect("a mask")
    }

    #[test]
    fn values_are_turned_and_doubled() {
        assert_eq!(mask(3, &[0, 100, 255]).inverted().values(), [255, 155, 0]);
        assert_eq!(mask(3, &[0, 100, 200]).doubled().values(), [0, 200, 255]);
    }

    #[test]
    fn a_blur_is_within_bounds_or_refused_with_its_name() {
        let dot = mask(3, &[0, 255, 0, 0, 0, 0]);
        for sigma in [f64::NAN, f64::INFINITY, 1025.0] {
            let refused = dot.clone().blurred(1.0, sigma).expect_err("refused").to_string();
            assert!(refused.contains("mask_blur_y") && refused.contains("1024"), "{refused}");
        }
        for sigma in [0.0, -3.0, f64::NEG_INFINITY, f64::MIN_POSITIVE, 1e-200] {
            assert_eq!(dot.clone().blurred(sigma, sigma).expect("nothing"), dot);
        }
    }

    #[test]
    fn a_mask_needs_the_size_of_its_picture() {
        let picture = Picture { width: 2, height: 2, channels: Channels::Rgb, pixels: vec![1; 12] };
        let other = mask(1, &[0, 0]);
        let errors = [
            super::super::Overlay::new(&picture, &other).expect_err("refused"),
            super::super::fill_from_surroundings(&picture, &other).expect_err("refused"),
        ];
        for refused in errors.map(|error| error.to_string()) {
            assert!(refused.contains("1x2") && refused.contains("2x2"), "{refused}");
        }
    }

    #[test]
    fn outside_of_the_mask_is_exactly_the_original() {
        let pixels: Vec<u8> = (0..=255).collect();
        let original = Picture { width: 16, height: 16, channels: Channels::Grey, pixels };
        let mask = mask(16, &(0..=255).map(|at| if at % 3 == 0 { 255 } else { 0 }).collect::<Vec<u8>>());
        let drawn = Picture { pixels: vec![99; 256], ..original.clone() };
        let overlay = super::super::Overlay::new(&original, &mask).expect("an overlay");
        let over = overlay.over(&drawn, None).expect("one size");
        for (at, pixel) in over.pixels.chunks_exact(3).enumerate() {
            assert_eq!(pixel, [if at % 3 == 0 { 99 } else { at as u8 }; 3]);
        }
    }
}
