//! Pictures brought to the size that is drawn at, as A1111's `resize_mode` says (`modules/images.py: resize_image`).

use super::limits::check_sides;
use super::resample::Stretch;
use super::{Channels, Filter, Picture};
use crate::Result;

/// What gives way where the ratio of the sides is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The ratio: A1111's `resize_mode` 0.
    Stretch,
    /// What stands out on both sides: 1.
    Crop,
    /// Nothing; the edges of the picture are drawn out over what is left free: 2.
    Fill,
}

impl Picture {
    /// The picture at exactly this size, in Lanczos. Opacity is dropped first, as A1111 does. Sizes as for
    /// [`Picture::resized`]; where the ratio is so far off that A1111 would make a picture without pixels and fail, a pixel
    /// is left.
    pub fn fitted(&self, fit: Fit, width: usize, height: usize) -> Result<Self> {
        self.check()?;
        check_sides("size", width, height)?;
        if self.channels == Channels::Rgba {
            let opaque = self.clone().into_rgb();
            return Self::from(opaque).fitted(fit, width, height);
        }
        let (wanted, own) = (width as f64 / height as f64, self.width as f64 / self.height as f64);
        match fit {
            Fit::Stretch => self.resized(width, height, Filter::Lanczos),
            Fit::Crop => {
                let (wide, high) = self.scaled(wanted > own, width, height);
                let middle = |begin: usize, end: usize, size: usize, side: usize| {
                    let start = size / 2 - side / 2;
                    Stretch { begin, end, size, window: start..start + side }
                };
                let across = middle(0, self.width, wide, width);
                let down = middle(0, self.height, high, height);
                self.stretched(&across, &down, Filter::Lanczos)
            }
            Fit::Fill => {
                let (wide, high) = self.scaled(wanted < own, width, height);
                let (wide, high) = (wide.max(1), high.max(1));
                let resized = self.resized(wide, high, Filter::Lanczos)?;
                let (left, above) = (width / 2 - wide / 2, height / 2 - high / 2);
                let count = self.channels.count();
                let mut filled =
                    Self { width, height, channels: self.channels, pixels: vec![0; width * height * count] };
                filled.paste(&resized, left, above);
                let edge =
                    |at: usize, side: usize| Stretch { begin: at, end: at, size: side, window: 0..side };
                let along = |side: usize| Stretch { begin: 0, end: side, size: side, window: 0..side };
                if wanted < own && above > 0 {
                    for (at, row) in [(0, 0), (high, above + high)] {
                        let strip = resized.stretched(&along(width), &edge(at, above), Filter::Bicubic)?;
                        filled.paste(&strip, 0, row);
                    }
                } else if wanted > own && left > 0 {
                    for (at, column) in [(0, 0), (wide, left + wide)] {
                        let strip = resized.stretched(&edge(at, left), &along(height), Filter::Bicubic)?;
                        filled.paste(&strip, column, 0);
                    }
                }
                Ok(filled)
            }
        }
    }

    /// The sides at which the width is `width`, or else the height `height`, and the ratio stays.
    fn scaled(&self, by_width: bool, width: usize, height: usize) -> (usize, usize) {
        if by_width {
            (width, self.height * width / self.width)
        } else {
            (self.width * height / self.height, height)
        }
    }

    /// The other picture, of as many channels, laid over this one; what stands out is left off.
    pub(super) fn paste(&mut self, other: &Self, left: usize, above: usize) {
        let count = self.channels.count();
        let (from, width) = (left * count, other.width.min(self.width.saturating_sub(left)) * count);
        let lines = self.pixels.chunks_exact_mut(self.width * count).skip(above);
        for (line, pasted) in lines.zip(other.pixels.chunks_exact(other.width * count)) {
            line[from..from + width].copy_from_slice(&pasted[..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_ratio_is_fitted_and_one_colour_stays_it() {
        const LONG: usize = 5000;
        let sizes = [(1, 1), (1, LONG), (LONG, 1), (3, 100), (99, 2)];
        for (width, height) in sizes {
            let pixels = [9, 200, 77].repeat(width * height);
            let picture = Picture { width, height, channels: Channels::Rgb, pixels };
            for (wide, high) in sizes.into_iter().chain([(64, 64), (33, 8)]) {
                for fit in [Fit::Stretch, Fit::Crop, Fit::Fill] {
                    let fitted = picture.fitted(fit, wide, high).expect("fits");
                    assert_eq!((fitted.width, fitted.height), (wide, high));
                    // Of a side of odd length, "fill" leaves the last row as it was made: black.
                    let black = |pixel: &[u8]| fit == Fit::Fill && *pixel == [0, 0, 0];
                    let odd =
                        fitted.pixels.chunks_exact(3).find(|pixel| **pixel != [9, 200, 77] && !black(pixel));
                    assert_eq!(odd, None, "{width}x{height} to {wide}x{high}, {fit:?}");
                }
            }
        }
    }
}
