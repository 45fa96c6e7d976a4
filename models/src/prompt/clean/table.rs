//! What is known of broken text, from `assets/clean-text.json.gz` (`assets/NOTICE`).

use std::collections::HashMap;
use std::io::Read;
use std::sync::OnceLock;

use regex::{Regex, bytes};
use serde::Deserialize;

use crate::{Error, Result};

/// The file's form.
#[derive(Deserialize)]
struct Asset {
    entities: HashMap<String, String>,
    letters: HashMap<char, String>,
    encodings: Vec<AssetEncoding>,
    mojibake: String,
    first_of_2: String,
    first_of_3: String,
    first_of_4: String,
    later: String,
    surely_later: String,
}

#[derive(Deserialize)]
struct AssetEncoding {
    name: String,
    upper: String,
}

/// Everything that cleaning looks up.
pub(super) struct Table {
    /// HTML's entities by name.
    pub entities: HashMap<String, String>,
    /// Ligatures, and characters of another width, with what stands for them.
    pub letters: HashMap<char, String>,
    /// Encodings that UTF-8 is mistaken for, in the order in which they are tried.
    pub encodings: Vec<Encoding>,
    /// Sequences that hardly anyone writes on purpose.
    pub mojibake: Regex,
    /// Roles of characters where UTF-8 was taken for one of the encodings.
    roles: HashMap<char, Roles>,
    /// An entity or a numeric reference.
    pub entity: Regex,
    /// Colours and the like for terminals.
    pub terminal: Regex,
    /// UTF-8 in which a space stands for the byte A0.
    pub lost_a0: bytes::Regex,
    /// UTF-8 of which bytes were lost.
    pub lost_bytes: bytes::Regex,
}

/// A one-byte encoding whose lower half is ASCII.
pub(super) struct Encoding {
    pub name: String,
    /// The characters of bytes 80 to FF.
    pub upper: Vec<char>,
    bytes: HashMap<char, u8>,
}

/// What a character may have been a byte of.
#[derive(Clone, Copy, Default)]
pub(super) struct Roles {
    /// The length of the sequence that it begins, or 0.
    pub first_of: usize,
    /// Not the first of a sequence.
    pub later: bool,
    /// The same, and hardly ever anything else.
    pub surely_later: bool,
}

impl Table {
    /// Built at first use, once.
    pub(super) fn get() -> Result<&'static Self> {
        static TABLE: OnceLock<Result<Table, String>> = OnceLock::new();
        let built = TABLE.get_or_init(|| Self::build().map_err(|error| error.to_string()));
        built.as_ref().map_err(|error| Error::Compute(format!("the tables for cleaning text: {error}")))
    }

    fn build() -> Result<Self, Box<dyn std::error::Error>> {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&include_bytes!("../../../assets/clean-text.json.gz")[..])
            .read_to_string(&mut text)?;
        let asset: Asset = serde_json::from_str(&text)?;
        let mut roles: HashMap<char, Roles> = HashMap::new();
        for (characters, length) in [(asset.first_of_2, 2), (asset.first_of_3, 3), (asset.first_of_4, 4)] {
            for character in characters.chars() {
                roles.entry(character).or_default().first_of = length;
            }
        }
        for character in asset.later.chars() {
            roles.entry(character).or_default().later = true;
        }
        for character in asset.surely_later.chars() {
            roles.entry(character).or_default().surely_later = true;
        }
        // Which bytes may go before and after the space: those that make likely letters of it, and no CJK.
        let lost_a0 = r"(?-u)[\xc2\xc3\xc5\xce\xd0\xd9]\x20|[\xe2\xe3]\x20[\x80-\x84\x86-\x9f\xa1-\xbf]|[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf]\x20|\xf0(?:\x20[\x80-\xbf]{2}|[\x80-\xbf]\x20[\x80-\xbf]|[\x80-\xbf]{2}\x20)";
        // 1A stands for a lost byte, and in longer sequences a question mark may stand for one of them.
        let lost_bytes = r"(?-u)[\xc2-\xdf]\x1a|[\xc2\xc3]\?|\xed[\xa0-\xaf](?:[\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]|[\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?])|[\xe0-\xef](?:[\x1a?][\x1a\x80-\xbf]|[\x1a\x80-\xbf][\x1a?])|[\xf0-\xf4](?:[\x1a?][\x1a\x80-\xbf]{2}|[\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]|[\x1a\x80-\xbf]{2}[\x1a?])|\x1a";
        Ok(Self {
            entities: asset.entities,
            letters: asset.letters,
            encodings: asset.encodings.into_iter().map(Encoding::new).collect(),
            mojibake: Regex::new(&asset.mojibake)?,
            roles,
            entity: Regex::new("&#?[0-9A-Za-z]{1,24};")?,
            terminal: Regex::new(r"\x1b\[[\d;]*[a-zA-Z]")?,
            lost_a0: bytes::Regex::new(lost_a0)?,
            lost_bytes: bytes::Regex::new(lost_bytes)?,
        })
    }

    pub(super) fn roles(&self, character: char) -> Roles {
        self.roles.get(&character).copied().unwrap_or_default()
    }
}

impl Encoding {
    fn new(asset: AssetEncoding) -> Self {
        let upper: Vec<char> = asset.upper.chars().collect();
        let bytes = upper.iter().copied().zip(0x80..=0xff).collect();
        Self { name: asset.name, upper, bytes }
    }

    /// Whether bytes without a meaning stand for the characters with their numbers, and 1A for one that was lost.
    pub(super) fn is_sloppy(&self) -> bool {
        self.name.starts_with("sloppy")
    }

    /// The text in this encoding, if that has all its characters.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let byte = |character: char| match character {
            '\u{1a}' if self.is_sloppy() => None,
            '\u{fffd}' if self.is_sloppy() => Some(0x1a),
            character if character.is_ascii() => Some(character as u8),
            character => self.bytes.get(&character).copied(),
        };
        text.chars().map(byte).collect()
    }
}
