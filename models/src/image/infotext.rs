//! A1111's `parameters` text, written and read.
//!
//! A1111 reads line by line, without the white space around each, which says nothing to a text encoder, and takes a line
//! that begins with "Negative prompt:" for the beginning of that. A prompt that comes back as another one stands once more,
//! as a JSON string, behind a key that A1111 does not know and leaves alone.

use crate::python::{is_space, is_word};

/// The parts of an infotext in the order they are written; `Display` joins them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Infotext {
    /// The prompt.
    pub prompt: String,
    /// The negative prompt; no line when empty.
    pub negative_prompt: String,
    /// `Key: value` pairs of the last line.
    pub fields: Vec<(String, String)>,
}

const NEGATIVE: &str = "Negative prompt:";
/// Keys of prompts that A1111's lines cannot carry as they are.
const EXACT: &str = "Exact prompt";
const EXACT_NEGATIVE: &str = "Exact negative prompt";
/// A last line with fewer pairs belongs to the prompt.
const FEWEST_PAIRS: usize = 3;

impl Infotext {
    /// Keys that stand behind all others, where a prompt is not read as it was written.
    pub const EXACT_KEYS: [&'static str; 2] = [EXACT, EXACT_NEGATIVE];

    /// Adds a pair at the end.
    pub fn push(&mut self, key: &str, value: impl std::fmt::Display) {
        self.fields.push((key.to_owned(), value.to_string()));
    }

    /// Adds pairs behind the one of a key, or at the end if there is none.
    pub fn insert(&mut self, after: &str, pairs: impl IntoIterator<Item = (&'static str, String)>) {
        let place = self.fields.iter().position(|(key, _)| key == after);
        let place = place.map_or(self.fields.len(), |place| place + 1);
        self.fields.splice(place..place, pairs.into_iter().map(|(key, value)| (key.to_owned(), value)));
    }

    /// Pairs as they stand in the last line.
    pub fn line(pairs: &[(String, String)]) -> String {
        pairs.iter().map(pair).collect::<Vec<_>>().join(", ")
    }

    /// A text with more pairs at its end; as it is if it has no pairs.
    pub fn extended(text: &str, pairs: &[(String, String)]) -> String {
        if pairs.is_empty() || Self::parse(text).fields.is_empty() {
            return text.to_owned();
        }
        format!("{}, {}", text.trim_end_matches(is_space), Self::line(pairs))
    }

    /// Takes a text apart as A1111 1.10.1's `parse_generation_parameters` does (`modules/infotext_utils.py`), before it
    /// fills in what is missing and splits sizes; prompts that we wrote come back as they were but for white space around
    /// lines. Any text is one: without pairs it is all prompt.
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self::parse_lines(text);
        for (key, value) in std::mem::take(&mut parsed.fields) {
            match key.as_str() {
                EXACT => parsed.prompt = value,
                EXACT_NEGATIVE => parsed.negative_prompt = value,
                _ => parsed.fields.push((key, value)),
            }
        }
        parsed
    }

    /// As A1111 does.
    fn parse_lines(text: &str) -> Self {
        let text = stripped(text);
        let (before, last) = text.rsplit_once('\n').unwrap_or(("", text));
        let found = pairs(last);
        let (prompts, found) = if found.len() < FEWEST_PAIRS { (text, vec![]) } else { (before, found) };
        let mut parsed = Self::default();
        let mut negative = false;
        for line in prompts.split('\n') {
            let line = stripped(line);
            let opened = line.strip_prefix(NEGATIVE);
            negative |= opened.is_some();
            let part = if negative { &mut parsed.negative_prompt } else { &mut parsed.prompt };
            if !part.is_empty() {
                part.push('\n');
            }
            part.push_str(opened.map_or(line, stripped));
        }
        // A pair without a value is none.
        let values = found.into_iter().filter(|(_, value)| !value.is_empty());
        parsed.fields = values.map(|(key, value)| (key.to_owned(), unquoted(value))).collect();
        parsed
    }

    /// The value of a key; of several the last counts.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A value like `512x768` as width and height.
    pub fn size(&self, key: &str) -> Option<(u32, u32)> {
        let (width, height) = self.get(key)?.split_once('x')?;
        let side = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
        Some((side(width)?, side(height)?))
    }
}

/// The pairs of a line as `re_param` finds them, from the left: white space, a key of letters, digits, `_`, space, `-`
/// and `/`, a colon, and a JSON string or whatever stands before the next comma. Takes time in proportion to the line.
fn pairs(line: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let at_key = rest.trim_start_matches(is_space);
        let after = at_key.trim_start_matches(|c| is_word(c) || matches!(c, ' ' | '-' | '/'));
        let key = &at_key[..at_key.len() - after.len()];
        if !key.starts_with(is_word) {
            // One character on, as the search does.
            rest = at_key.get(at_key.chars().next().map_or(0, char::len_utf8)..).unwrap_or_default();
        } else if let Some(value) = after.strip_prefix(':').filter(|_| key.chars().nth(1).is_some()) {
            let value = value.trim_start_matches(is_space);
            let length = quoted_length(value).unwrap_or_else(|| value.find(',').unwrap_or(value.len()));
            found.push((key, &value[..length]));
            rest = value.get(length + 1..).unwrap_or_default();
        } else {
            // No key begins within these characters, for none of them would end at a colon.
            rest = after;
        }
    }
    found
}

/// The length of a JSON string with which `text` begins, if a comma or the end follows.
fn quoted_length(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    bytes.next().filter(|(_, first)| *first == b'"')?;
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()?),
            b'"' => {
                let end = index + 1;
                let ends = matches!(text.as_bytes().get(end), None | Some(b','));
                return (ends && end > 2).then_some(end);
            }
            _ => (),
        }
    }
    None
}

fn unquoted(value: &str) -> String {
    let quoted = value.starts_with('"') && value.ends_with('"');
    let json = quoted.then(|| serde_json::from_str(value).ok()).flatten();
    json.unwrap_or_else(|| value.to_owned())
}

fn stripped(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// As A1111 writes it: a value that would be misread as the next pair is a JSON string; one that would come back as
/// another is too.
fn pair((key, value): &(String, String)) -> String {
    let is_misread = value.contains([',', '\n', ':']) || value.starts_with('"') || stripped(value) != value;
    if is_misread || value.is_empty() { json_pair(key, value) } else { format!("{key}: {value}") }
}

/// Whether a prompt that is read is what was written but for white space around its lines.
fn says_the_same(read: &str, written: &str) -> bool {
    // A backslash has a meaning for the character behind it.
    let is_escaped = |line: &str| line.trim_end_matches(is_space).ends_with('\\') && line.ends_with(is_space);
    let lines = |text| stripped(text).split('\n').map(stripped);
    lines(read).eq(lines(written)) && !written.split('\n').any(is_escaped)
}

fn json_pair(key: &str, value: &str) -> String {
    format!("{key}: {}", serde_json::Value::from(value))
}

impl std::fmt::Display for Infotext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = vec![self.prompt.clone()];
        if !self.negative_prompt.is_empty() {
            parts.push(format!("{NEGATIVE} {}", self.negative_prompt));
        }
        parts.push(Self::line(&self.fields));
        let text = parts.join("\n");
        let text = stripped(&text);
        f.write_str(text)?;
        let read = Self::parse_lines(text);
        for (key, ours, read) in [
            (EXACT, &self.prompt, read.prompt),
            (EXACT_NEGATIVE, &self.negative_prompt, read.negative_prompt),
        ] {
            if !says_the_same(&read, ours) {
                write!(f, ", {}", json_pair(key, ours))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn infotext(prompt: &str, negative_prompt: &str, fields: &[(&str, &str)]) -> Infotext {
        let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Infotext { prompt: prompt.into(), negative_prompt: negative_prompt.into(), fields }
    }

    #[test]
    fn texts_are_taken_apart_as_a1111_does() {
        let abc: &[(&str, &str)] = &[("Aa", "1"), ("Bb", "2"), ("Cc", "3")];
        for (text, expected) in [
            ("", infotext("", "", &[])),
            ("a cat", infotext("a cat", "", &[])),
            ("Aa: 1, Bb: 2, Cc: 3", infotext("", "", abc)),
            ("\nAa: 1, Bb: 2, Cc: 3\n", infotext("", "", abc)),
            ("a cat\nAa: 1, Bb: 2", infotext("a cat\nAa: 1, Bb: 2", "", &[])),
            (
                " a cat \n  on a mat\nNegative prompt: dog\nblurry\nNegative prompt:  bird\nAa: 1,Bb:2 ,  Cc: 3",
                infotext("a cat\non a mat", "dog\nblurry\nbird", &[("Aa", "1"), ("Bb", "2 "), ("Cc", "3")]),
            ),
            // No key: one letter; a colon that another sign precedes; a value that is missing.
            ("p\na: 1, Aa: 1, x.y: z, Bb: , Cc: 3", infotext("p", "", &[("Aa", "1"), ("Cc", "3")])),
            (
                "p\nHires prompt: \"a, b: c\\n\\\"d\\\"\", Lora hashes: \"x: 12, y: 34\", Size: 512x768, Aa: \"1\" 2",
                infotext(
                    "p",
                    "",
                    &[
                        ("Hires prompt", "a, b: c\n\"d\""),
                        ("Lora hashes", "x: 12, y: 34"),
                        ("Size", "512x768"),
                        ("Aa", "\"1\" 2"),
                    ],
                ),
            ),
            // A quote that does not close ends at the comma.
            ("Aa: \"1, Bb: 2, Cc: 3", infotext("", "", &[("Aa", "\"1"), ("Bb", "2"), ("Cc", "3")])),
            // No JSON although it is quoted.
            (
                "Aa: \"\\x, y\", Bb: 2, Cc: 3",
                infotext("", "", &[("Aa", "\"\\x, y\""), ("Bb", "2"), ("Cc", "3")]),
            ),
        ] {
            assert_eq!(Infotext::parse(text), expected, "{text:?}");
        }
        let sizes = infotext(
            "",
            "",
            &[("Size", "1x2"), ("Size", "512x768"), ("Odd", "+1x2"), ("Big", "1x99999999999")],
        );
        assert_eq!(sizes.size("Size"), Some((512, 768)));
        assert_eq!((sizes.size("Odd"), sizes.size("Big"), sizes.size("None")), (None, None, None));
    }

    #[test]
    fn a_long_hostile_line_takes_no_longer_than_its_length() {
        for part in ["a", "a ", "aa:\"", "\"\\", ": ", ", -/", "aa:\"\\\""] {
            Infotext::parse(&part.repeat(1 << 20));
        }
    }

    #[test]
    fn what_a1111_cannot_carry_stands_once_more_as_json() {
        let three: &[(&str, &str)] = &[("Aa", "1"), ("Bb", "2"), ("Cc", "3")];
        for (prompt, negative, behind) in [
            ("a cat\non a mat", "dog", ""),
            (" a cat \r\n\n on a mat\n", " ", ""),
            ("a\\ \nb", "", r#", Exact prompt: "a\\ \nb""#),
            ("x", "y\nNegative prompt: z", r#", Exact negative prompt: "y\nNegative prompt: z""#),
            ("Negative prompt: z", "", r#", Exact prompt: "Negative prompt: z", Exact negative prompt: """#),
        ] {
            let told = infotext(prompt, negative, three);
            let text = told.to_string();
            let own = text.strip_suffix(behind).unwrap_or_else(|| panic!("{text}"));
            assert!(own.ends_with("Cc: 3"), "{text}");
            assert_same(&Infotext::parse(&text), &told);
            // What A1111 makes of it is what it makes of its own text.
            let (ours, a1111) = (Infotext::parse_lines(&text), Infotext::parse_lines(own));
            assert_eq!((ours.prompt, ours.negative_prompt), (a1111.prompt, a1111.negative_prompt));
            assert_eq!(ours.fields[..3], a1111.fields);
        }
    }

    fn assert_same(read: &Infotext, written: &Infotext) {
        for (ours, theirs) in
            [(&read.prompt, &written.prompt), (&read.negative_prompt, &written.negative_prompt)]
        {
            assert!(ours == theirs || says_the_same(ours, theirs), "{written:?} came back as {read:?}");
        }
        assert_eq!(read.fields, written.fields);
    }

    /// Prompts and values that look like other parts of a text.
    fn any_infotext() -> impl Strategy<Value = Infotext> {
        let part = "(\\PC|[ \t\r\n,:\"\\\\#]|Negative prompt:|Steps: 20, |\nSampler: Euler a, Seed: 1, Size: 8x8|🗼|[a-z]{3}){0,12}";
        let fields = proptest::collection::vec(("[A-Z][a-z /-]{0,6}[a-z]", part), 3..6);
        (part, part, fields).prop_map(|(prompt, negative_prompt, fields)| Infotext {
            prompt,
            negative_prompt,
            fields,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(infotext in any_infotext()) {
            assert_same(&Infotext::parse(&infotext.to_string()), &infotext);
        }

        #[test]
        fn anything_is_an_infotext(text in "(\\PC|[:,\" \n]|Negative prompt:){0,60}") {
            Infotext::parse(&text);
        }
    }
}
