//! Soft inpainting (`extensions-builtin/soft-inpainting` of A1111 1.10.1): how much is drawn anew follows the mask's grey and
//! the level of noise, and in the end what hardly changed is the original again.

use super::guidance::masked;
use crate::Error;
use crate::error::{Result, bail};
use crate::image::inpaint::WeightedHistogram;
use crate::image::{Channels, Picture};
use crate::tensor::Tensor;

/// How original and drawn picture are blended. Names are A1111's, the infotext's in brackets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftInpainting {
    /// How the original's share depends on the level of noise, 0 to 8 ("schedule bias"): below 1 more of it stays near the
    /// end, above at the beginning.
    pub mask_blend_power: f64,
    /// How much of the original stays where the mask is grey, 0 to 8 ("preservation strength").
    pub mask_blend_scale: f64,
    /// How close the strength of blended latents is to the stronger of both, 1 to 32 ("transition contrast boost").
    pub inpaint_detail_preservation: f64,
    /// How much the mask says beside what changed when both pictures are laid over each other, 0 to 1 ("mask influence").
    pub composite_mask_influence: f64,
    /// How far latents must lie from the original's to be seen by half, 0 to 8 ("difference threshold").
    pub composite_difference_threshold: f64,
    /// How sudden that is, 0 to 8 ("difference contrast").
    pub composite_difference_contrast: f64,
}

impl Default for SoftInpainting {
    /// A1111's sliders as they stand.
    fn default() -> Self {
        Self {
            mask_blend_power: 1.0,
            mask_blend_scale: 0.5,
            inpaint_detail_preservation: 4.0,
            composite_mask_influence: 0.0,
            composite_difference_threshold: 0.5,
            composite_difference_contrast: 2.0,
        }
    }
}

impl SoftInpainting {
    /// Refuses what A1111's sliders cannot be set to.
    pub fn check(&self) -> Result<()> {
        for (name, value, least, most) in [
            ("mask_blend_power", self.mask_blend_power, 0.0, 8.0),
            ("mask_blend_scale", self.mask_blend_scale, 0.0, 8.0),
            ("inpaint_detail_preservation", self.inpaint_detail_preservation, 1.0, 32.0),
            ("composite_mask_influence", self.composite_mask_influence, 0.0, 1.0),
            ("composite_difference_threshold", self.composite_difference_threshold, 0.0, 8.0),
            ("composite_difference_contrast", self.composite_difference_contrast, 0.0, 8.0),
        ] {
            if !(least..=most).contains(&value) {
                return Err(Error::Request(format!("{name} is {value}; {least} to {most} is needed")));
            }
        }
        Ok(())
    }

    /// The mask at a level of noise: σ, or the timestep for samplers that go by those. Any shape, from 1 for anew to 0 for the
    /// original.
    #[must_use]
    pub fn mask_at(&self, mask: &Tensor, level: f64) -> Tensor {
        let exponent = (level as f32).powf(self.mask_blend_power as f32) * self.mask_blend_scale as f32;
        mask.map(|value| value.powf(exponent))
    }

    /// Between original and drawn latents `(1, channels, height, width)`, by a mask `(height, width)`: directions are blended,
    /// and lengths apart from them, so that none is lost where both point elsewhere.
    pub fn blend(&self, original: &Tensor, drawn: &Tensor, mask: &Tensor) -> Result<Tensor> {
        /// So that nothing is divided by 0.
        const LITTLE: f64 = 0.00001;
        let rest = mask.map(|value| 1.0 - value);
        let mut blended = masked(original.clone(), &rest)?.plus(&masked(drawn.clone(), mask)?)?;
        let power = self.inpaint_detail_preservation;
        let scales: Vec<f32> = lengths(&blended)
            .into_iter()
            .zip(lengths(original).into_iter().zip(lengths(drawn)))
            .zip(mask.values().iter().zip(rest.values()))
            .map(|((blended, (original, drawn)), (mask, rest))| {
                let both = original.powf(power) * f64::from(*rest) + drawn.powf(power) * f64::from(*mask);
                (both.powf(1.0 / power) / (blended + LITTLE)) as f32
            })
            .collect();
        for plane in blended.values_mut().chunks_exact_mut(scales.len().max(1)) {
            plane.iter_mut().zip(&scales).for_each(|(value, scale)| *value *= scale);
        }
        Ok(blended)
    }

    /// How much of what was drawn is seen, from 0 to 255, grey and of the latents' size: as much as it differs from the original.
    /// Latents `(1, channels, height, width)`, a mask `(height, width)`.
    pub fn seen(&self, original: &Tensor, drawn: &Tensor, mask: &Tensor) -> Result<Picture> {
        let (_, _, height, width) = drawn.dims4()?;
        if mask.dims() != [height, width] || width == 0 {
            bail!("a mask {:?} for latents {:?}", mask.dims(), drawn.dims());
        }
        let distance: Vec<f32> =
            lengths(&drawn.minus(original)?).into_iter().map(|length| length as f32).collect();
        // The greatest around, then the mean of the middle half, so that single latents do not count.
        let histogram = WeightedHistogram::gaussian(1.5, 2);
        let distance = histogram.filtered(&distance, width, (0.9, 1.0), 1.0);
        let distance = histogram.filtered(&distance, width, (0.25, 0.75), 1.0);
        let influence = self.composite_mask_influence;
        let (own, exponent) = ((0.5 * (1.0 - influence)) as f32, (self.mask_blend_scale / 2.0) as f32);
        let threshold = self.composite_difference_threshold as f32;
        let contrast = self.composite_difference_contrast as f32;
        let pixels = distance.iter().zip(mask.values()).map(|(distance, mask)| {
            let hidden = 1.0 - mask.clamp(0.0, 1.0).powf(exponent);
            let bias = own + hidden * influence as f32;
            let half = threshold * (bias / (1.00001 - bias));
            let kept = 1.0 / (1.0 + (distance / half).powf(contrast));
            // Nothing by nothing is no number, and that is nothing.
            ((1.0 - smoother_step(kept)) * 255.0) as u8
        });
        Ok(Picture { width, height, channels: Channels::Grey, pixels: pixels.collect() })
    }

    /// The same where nothing is known of latents: as much as the mask says.
    pub fn seen_by_mask(&self, mask: &Tensor) -> Result<Picture> {
        let [height, width] = *mask.dims() else { bail!("a mask {:?} is no plane", mask.dims()) };
        let exponent = (self.mask_blend_scale / 2.0) as f32;
        let pixels = mask.values().iter().map(|value| (value.clamp(0.0, 1.0).powf(exponent) * 255.0) as u8);
        Ok(Picture { width, height, channels: Channels::Grey, pixels: pixels.collect() })
    }
}

/// How long the vector of each place's channels is, of one image's latents.
fn lengths(latents: &Tensor) -> Vec<f64> {
    let plane = latents.dim(2) * latents.dim(3);
    let mut sums = vec![0f32; plane];
    for channel in latents.values().chunks_exact(plane.max(1)) {
        sums.iter_mut().zip(channel).for_each(|(sum, value)| *sum += value * value);
    }
    sums.into_iter().map(|sum| f64::from(sum.sqrt())).collect()
}

/// From 0 to 1, flat at both ends.
fn smoother_step(x: f32) -> f32 {
    x * x * x * (x * (6.0 * x - 15.0) + 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(seed: f32) -> Tensor {
        let numbers = (0..4 * 15).map(|at| ((at as f32 * 0.37 + seed) * 1.7).sin()).collect();
        Tensor::new(numbers, [1, 4, 3, 5]).expect("fits")
    }

    #[test]
    fn what_sliders_cannot_say_is_refused_with_its_range() {
        let soft = SoftInpainting::default();
        soft.check().expect("the default");
        for (wrong, said) in [
            (SoftInpainting { mask_blend_power: 8.5, ..soft }, "mask_blend_power is 8.5; 0 to 8"),
            (SoftInpainting { mask_blend_scale: -1.0, ..soft }, "mask_blend_scale is -1"),
            (SoftInpainting { inpaint_detail_preservation: 0.0, ..soft }, "1 to 32"),
            (
                SoftInpainting { composite_mask_influence: f64::NAN, ..soft },
                "composite_mask_influence is NaN",
            ),
            (SoftInpainting { composite_difference_threshold: 9.0, ..soft }, "threshold is 9"),
            (SoftInpainting { composite_difference_contrast: f64::INFINITY, ..soft }, "contrast is inf"),
        ] {
            let refused = wrong.check().expect_err("refused").to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn at_both_ends_of_the_mask_there_is_one_picture_alone() {
        let (original, drawn, soft) = (numbers(1.0), numbers(2.0), SoftInpainting::default());
        for (value, alone) in [(0.0, &original), (1.0, &drawn)] {
            let mask = soft.mask_at(&Tensor::full(value, [3, 5]), 3.0);
            let blended = soft.blend(&original, &drawn, &mask).expect("fits");
            for (found, wanted) in blended.values().iter().zip(alone.values()) {
                assert!((found - wanted).abs() < 1e-4, "{value}: {found} is not {wanted}");
            }
        }
        assert!(soft.blend(&original, &drawn, &Tensor::full(0.0, [5, 3])).is_err());
    }

    #[test]
    fn what_did_not_change_is_the_original_whatever_the_settings() {
        let (original, mask) = (numbers(1.0), Tensor::full(0.5, [3, 5]));
        for threshold in [0.0, 0.5, 8.0] {
            let soft = SoftInpainting { composite_difference_threshold: threshold, ..Default::default() };
            let same = soft.seen(&original, &original, &mask).expect("fits");
            assert_eq!(same.pixels, [0; 15]);
            let other = soft.seen(&original, &original.map(|value| value + 99.0), &mask).expect("fits");
            assert!(other.pixels.iter().all(|value| *value >= 254), "{:?}", other.pixels);
        }
        let soft = SoftInpainting::default();
        assert!(soft.seen(&original, &original, &Tensor::full(0.5, [5, 3])).is_err());
        assert_eq!(
            soft.seen_by_mask(&mask).expect("a plane").pixels,
            [(0.5f32.powf(0.25) * 255.0) as u8; 15]
        );
    }
}
