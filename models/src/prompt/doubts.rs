//! What in a prompt somebody might not have meant.

use super::changes::Changes;

/// Sentences about brackets that mean nothing.
pub fn doubts(prompt: &str) -> Vec<String> {
    let mut doubts = vec![];
    if !Changes::is_read(prompt) {
        doubts.push(
            "a | outside of [a|b], or a \\ at the end of a line: nothing in this prompt changes from step to step then; write \
             \\| and \\\\ for signs that are text"
                .to_owned(),
        );
    }
    let (mut open, mut stray) = (vec![], vec![]);
    let mut characters = prompt.chars();
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
            let found = doubts(prompt);
            let fits = found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
            assert!(fits, "{prompt:?}: {found:?}");
        }
    }
}
