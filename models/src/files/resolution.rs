//! The size of pictures that a file says its model draws.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Where the Stability AI model metadata standard (1.0.1) has it, as `WIDTHxHEIGHT`.
pub(super) const KEY: &str = "modelspec.resolution";

/// Pixels of a side that are believed: a file must not choose how much memory a request takes.
const SIDES: RangeInclusive<usize> = 64..=2048;

/// Width and height in pixels, multiples of 8, if the metadata has them.
pub(crate) fn native_size(metadata: &BTreeMap<String, String>) -> Option<(usize, usize)> {
    parse_resolution(metadata.get(KEY)?)
}

/// Width and height in pixels, multiples of 8, of what a file's `modelspec.resolution` says, if it can be believed.
pub fn parse_resolution(text: &str) -> Option<(usize, usize)> {
    let (width, height) = text.split_once('x')?;
    let side = |text: &str| {
        let side = text.parse::<usize>().ok()?;
        (SIDES.contains(&side) && side.is_multiple_of(8)).then_some(side)
    };
    Some((side(width)?, side(height)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sizes_that_can_be_drawn_are_believed() {
        let rows = [
            ("128x128", Some((128, 128))),
            ("768x512", Some((768, 512))),
            ("1024x1024", Some((1024, 1024))),
            ("512", None),
            ("512X512", None),
            ("100x100", None),
            ("8x8", None),
            ("0x512", None),
            ("-512x512", None),
            ("99999999999999999999x512", None),
            ("65536x65536", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let metadata = [(KEY.to_owned(), text.to_owned())].into();
            assert_eq!(native_size(&metadata), expected, "{text}");
        }
        assert_eq!(native_size(&BTreeMap::new()), None);
    }
}
