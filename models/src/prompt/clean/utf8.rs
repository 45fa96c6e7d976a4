//! Bytes that are nearly UTF-8.

use super::table::Table;

/// Puts A0 where a space stands for it: such a byte looks like a space, and programs turn it into one.
pub(super) fn restore_a0(table: &Table, bytes: &[u8]) -> Vec<u8> {
    // "à" in front of another word keeps its space, but in the Portuguese words that begin with it.
    const WORDS: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut with_space = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        match rest.strip_prefix(b"\xc3 ") {
            Some(after) if !WORDS.iter().any(|word| after.starts_with(word)) => {
                with_space.extend(b"\xc3\xa0 ");
                rest = after;
            }
            _ => {
                with_space.push(*first);
                rest = after;
            }
        }
    }
    let restored = |found: &regex::bytes::Captures| {
        let sequence = found.get(0).map(|found| found.as_bytes()).unwrap_or_default();
        sequence.iter().map(|byte| if *byte == b' ' { 0xa0 } else { *byte }).collect::<Vec<u8>>()
    };
    table.lost_a0.replace_all(&with_space, restored).into_owned()
}

/// Decodes UTF-8 and, where there are bytes that no UTF-8 has, two ways to write it: characters as two surrogates of
/// three bytes each, and NUL in two bytes.
pub(super) fn decode(bytes: Vec<u8>) -> Option<String> {
    if !bytes.iter().any(|byte| matches!(byte, 0xed | 0xc0)) {
        return String::from_utf8(bytes).ok();
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = &bytes[..];
    while let Some((first, after)) = rest.split_first() {
        rest = match rest {
            [0xc0, 0x80, after @ ..] => {
                plain.push(0);
                after
            }
            [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, after @ ..] => {
                let bits = |byte: &u8, mask: u8| u32::from(byte & mask);
                let code =
                    0x10000 + (bits(a, 15) << 16) + (bits(b, 63) << 10) + (bits(c, 15) << 6) + bits(d, 63);
                let mut utf8 = [0; 4];
                plain.extend(char::from_u32(code)?.encode_utf8(&mut utf8).as_bytes());
                after
            }
            _ => {
                plain.push(*first);
                after
            }
        };
    }
    String::from_utf8(plain).ok()
}
