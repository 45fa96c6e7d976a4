//! What outputs are called, by the places that they are for: "skip.0" … and "middle", "encoder.2" ….

/// Skips, or encoder outputs, of the largest UNet that anybody has.
const MOST: usize = 24;

/// The name of what is added to the middle.
pub(super) const MIDDLE: &str = "middle";

const SKIPS: [&str; MOST] = [
    "skip.0", "skip.1", "skip.2", "skip.3", "skip.4", "skip.5", "skip.6", "skip.7", "skip.8", "skip.9",
    "skip.10", "skip.11", "skip.12", "skip.13", "skip.14", "skip.15", "skip.16", "skip.17", "skip.18",
    "skip.19", "skip.20", "skip.21", "skip.22", "skip.23",
];

const LEVELS: [&str; 8] =
    ["level.0", "level.1", "level.2", "level.3", "level.4", "level.5", "level.6", "level.7"];

/// The name of what is added to a skip; `None` if no UNet has so many.
pub(super) fn skip(index: usize) -> Option<&'static str> {
    SKIPS.get(index).copied()
}

/// The name of what is added to the last output of a level; `None` if no adapter has so many.
pub(super) fn level(index: usize) -> Option<&'static str> {
    LEVELS.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_numbers() {
        assert!((0..MOST).all(|index| skip(index) == Some(&format!("skip.{index}"))));
        assert!((0..LEVELS.len()).all(|index| level(index) == Some(&format!("level.{index}"))));
        assert_eq!((skip(MOST), level(LEVELS.len())), (None, None));
    }
}
