//! HTML's entities and numeric references.

use regex::Captures;

use super::table::Table;

/// Puts characters for entities, like `&amp;` and `&#x2019;`. One that is not known stays.
pub(super) fn unescape(table: &Table, text: &str) -> String {
    let character = |found: &Captures| {
        let whole = &found[0];
        let name = &whole[1..whole.len() - 1];
        let known = table.entities.get(name).cloned();
        known.or_else(|| numeric(table, name.strip_prefix('#')?)).unwrap_or_else(|| whole.to_owned())
    };
    table.entity.replace_all(text, character).into_owned()
}

/// The character of a number, as browsers read it: some are none, and some are what Windows-1252 has there.
fn numeric(table: &Table, number: &str) -> Option<String> {
    let hexadecimal = number.strip_prefix(['x', 'X']);
    let (digits, radix) = hexadecimal.map_or((number, 10), |digits| (digits, 16));
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    // More than fits is no character either.
    let code = u32::from_str_radix(digits, radix).unwrap_or(u32::MAX);
    let text = match code {
        // A semicolon would look as if the reference had not been read to its end.
        0x3b => return None,
        0 => "\u{fffd}".to_owned(),
        0x80..=0x9f => {
            let windows = table.encodings.iter().find(|encoding| encoding.name == "sloppy-windows-1252")?;
            windows.upper.get(code as usize - 0x80)?.to_string()
        }
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => String::new(),
        _ if code & 0xfffe == 0xfffe && code <= 0x10ffff => String::new(),
        _ => char::from_u32(code).unwrap_or('\u{fffd}').to_string(),
    };
    Some(text)
}
