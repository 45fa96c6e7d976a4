//! The order in which people expect names: v2 before v10, whatever the case.

use std::cmp::Ordering;

/// Compares two names; those that differ in case or leading zeros alone keep an order too. Called half a million times to
/// sort a large library, so nothing is made of them.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (x, y) = match (left.chars().next(), right.chars().next()) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => (x, y),
        };
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (number, other);
            (number, left) = split_number(left);
            (other, right) = split_number(right);
            number.len().cmp(&other.len()).then_with(|| number.cmp(other))
        } else {
            (left, right) = (rest(left, x), rest(right, y));
            if x.is_ascii() && y.is_ascii() {
                x.to_ascii_lowercase().cmp(&y.to_ascii_lowercase())
            } else {
                x.to_lowercase().cmp(y.to_lowercase())
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// What comes after the first character.
fn rest(text: &str, first: char) -> &str {
    text.get(first.len_utf8()..).unwrap_or_default()
}

/// The digits at the beginning, without zeros before them, and what follows.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (digits.trim_start_matches('0'), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_and_case_does_not() {
        let sorted = [
            "",
            "10",
            "2-b",
            "anime",
            "Anime-v2",
            "anime-v2b",
            "anime-V10",
            "animeX",
            "model 007",
            "model 7",
            "model 7.5",
            "Model 99999999999999999999",
            "model 100000000000000000000",
            "Zoo",
            "änder",
        ];
        let mut shuffled = sorted;
        shuffled.reverse();
        shuffled.sort_by(|a, b| compare(a, b));
        // "2-b" goes before "10".
        let mut expected = sorted;
        expected.swap(1, 2);
        assert_eq!(shuffled, expected);
        for a in sorted {
            for b in sorted {
                assert_eq!(compare(a, b), compare(b, a).reverse(), "{a} {b}");
                assert_eq!(compare(a, b).is_eq(), a == b);
            }
        }
    }
}
