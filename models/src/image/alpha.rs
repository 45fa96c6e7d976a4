//! Opacity in 8 bits as Pillow reckons with it: multiplied with, divided by, and pictures laid over each other.

use super::{Channels, Picture, Sample};
use crate::Result;

/// What is 255 times as much as a number of 8 bits, as that number, rounded.
fn over_255(sum: u32) -> u32 {
    let sum = sum + 128;
    ((sum >> 8) + sum) >> 8
}

/// Colours of RGBA multiplied with their opacity ("RGBa"), rounded.
pub(super) fn multiply<S: Sample>(pixels: &mut [S]) {
    let most = u64::from(S::MOST);
    for pixel in pixels.chunks_exact_mut(4) {
        let opacity = u64::from(pixel[3].number());
        for value in &mut pixel[..3] {
            // The largest is odd, so that no half is rounded.
            *value = S::of(((u64::from(value.number()) * opacity + most / 2) / most) as u32);
        }
    }
}

/// Back again: what cannot be seen stays as it is, and no colour exceeds the largest.
pub(super) fn divide<S: Sample>(pixels: &mut [S]) {
    for pixel in pixels.chunks_exact_mut(4) {
        let opacity = pixel[3].number();
        if opacity == 0 || opacity == S::MOST {
            continue;
        }
        for value in &mut pixel[..3] {
            *value = S::of(value.number() * S::MOST / opacity);
        }
    }
}

/// `share` of 255 parts of one number and the rest of the other: a paste through a mask.
pub(super) fn mix(below: u8, above: u8, share: u8) -> u8 {
    over_255(u32::from(below) * u32::from(255 - share) + u32::from(above) * u32::from(share)) as u8
}

/// RGBA over RGBA (`Image.alpha_composite`), neither multiplied with its opacity.
pub(super) fn over(below: [u8; 4], above: [u8; 4]) -> [u8; 4] {
    /// Bits that the shares have more than 8.
    const MORE: u32 = 7;
    let (opacity, opacity_below) = (u32::from(above[3]), u32::from(below[3]));
    if opacity == 0 {
        return below;
    }
    let both = opacity * 255 + opacity_below * (255 - opacity);
    let share = opacity * 255 * 255 * (1 << MORE) / both;
    let rest = 255 * (1 << MORE) - share;
    let colour = |index: usize| {
        let sum = u32::from(above[index]) * share + u32::from(below[index]) * rest + (0x80 << MORE);
        ((((sum >> 8) + sum) >> 8) >> MORE) as u8
    };
    [colour(0), colour(1), colour(2), over_255(both) as u8]
}

impl Picture {
    /// RGB: what is not opaque lies over `colour`, as A1111 prepares pictures for the networks (`modules/images.py:
    /// flatten`, whose colour is white if nothing is set). Grey becomes RGB.
    pub fn over_colour(&self, colour: [u8; 3]) -> Result<Self> {
        self.check()?;
        let pixels = match self.channels {
            Channels::Grey => self.pixels.iter().flat_map(|grey| [*grey; 3]).collect(),
            Channels::Rgb => self.pixels.clone(),
            Channels::Rgba => {
                let pixels = self.pixels.chunks_exact(4);
                pixels
                    .flat_map(|pixel| [0, 1, 2].map(|index| mix(colour[index], pixel[index], pixel[3])))
                    .collect()
            }
        };
        Ok(Self { channels: Channels::Rgb, pixels, ..*self })
    }
}
