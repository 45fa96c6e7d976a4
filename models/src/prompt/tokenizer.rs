//! CLIP's byte-pair tokenizer, from merges embedded in the binary (`assets/NOTICE`).

use std::io::Read;
use std::sync::OnceLock;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::{Error, Result};

/// Begin of text.
pub const BOS: u32 = 49406;
/// End of text, and padding.
pub const EOS: u32 = 49407;
/// `,` as a word of its own.
pub const COMMA: u32 = 267;

/// Words, runs of letters, single digits, runs of anything else.
const PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Token ids of a text, without begin and end. Any text will do; it is normalised to NFC and lower case.
pub fn tokenize(text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer()?.encode_fast(text, false).map_err(|error| failed(&error))?;
    Ok(encoding.get_ids().to_vec())
}

/// Built at first use, once: it takes some tens of milliseconds.
fn tokenizer() -> Result<&'static Tokenizer> {
    static TOKENIZER: OnceLock<Result<Tokenizer, String>> = OnceLock::new();
    let built = TOKENIZER.get_or_init(|| build().map_err(|error| error.to_string()));
    built.as_ref().map_err(|error| failed(&error.as_str().into()))
}

fn failed(error: &tokenizers::Error) -> Error {
    Error::Request(format!("the prompt cannot be tokenised: {error}"))
}

fn build() -> tokenizers::Result<Tokenizer> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&include_bytes!("../../assets/clip-merges.txt.gz")[..])
        .read_to_string(&mut text)?;
    let merges: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect();
    // The order that gives each token its id: bytes, bytes that end a word, merges, the two special ones.
    let bytes = byte_letters();
    let words = bytes.iter().map(|letter| format!("{letter}</w>"));
    let letters = bytes.iter().map(ToString::to_string);
    let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let special = ["<|startoftext|>", "<|endoftext|>"];
    let tokens = letters.chain(words).chain(merged).chain(special.map(str::to_owned));
    let vocabulary: Vec<(String, u32)> = tokens.zip(0..).collect();
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<ahash::AHashMap<_, _>>(), merges)
        .end_of_word_suffix("</w>".to_owned())
        .unk_token("<|endoftext|>".to_owned())
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    let spaces =
        Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    tokenizer.with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))?;
    let split = Split::new(SplitPattern::Regex(PATTERN.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let level = ByteLevel::new(false, true, false);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![split.into(), level.into()])));
    tokenizer.add_special_tokens(special.map(|token| AddedToken::from(token, true)))?;
    Ok(tokenizer)
}

/// The printable letter that stands for each byte in a byte-level vocabulary, in the order of CLIP's ids:
/// bytes that print as themselves first, then the others from U+0100 on.
fn byte_letters() -> Vec<char> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (mut letters, mut rest): (Vec<char>, Vec<char>) = (vec![], vec![]);
    for byte in 0..=255u8 {
        if prints(byte) {
            letters.push(byte as char);
        } else {
            let code = 0x100 + rest.len() as u32;
            rest.extend(char::from_u32(code));
        }
    }
    letters.extend(rest);
    letters
}
