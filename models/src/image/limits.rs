//! How large a picture may be that is worked on, so that no request takes memory without end.

use super::{Picture, Sample};
use crate::{Error, Result};

/// Pixels of the longest side of a picture that is made or changed here.
pub const LONGEST_SIDE: usize = 1 << 16;
/// Pixels of the largest.
pub const MOST_PIXELS: usize = 1 << 28;

/// An error unless a picture of these sides is within [`LONGEST_SIDE`] and [`MOST_PIXELS`], and has pixels at all.
pub(super) fn check_sides(what: &str, width: usize, height: usize) -> Result<()> {
    let sound = |side: usize| (1..=LONGEST_SIDE).contains(&side);
    if sound(width) && sound(height) && width * height <= MOST_PIXELS {
        return Ok(());
    }
    Err(Error::Request(format!(
        "{what}: {width}x{height} cannot be; give sides from 1 to {LONGEST_SIDE} and no more than {MOST_PIXELS} pixels"
    )))
}

/// An error if the pictures from which and to which is gone are so unlike that what is made between them, as wide as the one
/// and as high as the other, has more than [`MOST_PIXELS`].
pub(super) fn check_between(rows: usize, columns: usize) -> Result<()> {
    if rows * columns <= MOST_PIXELS {
        return Ok(());
    }
    Err(Error::Request(format!(
        "size: {rows} rows of {columns} pixels would be made on the way, more than {MOST_PIXELS}; go by a size between"
    )))
}

impl<S: Sample> Picture<S> {
    /// An error unless it can be worked on, and has the bytes that its sides tell of.
    pub(super) fn check(&self) -> Result<()> {
        check_sides("picture", self.width, self.height)?;
        let needed = self.width * self.height * self.channels.count();
        if self.pixels.len() == needed {
            return Ok(());
        }
        let Self { width, height, channels, pixels } = self;
        let given = pixels.len();
        Err(Error::Request(format!(
            "picture: {width}x{height} with {} channels is {needed} bytes, {given} are given",
            channels.count()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Channels, Filter};

    #[test]
    fn what_cannot_be_is_told_with_its_sides() {
        let pixel = Picture { width: 1, height: 1, channels: Channels::Grey, pixels: vec![7u8] };
        for (width, height) in
            [(0, 1), (1, 0), (LONGEST_SIDE + 1, 1), (LONGEST_SIDE, LONGEST_SIDE), (usize::MAX, 1)]
        {
            let refused = pixel.resized(width, height, Filter::Lanczos).expect_err("refused").to_string();
            assert!(
                refused.contains(&format!("{width}x{height}")) && refused.contains("give sides"),
                "{refused}"
            );
        }
        let wide = pixel.resized(LONGEST_SIDE, 2, Filter::Lanczos).expect("fits");
        assert_eq!(
            (wide.pixels.len(), wide.pixels.iter().all(|value| *value == 7)),
            (2 * LONGEST_SIDE, true)
        );
        let high = pixel.resized(1, LONGEST_SIDE, Filter::Lanczos).expect("fits");
        let refused = high.resized(LONGEST_SIDE, 1, Filter::Box).expect_err("refused").to_string();
        assert!(
            refused.contains("65536 rows of 65536") && refused.contains("go by a size between"),
            "{refused}"
        );
        let lying = Picture { width: 2, ..pixel };
        let refused = lying.resized(1, 1, Filter::Box).expect_err("refused").to_string();
        assert!(refused.contains("2 bytes, 1 are given"), "{refused}");
    }
}
