//! How far a picture is continued.

use crate::image::LONGEST_SIDE;
use crate::image::limits::check_sides;
use crate::{Error, Result};

/// What sides of a continued picture are multiples of.
const MULTIPLE: usize = 64;

/// Pixels on each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Margins {
    /// Before the first column.
    pub left: usize,
    /// After the last.
    pub right: usize,
    /// Above the first row.
    pub up: usize,
    /// Below the last.
    pub down: usize,
}

impl Margins {
    /// The widest.
    pub fn widest(self) -> usize {
        self.left.max(self.right).max(self.up).max(self.down)
    }

    /// Those with which a picture's width is a multiple of 64 if it is continued to the left or right, and its height if up or
    /// down: both grow by what they are to each other. An error if all are 0, or the picture would be too large.
    pub fn rounded(self, width: usize, height: usize) -> Result<Self> {
        if self == Self::default() {
            let text = "left, right, up and down are 0: nothing is to be drawn; give at least one of them";
            return Err(Error::Request(text.to_owned()));
        }
        for (name, pixels) in
            [("left", self.left), ("right", self.right), ("up", self.up), ("down", self.down)]
        {
            if pixels > LONGEST_SIDE {
                return Err(Error::Request(format!(
                    "{name}: {pixels} pixels are too many; give up to {LONGEST_SIDE}"
                )));
            }
        }
        let (left, right) = along(width, self.left, self.right);
        let (up, down) = along(height, self.up, self.down);
        let (wide, high) = (width + left + right, height + up + down);
        check_sides("outpainted", rounded_up(wide), rounded_up(high))?;
        Ok(Self { left, right, up, down })
    }
}

/// The next multiple of 64.
pub(super) fn rounded_up(side: usize) -> usize {
    side.next_multiple_of(MULTIPLE)
}

fn along(side: usize, before: usize, after: usize) -> (usize, usize) {
    if before + after == 0 {
        return (0, 0);
    }
    let more = rounded_up(side + before + after) - side;
    let first = before * more / (before + after);
    (first, if after > 0 { more - first } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_fill_up_to_64_and_name_what_cannot_be() {
        let margins = |left, right, up, down| Margins { left, right, up, down };
        assert_eq!(margins(128, 128, 0, 8).rounded(500, 500).expect("fits"), margins(134, 134, 0, 12));
        assert_eq!(margins(0, 1, 5, 0).rounded(64, 64).expect("fits"), margins(0, 64, 64, 0));
        for (wrong, said) in [
            (margins(0, 0, 0, 0), "at least one"),
            (margins(usize::MAX, 1, 0, 0), "left: "),
            (margins(0, 0, 0, 65_537), "down: 65537"),
            (margins(60_000, 60_000, 0, 0), "outpainted: 120512x512"),
        ] {
            let refused = wrong.rounded(500, 500).expect_err("refused").to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
