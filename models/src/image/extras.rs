//! How large A1111's "Extras" make a picture, and on what way (`scripts/postprocessing_upscale.py`, `modules/upscaler.py`).

use super::{Picture, Sample};

/// An upscaler goes over a picture at most so often.
const MOST_ROUNDS: usize = 3;

/// How large a picture is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Resize {
    /// So many times as large, then down to sides that 8 divides.
    By(f64),
    /// As large as it takes to fill this, the ratio of its sides kept.
    To {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Whether what stands out is cut off, on both sides alike.
        crop: bool,
    },
}

impl Resize {
    /// How many times as large upscalers are asked to make a picture of these sides.
    pub fn scale(&self, (wide, high): (usize, usize)) -> f64 {
        match *self {
            Self::By(scale) => scale,
            Self::To { width, height, .. } => (width as f64 / wide as f64).max(height as f64 / high as f64),
        }
    }

    /// The size that upscalers bring it to; a side may be 0. Sides that are filled are never less than was asked for: where A1111's
    /// rounding leaves them so, with a black edge, they are as asked for.
    pub fn filled(&self, (wide, high): (usize, usize)) -> (usize, usize) {
        let scale = self.scale((wide, high));
        let whole = |side: usize| (side as f64 * scale / 8.0).floor() as usize * 8;
        match *self {
            Self::By(_) => (whole(wide), whole(high)),
            Self::To { width, height, .. } => (whole(wide).max(width), whole(high).max(height)),
        }
    }

    /// The size of the result.
    pub fn result(&self, size: (usize, usize)) -> (usize, usize) {
        match *self {
            Self::To { width, height, crop: true } => (width, height),
            _ => self.filled(size),
        }
    }

    /// The sizes of what an upscaler is given that makes pictures `by` times as large, one after the other.
    pub fn rounds(&self, size: (usize, usize), by: usize) -> Vec<(usize, usize)> {
        let is_same = (self.scale(size) - 1.0).abs() < f64::EPSILON;
        upscaler_rounds(size, self.filled(size), by, is_same)
    }

    /// What a filter makes of it before that is brought to [`Self::filled`]; the size itself if it is left to that.
    pub fn filtered(&self, (wide, high): (usize, usize)) -> (usize, usize) {
        let scale = self.scale((wide, high));
        let (width, height) = self.filled((wide, high));
        if scale <= 1.0 {
            return (wide, high);
        }
        let side = |side: usize, filled: usize| ((side as f64 * scale) as usize).max(filled);
        (side(wide, width), side(high, height))
    }
}

/// The sizes of what an upscaler is given that makes pictures `by` times as large, one after the other, until they are as large as
/// `to`; it has its way once where the size `is_same`.
pub fn upscaler_rounds(
    from: (usize, usize),
    (wide, high): (usize, usize),
    by: usize,
    is_same: bool,
) -> Vec<(usize, usize)> {
    let (mut rounds, mut at) = (vec![], from);
    while rounds.len() < MOST_ROUNDS {
        let is_there = at.0 >= wide && at.1 >= high;
        if is_there && !(is_same && rounds.is_empty()) {
            break;
        }
        rounds.push(at);
        if by == 1 {
            break;
        }
        at = (at.0.saturating_mul(by), at.1.saturating_mul(by));
    }
    rounds
}

impl<S: Sample> Picture<S> {
    /// The middle of the picture, no larger than this.
    #[must_use]
    pub fn middle(self, width: usize, height: usize) -> Self {
        let (wide, high) = (self.width.min(width), self.height.min(height));
        if (wide, high) == (self.width, self.height) {
            return self;
        }
        let (left, top) = (self.width / 2 - wide / 2, self.height / 2 - high / 2);
        let pixels = self.part(&(left..left + wide), &(top..top + high));
        Self { width: wide, height: high, channels: self.channels, pixels }
    }

    /// The other picture of the same kind laid over this one, of which this much is seen; as it is if it is of another kind.
    pub fn blend(&mut self, other: &Self, share: f32) {
        let is_alike =
            (self.width, self.height, self.channels) == (other.width, other.height, other.channels);
        let numbers = self.pixels.iter_mut().zip(&other.pixels).filter(|_| is_alike);
        numbers.for_each(|(below, above)| *below = below.blended(*above, share));
    }

    /// What was made of this picture's 8 bits: where they are as they were, all bits stay.
    #[must_use]
    pub fn with_changes(self, made: Picture) -> Self {
        let Picture { width, height, channels, pixels: made } = made;
        if (width, height, channels) != (self.width, self.height, self.channels) {
            let pixels = made.into_iter().map(S::of_8_bits).collect();
            return Self { width, height, channels, pixels };
        }
        let numbers = self.pixels.into_iter().zip(made);
        let changed = |(old, new): (S, u8)| if old.to_8_bits() == new { old } else { S::of_8_bits(new) };
        Self { width, height, channels, pixels: numbers.map(changed).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Channels;

    #[test]
    fn sizes_are_those_of_the_extras() {
        let to = |width, height, crop| Resize::To { width, height, crop };
        for (resize, size, filled, result) in [
            (Resize::By(4.0), (64, 48), (256, 192), (256, 192)),
            (Resize::By(2.0), (101, 30), (200, 56), (200, 56)),
            (Resize::By(1.0), (101, 30), (96, 24), (96, 24)),
            (Resize::By(0.5), (64, 48), (32, 24), (32, 24)),
            (Resize::By(0.1), (64, 48), (0, 0), (0, 0)),
            (to(512, 512, true), (64, 48), (680, 512), (512, 512)),
            (to(512, 512, false), (64, 48), (680, 512), (680, 512)),
            // A1111 leaves four columns and rows black.
            (to(500, 500, true), (100, 100), (500, 500), (500, 500)),
            (to(32, 32, true), (100, 50), (64, 32), (32, 32)),
        ] {
            assert_eq!((resize.filled(size), resize.result(size)), (filled, result), "{resize:?} {size:?}");
        }
    }

    #[test]
    fn an_upscaler_goes_over_it_until_it_is_large_enough() {
        for (resize, by, rounds) in [
            (Resize::By(4.0), 4, vec![(10, 20)]),
            (Resize::By(4.0), 2, vec![(10, 20), (20, 40)]),
            (Resize::By(100.0), 2, vec![(10, 20), (20, 40), (40, 80)]),
            (Resize::By(2.0), 4, vec![(10, 20)]),
            (Resize::By(1.0), 4, vec![(10, 20)]),
            (Resize::By(0.5), 4, vec![]),
            (Resize::By(4.0), 1, vec![(10, 20)]),
            (Resize::To { width: 16, height: 16, crop: true }, 4, vec![(10, 20)]),
            (Resize::To { width: 8, height: 16, crop: true }, 4, vec![]),
        ] {
            assert_eq!(resize.rounds((10, 20), by), rounds, "{resize:?}, {by} times");
        }
        assert_eq!(Resize::By(2.0).filtered((101, 30)), (202, 60));
        assert_eq!(Resize::By(0.5).filtered((101, 30)), (101, 30));
    }

    #[test]
    fn middles_blends_and_changes() {
        let deep = |pixels: &[u16]| Picture {
            width: pixels.len(),
            height: 1,
            channels: Channels::Grey,
            pixels: pixels.to_vec(),
        };
        assert_eq!(deep(&[1, 2, 3, 4, 5]).middle(2, 9), deep(&[2, 3]));
        assert_eq!(deep(&[1, 2, 3, 4]).middle(2, 1), deep(&[2, 3]));
        let mut picture = deep(&[0, 1000]);
        picture.blend(&deep(&[1000, 0]), 0.25);
        assert_eq!(picture, deep(&[250, 750]));
        picture.blend(&deep(&[1000]), 0.25);
        assert_eq!(picture, deep(&[250, 750]));
        let made = Picture { pixels: vec![0, 7], ..picture.to_8_bits() };
        assert_eq!(picture.with_changes(made), deep(&[250, 7 * 257]));
    }
}
