//! What commands print, on stdout and beside it.
//!
//! Texts that are shown come from files, requests and daemons, and a terminal obeys some characters: they are shown
//! instead of sent.

use std::borrow::Cow;
use std::io::{self, Write};

use super::failure::Failure;

/// Prints lines, with whatever is in them made visible. A reader that went away (`| head`) ends the command in peace.
pub(super) fn print(lines: &str) -> Result<(), Failure> {
    print_all(&escaped(lines, true))
}

/// Prints a value as JSON, which stays what it was: its texts may hold any character in another form.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::new)?;
    print_all(&format!("{}\n", escaped_json(&text)))
}

/// As [`print_json`], on one line, for programs that read line by line.
pub(super) fn print_json_line(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(Failure::new)?;
    print_all(&format!("{}\n", escaped_json(&text)))
}

/// Writes to stdout what is no text.
pub(super) fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

fn print_all(text: &str) -> Result<(), Failure> {
    match write_out(text.as_bytes()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::reader_gone()),
        Err(error) => Err(Failure::new(format!("cannot write to stdout: {error}"))),
    }
}

/// Says something on stderr. Where that cannot be written to, the command goes on without.
pub(super) fn say(line: &str) {
    let mut err = io::stderr().lock();
    err.write_all(escaped(line, true).as_bytes()).and_then(|()| err.write_all(b"\n")).ok();
}

/// A text as part of a line: every control character in it can be seen, the end of a line too.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, false)
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.1} MiB") }
}

fn escaped(text: &str, keeps_lines: bool) -> Cow<'_, str> {
    let is_shown = |c: char| is_obeyed(c) && !(keeps_lines && c == '\n');
    if !text.contains(is_shown) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_shown(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown.into()
}

/// In JSON, characters from U+007F on may stand as they are; all of them stand inside texts.
fn escaped_json(text: &str) -> Cow<'_, str> {
    let is_shown = |c: char| is_obeyed(c) && c != '\n';
    if !text.contains(is_shown) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_shown(c) {
            shown.push_str("\\u");
            // Each of them has four digits.
            let digit = |place: u32| char::from_digit(u32::from(c) >> place & 0xf, 16);
            shown.extend([12, 8, 4, 0].into_iter().filter_map(digit));
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// Whether a terminal may do something else with it than show it: control characters, and those that turn the direction
/// of what follows.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        let rows = [
            ("a cat\nwith a hat", r"a cat\nwith a hat", "a cat\nwith a hat"),
            ("\u{1b}[31mred", r"\u{1b}[31mred", r"\u{1b}[31mred"),
            ("\r\t\u{7}\u{9b}2J", r"\r\t\u{7}\u{9b}2J", r"\r\t\u{7}\u{9b}2J"),
            ("gnp.\u{202e}exe", r"gnp.\u{202e}exe", r"gnp.\u{202e}exe"),
            ("雪 🗼 ü", "雪 🗼 ü", "雪 🗼 ü"),
        ];
        for (text, in_a_line, in_lines) in rows {
            assert_eq!(visible(text), in_a_line);
            assert_eq!(escaped(text, true), in_lines);
        }
    }

    #[test]
    fn json_stays_what_it_was() {
        let text = "a\u{7f}b\u{9b}c\nd\u{202e}\u{1b}";
        let json = serde_json::to_string_pretty(&[text]).expect("encodes");
        let shown = escaped_json(&json);
        assert!(!shown.contains(|c| is_obeyed(c) && c != '\n'), "{shown}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).expect("JSON"), [text]);
    }
}
