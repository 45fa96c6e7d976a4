//! Characters as Python's `re` classes them: A1111's grammars are written in it.

use std::sync::LazyLock;

use regex::Regex;

/// What `\s` and `str.strip` take for white space.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// What `\w` takes for a letter of a word. Unlike for Rust's `\w`, marks are none.
pub(crate) fn is_word(c: char) -> bool {
    static LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{N}]").ok());
    c == '_' || c.is_ascii_alphanumeric() || !c.is_ascii() && matches(LETTER.as_ref(), c)
}

/// The value of what `\d` takes for a digit, in any script.
pub(crate) fn digit(c: char) -> Option<u32> {
    static DIGIT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{Nd}").ok());
    if c.is_ascii() {
        return c.to_digit(10);
    }
    if !matches(DIGIT.as_ref(), c) {
        return None;
    }
    // Unicode has the ten digits of a script in order; some stand directly behind those of another style.
    let before = (1..).map_while(|back| char::from_u32((c as u32).checked_sub(back)?));
    Some(before.take_while(|each| matches(DIGIT.as_ref(), *each)).count() as u32 % 10)
}

/// `float(text)`, of signs, digits and points.
pub(crate) fn float(text: &str) -> Option<f64> {
    let plain: String =
        text.chars().map(|c| digit(c).and_then(|value| char::from_digit(value, 10)).unwrap_or(c)).collect();
    plain.parse().ok()
}

/// Where `word` stands by itself, as `\bword\b` finds it.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let places = text.match_indices(word).map(|(place, _)| place);
    places.filter(move |place| {
        let (before, after) = (&text[..*place], &text[place + word.len()..]);
        !before.chars().next_back().is_some_and(is_word) && !after.chars().next().is_some_and(is_word)
    })
}

fn matches(class: Option<&Regex>, c: char) -> bool {
    class.is_some_and(|class| class.is_match(c.encode_utf8(&mut [0; 4])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_any_script_have_their_value() {
        for (text, value) in [
            ("1.5", 1.5),
            ("١.٥", 1.5),
            ("１.５", 1.5),
            ("+𝟗.𝟎", 9.0),
            ("-०९", -9.0),
            (".5", 0.5),
            ("5.", 5.0),
        ] {
            assert_eq!(float(text), Some(value), "{text}");
        }
        for text in ["", ".", "+", "1.1.1", "+.", "²", "½", "Ⅳ", "一"] {
            assert_eq!(float(text), None, "{text}");
        }
    }

    #[test]
    fn words_stand_by_themselves() {
        assert_eq!(words("AND BAND ANDY AND\u{301}, AND_ (AND)", "AND").collect::<Vec<_>>(), [0, 14, 27]);
    }
}
