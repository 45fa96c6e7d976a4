//! The order in which people expect names: v2 before v10, whatever the case.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::str::Chars;

/// Compares two names; those that differ in case or leading zeros alone keep an order too.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.chars().peekable(), b.chars().peekable());
    loop {
        let order = match (left.peek().copied(), right.peek().copied()) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (x, y) = (number(&mut left), number(&mut right));
                x.len().cmp(&y.len()).then_with(|| x.cmp(&y))
            }
            (Some(x), Some(y)) => {
                left.next();
                right.next();
                x.to_lowercase().cmp(y.to_lowercase())
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The digits that come next, without zeros before them.
fn number(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        if digit != '0' || !digits.is_empty() {
            digits.push(digit);
        }
    }
    digits
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
