//! A part of a picture: with "only masked", what is drawn of it (`modules/masking.py` of A1111 1.10.1).

use crate::image::Picture;
use crate::{Error, Result};

/// Pixels from `left` to before `right`, rows from `top` to before `bottom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first column.
    pub left: usize,
    /// The first row.
    pub top: usize,
    /// The column after the last.
    pub right: usize,
    /// The row after the last.
    pub bottom: usize,
}

impl Region {
    /// Pixels in a row; 0 if it has none.
    pub fn width(&self) -> usize {
        self.right.saturating_sub(self.left)
    }

    /// Rows; 0 if it has none.
    pub fn height(&self) -> usize {
        self.bottom.saturating_sub(self.top)
    }

    /// Grown in one direction until its sides are to each other as those of `drawn`, `(width, height)`, as far as a picture
    /// of the size `picture` goes; moved where it would stand out (`expand_crop_region`). Sides of 0 count as 1.
    #[must_use]
    pub fn expanded(self, drawn: (usize, usize), picture: (usize, usize)) -> Self {
        let ratio = drawn.0.max(1) as f64 / drawn.1.max(1) as f64;
        let (width, height) = (self.width().max(1) as f64, self.height().max(1) as f64);
        let mut grown = self;
        if width / height > ratio {
            (grown.top, grown.bottom) = grow(self.top, self.bottom, width / ratio - height, picture.1);
        } else {
            (grown.left, grown.right) = grow(self.left, self.right, height * ratio - width, picture.0);
        }
        grown
    }
}

/// Half of `more` before `begin`, the rest after `end`, but within `side`.
fn grow(begin: usize, end: usize, more: f64, side: usize) -> (usize, usize) {
    // Saturates: no side is as long.
    let more = more as usize;
    let before = more / 2;
    let after = more - before;
    let (begin, end) = (begin as i128 - before as i128, end as i128 + after as i128);
    let side = side as i128;
    let back = (end - side).max(0);
    let (begin, end) = (begin - back, end - back);
    let forth = (-begin).max(0);
    let whole = |place: i128| usize::try_from(place.clamp(0, side)).unwrap_or_default();
    (whole(begin + forth), whole(end + forth))
}

impl Picture {
    /// What a region has of the picture; an error unless it has pixels and all of them are in the picture.
    pub fn cropped(&self, region: Region) -> Result<Self> {
        self.check()?;
        let Region { left, top, right, bottom } = region;
        let (width, height) = (region.width(), region.height());
        if width == 0 || height == 0 || right > self.width || bottom > self.height {
            return Err(Error::Request(format!(
                "region: columns {left} to {right} and rows {top} to {bottom} are not in a picture of {}x{}",
                self.width, self.height
            )));
        }
        let pixels = self.part(&(left..right), &(top..bottom));
        Ok(Self { width, height, channels: self.channels, pixels })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::Channels;

    proptest! {
        #[test]
        fn a_grown_region_holds_the_first_and_stays_in_the_picture(
            (width, height) in (1..70_000usize, 1..70_000usize),
            shares in prop::array::uniform4(0.0..1.0f64),
            drawn in (0..100_000usize, 0..100_000usize),
        ) {
            let between = |side: usize, a: f64, b: f64| {
                let begin = (a * side as f64) as usize;
                (begin, begin + 1 + (b * (side - begin - 1) as f64) as usize)
            };
            let ((left, right), (top, bottom)) = (between(width, shares[0], shares[1]), between(height, shares[2], shares[3]));
            let region = Region { left, top, right, bottom };
            let grown = region.expanded(drawn, (width, height));
            prop_assert!(grown.left <= left && grown.top <= top && grown.right >= right && grown.bottom >= bottom);
            prop_assert!(grown.right <= width && grown.bottom <= height);
        }

        #[test]
        fn no_region_is_too_odd_to_be_refused(numbers in any::<[usize; 8]>()) {
            let [left, top, right, bottom, a, b, c, d] = numbers;
            let region = Region { left, top, right, bottom };
            let picture = Picture { width: 3, height: 2, channels: Channels::Grey, pixels: (0..6).collect() };
            let _ = region.expanded((a, b), (c, d));
            let inside = left < right && right <= 3 && top < bottom && bottom <= 2;
            prop_assert_eq!(picture.cropped(region).is_ok(), inside);
        }
    }

    #[test]
    fn a_part_is_cut_out() {
        let picture = Picture { width: 3, height: 2, channels: Channels::Grey, pixels: (0..6).collect() };
        let cut = picture.cropped(Region { left: 1, top: 0, right: 3, bottom: 2 }).expect("inside");
        assert_eq!((cut.width, cut.height, cut.pixels), (2, 2, vec![1, 2, 4, 5]));
        let refused = picture.cropped(Region { left: 1, top: 0, right: 4, bottom: 2 }).expect_err("outside");
        assert!(
            refused.to_string().contains("columns 1 to 4") && refused.to_string().contains("3x2"),
            "{refused}"
        );
    }
}
