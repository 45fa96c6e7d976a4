//! CLIP's byte-pair tokenizer, from merges embedded in the binary (`assets/NOTICE`).

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::OnceLock;

use regex::Regex;
use tokenizers::Model;
use tokenizers::models::bpe::BPE;

use super::alignment::Alignment;
use super::clean::clean;
use crate::{Error, Result};

/// Begin of text.
pub const BOS: u32 = 49406;
/// End of text, and padding.
pub const EOS: u32 = 49407;
/// `,` as a word of its own.
pub const COMMA: u32 = 267;

/// What the last token of a word ends with in the vocabulary.
const END_OF_WORD: &str = "</w>";

/// Words that stand for begin and end.
const SPECIAL: [(&str, u32); 2] = [("<|startoftext|>", BOS), ("<|endoftext|>", EOS)];

/// Special words, endings, runs of letters, single digits, runs of anything else. Endings match in any letter case, which
/// still matters where lower case leaves a letter as it is: `'ſ` is an `'s`. The combining iota (U+0345) matches nothing:
/// Python's `regex` takes it for a case of a letter, and so CLIP's tokenizer drops it.
const WORDS: &str =
    r"(?i:<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+";

struct Tokenizer {
    words: Regex,
    /// The letter that stands for each byte.
    letters: Vec<char>,
    /// The byte that each letter stands for.
    bytes: HashMap<char, u8>,
    pairs: BPE,
}

/// Token ids of a text, without begin and end. Any text will do. Special words are known first, as they are written;
/// what stands between them is cleaned, and put in lower case.
pub fn tokenize(text: &str) -> Result<Vec<u32>> {
    let tokenizer = Tokenizer::get()?;
    let mut ids = vec![];
    for part in parts(text) {
        match part {
            Part::Special(_, id) => ids.push(id),
            Part::Text(bytes) => {
                tokenizer.words(text.get(bytes).unwrap_or_default(), |id, _| ids.push(id))?;
            }
        }
    }
    Ok(ids)
}

/// The same, with the bytes of the text that each token is of. Where cleaning joined or took apart, tokens of a word may have
/// the bytes of all of the word, or of all of the text.
pub(super) fn tokenize_placed(text: &str) -> Result<Vec<(u32, Range<usize>)>> {
    let tokenizer = Tokenizer::get()?;
    let mut tokens = vec![];
    for part in parts(text) {
        match part {
            Part::Special(bytes, id) => tokens.push((id, bytes)),
            Part::Text(bytes) => {
                let source = text.get(bytes.clone()).unwrap_or_default();
                let mut found = vec![];
                let cleaned = tokenizer.words(source, |id, place| found.push((id, place)))?;
                let alignment = Alignment::new(source, &cleaned);
                tokens.extend(found.into_iter().map(|(id, place)| {
                    let place = alignment.source(&place);
                    (id, bytes.start + place.start..bytes.start + place.end)
                }));
            }
        }
    }
    Ok(tokens)
}

/// A part of a text that is to be tokenised.
enum Part {
    /// A special word, and its id.
    Special(Range<usize>, u32),
    /// What stands between two of them.
    Text(Range<usize>),
}

fn parts(text: &str) -> Vec<Part> {
    let (mut parts, mut done) = (vec![], 0);
    for (start, _) in text.match_indices("<|") {
        let found = SPECIAL.iter().find(|(word, _)| text[start..].starts_with(word));
        if let Some((word, id)) = found {
            parts.push(Part::Text(done..start));
            done = start + word.len();
            parts.push(Part::Special(start..done, *id));
        }
    }
    parts.push(Part::Text(done..text.len()));
    parts
}

/// What a token stands for, and whether a word ends with it.
pub(super) fn token_text(id: u32) -> Result<(String, bool)> {
    let tokenizer = Tokenizer::get()?;
    if let Some((word, _)) = SPECIAL.iter().find(|(_, special)| *special == id) {
        return Ok(((*word).to_owned(), true));
    }
    let written = tokenizer.pairs.id_to_token(id).unwrap_or_default();
    let (letters, ends_word) = match written.strip_suffix(END_OF_WORD) {
        Some(letters) => (letters, true),
        None => (written.as_str(), false),
    };
    let bytes: Vec<u8> = letters.chars().filter_map(|letter| tokenizer.bytes.get(&letter).copied()).collect();
    Ok((String::from_utf8_lossy(&bytes).into_owned(), ends_word))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Request(format!("the prompt cannot be tokenised: {error}"))
}

impl Tokenizer {
    /// Built at first use, once: it takes some tens of milliseconds.
    fn get() -> Result<&'static Self> {
        static TOKENIZER: OnceLock<Result<Tokenizer, String>> = OnceLock::new();
        let built = TOKENIZER.get_or_init(|| Self::build().map_err(|error| error.to_string()));
        built.as_ref().map_err(failed)
    }

    fn build() -> tokenizers::Result<Self> {
        let merges = merges()?;
        let vocabulary = vocabulary(&merges);
        let order = letters_in_order();
        let pairs = BPE::builder()
            .vocab_and_merges(vocabulary.into_iter().collect::<ahash::AHashMap<_, _>>(), merges)
            .end_of_word_suffix(END_OF_WORD.to_owned())
            .unk_token("<|endoftext|>".to_owned())
            .build()?;
        let mut letters = order;
        letters.sort_unstable();
        let bytes = letters.iter().map(|(byte, letter)| (*letter, *byte)).collect();
        let letters = letters.into_iter().map(|(_, letter)| letter).collect();
        Ok(Self { words: Regex::new(WORDS)?, letters, bytes, pairs })
    }

    /// Adds the ids of a text without special words, with their places in what the text is cleaned to, which it gives. Cleaning
    /// and lower case may make special words: these count too.
    fn words(&self, text: &str, mut add: impl FnMut(u32, Range<usize>)) -> Result<String> {
        let text = clean(text)?.to_lowercase();
        for found in self.words.find_iter(&text) {
            let (start, word) = (found.start(), found.as_str());
            if let Some((_, id)) = SPECIAL.iter().find(|(special, _)| *special == word) {
                add(*id, found.range());
                continue;
            }
            let letters: String =
                word.bytes().filter_map(|byte| self.letters.get(usize::from(byte))).collect();
            // A letter stands for a byte.
            let mut done = 0;
            for token in self.pairs.tokenize(&letters).map_err(failed)? {
                let (from, to) = token.offsets;
                let count = letters.get(from..to).map_or(0, |letters| letters.chars().count());
                add(token.id, start + done..start + done + count);
                done += count;
            }
        }
        Ok(text)
    }
}

/// Pairs of tokens that become one, the first first.
pub(crate) fn merges() -> std::io::Result<Vec<(String, String)>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&include_bytes!("../../assets/clip-merges.txt.gz")[..])
        .read_to_string(&mut text)?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).collect())
}

/// Each token and its id, in the order of the ids: bytes, bytes that end a word, merges, the two special ones.
pub(crate) fn vocabulary(merges: &[(String, String)]) -> Vec<(String, u32)> {
    let order = letters_in_order();
    let words = order.iter().map(|(_, letter)| format!("{letter}{END_OF_WORD}"));
    let single = order.iter().map(|(_, letter)| letter.to_string());
    let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let special = SPECIAL.iter().map(|(word, _)| (*word).to_owned());
    single.chain(words).chain(merged).chain(special).zip(0..).collect()
}

/// Each byte and the printable letter that stands for it, in the order of CLIP's ids: bytes that print as themselves
/// first, then the others from U+0100 on.
fn letters_in_order() -> Vec<(u8, char)> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (mut letters, mut rest) = (vec![], vec![]);
    for byte in 0..=255u8 {
        if prints(byte) {
            letters.push((byte, byte as char));
        } else {
            let code = 0x100 + rest.len() as u32;
            rest.extend(char::from_u32(code).map(|letter| (byte, letter)));
        }
    }
    letters.extend(rest);
    letters
}
