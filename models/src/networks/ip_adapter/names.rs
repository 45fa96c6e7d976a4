//! What outputs of an IP-Adapter are called: "key.0", "value.0", "key.1" … in its file's order.

/// Attentions to the text of the largest UNet that is known.
const MOST: usize = 24;

const NAMES: [[&str; 2]; MOST] = [
    ["key.0", "value.0"],
    ["key.1", "value.1"],
    ["key.2", "value.2"],
    ["key.3", "value.3"],
    ["key.4", "value.4"],
    ["key.5", "value.5"],
    ["key.6", "value.6"],
    ["key.7", "value.7"],
    ["key.8", "value.8"],
    ["key.9", "value.9"],
    ["key.10", "value.10"],
    ["key.11", "value.11"],
    ["key.12", "value.12"],
    ["key.13", "value.13"],
    ["key.14", "value.14"],
    ["key.15", "value.15"],
    ["key.16", "value.16"],
    ["key.17", "value.17"],
    ["key.18", "value.18"],
    ["key.19", "value.19"],
    ["key.20", "value.20"],
    ["key.21", "value.21"],
    ["key.22", "value.22"],
    ["key.23", "value.23"],
];

/// Those of one attention; `None` if no UNet that is known has so many.
pub(super) fn pair(index: usize) -> Option<[&'static str; 2]> {
    NAMES.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_numbers() {
        let is_named = |index: usize| {
            pair(index).is_some_and(|names| names == [&*format!("key.{index}"), &*format!("value.{index}")])
        };
        assert!((0..MOST).all(is_named) && pair(MOST).is_none());
    }
}
