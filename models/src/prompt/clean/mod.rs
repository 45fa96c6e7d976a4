//! Text as CLIP's tokenizer cleans it: typographic quotes, other widths, ligatures, HTML's entities and text in a
//! mistaken encoding become what they stand for.
//!
//! It does what ftfy 6.3.1 by Robyn Speer does, which that tokenizer calls, and has its tables (`assets/NOTICE`).

mod entities;
mod mojibake;
mod table;
mod utf8;

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use crate::Result;
use mojibake::PASSES;
use table::Table;

/// Characters of a line that are looked at together.
const LONGEST: usize = 1_000_000;

/// The cleaned text.
pub(super) fn clean(text: &str) -> Result<Cow<'_, str>> {
    // In plain ASCII without `&` and controls there is nothing to mend. Nearly all prompts are like this.
    let plain = |byte: u8| matches!(byte, b' '..=b'%' | b'\''..=b'~' | b'\n');
    if text.bytes().all(plain) {
        return Ok(Cow::Borrowed(text));
    }
    let table = Table::get()?;
    let mut cleaned = String::with_capacity(text.len());
    // A `<` may begin a tag of HTML. Entities are part of the text then, from its line on.
    let mut unescape = true;
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(LONGEST).map_or(rest.len(), |(end, _)| end);
            let (segment, after) = rest.split_at(end);
            unescape &= !segment.contains('<');
            cleaned.push_str(&clean_segment(table, segment, unescape));
            rest = after;
        }
    }
    Ok(Cow::Owned(cleaned))
}

fn clean_segment(table: &Table, segment: &str, unescape: bool) -> String {
    let mut text = segment.to_owned();
    for _ in 0..PASSES {
        let mended = pass(table, &text, unescape);
        if mended == text {
            break;
        }
        text = mended;
    }
    text
}

/// Each kind of mending once, in ftfy's order.
fn pass(table: &Table, text: &str, unescape: bool) -> String {
    let unescaped = if unescape { entities::unescape(table, text) } else { text.to_owned() };
    let decoded = mojibake::mend(table, &unescaped);
    let decoded = mojibake::mend_controls(table, &decoded);
    let mut plain = String::with_capacity(decoded.len());
    for character in decoded.chars() {
        match table.letters.get(&character) {
            Some(letters) => plain.extend(letters.chars().map(straight)),
            None => plain.push(straight(character)),
        }
    }
    let lines = plain.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
    let mut shown = table.terminal.replace_all(&lines, "").into_owned();
    shown.retain(|character| !is_removed(character));
    if shown.is_ascii() { shown } else { shown.nfc().collect() }
}

/// Typographic quotes as a keyboard has them.
fn straight(character: char) -> char {
    match character {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        _ => character,
    }
}

/// Controls that show nothing.
fn is_removed(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffc}'
    )
}
