//! Text that was UTF-8 and was read as something else, like `cafÃ©`.

use std::borrow::Cow;

use super::table::Table;
use super::utf8;

/// How often what was mended is looked at again. What is nested deeper than that stays, where ftfy would go on: each
/// look costs the whole text.
pub(super) const PASSES: usize = 64;

/// How often a part of a part is looked at by itself.
const DEEPEST: usize = 8;

/// Decodes what looks like UTF-8 that was mistaken, until nothing does.
pub(super) fn mend(table: &Table, text: &str) -> String {
    mend_within(table, text, 0)
}

/// C1 controls as the characters that Windows has in their places.
pub(super) fn mend_controls<'a>(table: &Table, text: &'a str) -> Cow<'a, str> {
    let windows = table.encodings.iter().find(|encoding| encoding.name == "sloppy-windows-1252");
    let Some(windows) = windows.filter(|_| text.contains(is_c1)) else {
        return Cow::Borrowed(text);
    };
    let mended = |character: char| {
        let place = (character as usize).checked_sub(0x80);
        place.filter(|_| is_c1(character)).and_then(|place| windows.upper.get(place)).copied()
    };
    Cow::Owned(text.chars().map(|character| mended(character).unwrap_or(character)).collect())
}

fn is_c1(character: char) -> bool {
    ('\u{80}'..='\u{9f}').contains(&character)
}

fn mend_within(table: &Table, text: &str, depth: usize) -> String {
    let mut text = text.to_owned();
    for _ in 0..PASSES {
        match step(table, &text, depth) {
            Some(mended) if mended != text => text = mended,
            _ => break,
        }
    }
    text
}

/// One way to mend the text, if it is broken and there is one.
fn step(table: &Table, text: &str, depth: usize) -> Option<String> {
    if text.is_ascii() || !table.mojibake.is_match(text) {
        return None;
    }
    // All of it is UTF-8 that was taken for a one-byte encoding.
    for encoding in &table.encodings {
        let Some(mut bytes) = encoding.encode(text) else {
            continue;
        };
        // In Mac Roman those bytes are a dash and a space.
        if encoding.name != "macroman" && table.lost_a0.is_match(&bytes) {
            bytes = utf8::restore_a0(table, &bytes);
        }
        if encoding.is_sloppy() {
            bytes = table.lost_bytes.replace_all(&bytes, "\u{fffd}".as_bytes()).into_owned();
        }
        if let Some(decoded) = utf8::decode(bytes) {
            return Some(decoded);
        }
    }
    // Parts of it are.
    if depth < DEEPEST {
        let mended = mend_parts(table, text, depth);
        if mended != text {
            return Some(mended);
        }
    }
    // Latin-1 with C1 controls mostly was Windows-1252, if that has a character in each of their places.
    let is_latin_1 = text.chars().all(|character| u32::from(character) < 0x100);
    let mended = mend_controls(table, text);
    if is_latin_1 && !mended.contains(is_c1) && mended != text {
        return Some(mended.into_owned());
    }
    text.contains(is_c1).then(|| mended.into_owned())
}

/// Mends stretches that look like UTF-8 sequences, each by itself.
fn mend_parts(table: &Table, text: &str, depth: usize) -> String {
    let characters: Vec<(usize, char)> = text.char_indices().collect();
    let start_of = |place: usize| characters.get(place).map_or(text.len(), |(start, _)| *start);
    let mut mended = String::with_capacity(text.len());
    let (mut place, mut copied) = (0, 0);
    while place < characters.len() {
        let before = place.checked_sub(1).and_then(|before| characters.get(before));
        // The end of a longer garble is not mended alone: that would make it worse.
        let within = before.is_some_and(|(_, character)| table.roles(*character).surely_later);
        let end = if within { place } else { end_of_sequences(table, &characters, place) };
        if end == place {
            place += 1;
            continue;
        }
        let part = &text[start_of(place)..start_of(end)];
        if part.len() < text.len() && table.mojibake.is_match(part) {
            mended.push_str(&text[copied..start_of(place)]);
            mended.push_str(&mend_within(table, part, depth + 1));
            copied = start_of(end);
        }
        place = end;
    }
    mended.push_str(&text[copied..]);
    mended
}

/// Where the sequences end that begin at a place, one behind the other.
fn end_of_sequences(table: &Table, characters: &[(usize, char)], mut place: usize) -> usize {
    while let Some((_, first)) = characters.get(place) {
        let length = table.roles(*first).first_of;
        let later = characters.get(place + 1..place + length).unwrap_or_default();
        if length == 0 || later.is_empty() || !later.iter().all(|(_, each)| table.roles(*each).later) {
            break;
        }
        place += length;
    }
    place
}
