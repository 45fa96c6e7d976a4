//! What in a prompt somebody might not have meant.

use super::changes::Changes;
use super::emphasis::Piece;
use super::reading::{Emphasis, Reading};
use crate::Result;
use crate::python::words;

/// Sentences about brackets and bars that mean nothing, in one of the parts of a prompt that `AND` composes.
pub fn doubts(part: &str, emphasis: Emphasis) -> Vec<String> {
    let mut doubts = vec![];
    // Without emphasis a \ before a sign is drawn too.
    let has_escapes = emphasis != Emphasis::None;
    if !Changes::is_read(part) {
        let text =
            "a | outside of [a|b], or a \\ at the end of a line: nothing here changes from step to step then";
        let advice = if has_escapes { "; write \\| and \\\\ for signs that are text" } else { "" };
        doubts.push(format!("{text}{advice}"));
    }
    if !has_escapes {
        return doubts;
    }
    let (mut open, mut stray) = (vec![], vec![]);
    let mut characters = part.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '(' | '[' => open.push(character),
            ')' | ']' => {
                let partner = if character == ')' { '(' } else { '[' };
                match open.iter().rposition(|each| *each == partner) {
                    Some(place) => stray.extend(open.drain(place..).skip(1)),
                    None => stray.push(character),
                }
            }
            _ => (),
        }
    }
    stray.extend(open);
    for bracket in ['(', ')', '[', ']'] {
        let count = stray.iter().filter(|each| **each == bracket).count();
        if count > 0 {
            doubts.push(format!(
                "{count} × {bracket} without a partner; write \\{bracket} for one that is text"
            ));
        }
    }
    doubts
}

/// A sentence about what is drawn as a word of one of the texts that a prompt says, if anything is that should not be.
///
/// # Errors
/// If what stands in a weight's place is no number.
pub fn doubts_of_text(text: &str, reading: &Reading) -> Result<Option<String>> {
    const BREAK: &str = "BREAK";
    let has_word = |text: &str| words(text, BREAK).next().is_some();
    if reading.emphasis == Emphasis::None || !has_word(text) {
        return Ok(None);
    }
    let is_drawn = |piece: Piece| matches!(piece, Piece::Text(text, _) if has_word(&text));
    let is_drawn = reading.pieces(text)?.into_iter().any(is_drawn);
    Ok(is_drawn.then(|| {
        "BREAK within brackets is drawn as a word; close them before it and open them again behind it"
            .to_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stray_brackets_and_bars_are_doubted() {
        for (prompt, expected) in [
            ("a (b:1.2) [c|d] \\( \\|", &[][..]),
            ("a (b", &["1 × ("]),
            ("(a]) ]", &["2 × ]"]),
            ("((a [b)", &["1 × (", "1 × ["]),
            ("a | b", &["a | outside"]),
            ("a\\", &["a | outside"]),
        ] {
            let found = doubts(prompt, Emphasis::Original);
            let fits = found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
            assert!(fits, "{prompt:?}: {found:?}");
        }
    }

    #[test]
    fn without_emphasis_brackets_are_text_and_nothing_is_escaped() {
        for prompt in ["a (b", "[a]) (", "a\\("] {
            assert!(doubts(prompt, Emphasis::None).is_empty(), "{prompt}");
        }
        let found = doubts("(a | b", Emphasis::None);
        assert!(found.len() == 1 && !found[0].contains("write"), "{found:?}");
    }

    #[test]
    fn a_break_that_is_drawn_is_doubted() {
        for (text, expected) in [
            ("a BREAK b", false),
            ("(a) BREAK (b)", false),
            ("(a BREAK b:1.0)", false),
            ("(a BREAKS b)", false),
            ("(a BREAK b)", true),
            ("[a BREAK b]", true),
            ("(a BREAK b:0.5)", true),
            // A bracket without a partner lasts to the end.
            ("(a BREAK b", true),
        ] {
            for (emphasis, expected) in [
                (Emphasis::Original, expected),
                (Emphasis::NoNorm, expected),
                (Emphasis::Ignore, expected),
                (Emphasis::None, false),
            ] {
                let found = doubts_of_text(text, &Reading { emphasis, ..Reading::default() });
                assert_eq!(found.expect("read").is_some(), expected, "{text} with {emphasis}");
            }
        }
    }
}
