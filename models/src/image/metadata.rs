//! The texts that a picture carries: PNG's text chunks, EXIF, XMP, a JPEG's comment. The picture itself is not decoded.
//!
//! The infotext is looked for as A1111 does (`modules/images.py: read_info_from_image`); what other programs left is told
//! as it is. What is damaged, or beyond reason in length or number, is as if it were not there.

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::tiff::{EXIF, Tiff};
use super::{Infotext, PictureFormat, png, webp};
use crate::Result;

/// Bytes of a text that is told.
const LONGEST: usize = 1 << 20;
/// Bytes of all other texts together, and how many are looked at.
const LONGEST_OTHERS: usize = 4 << 20;
const MOST_OTHERS: usize = 64;
const KEYWORD: &[u8] = b"parameters";
const XMP: &str = "XML:com.adobe.xmp";

/// What is written in a picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// A1111's `parameters` text, or whatever another program has in its place.
    pub infotext: Option<String>,
    /// The other texts by their keywords: PNG's own, EXIF's names behind `exif:`, `XML:com.adobe.xmp`, and `comment` for a
    /// JPEG's. Of several of one keyword it is the last.
    pub others: Vec<(String, String)>,
}

/// The texts of a PNG, JPEG or WebP. An error is only what is no picture.
pub fn read_texts(bytes: &[u8]) -> Result<Texts> {
    Ok(Found::of(bytes)?.texts())
}

/// The infotext of a PNG, JPEG or WebP.
pub fn read_infotext(bytes: &[u8]) -> Result<Option<String>> {
    Ok(read_texts(bytes)?.infotext)
}

/// The EXIF block of a PNG, JPEG or WebP, if it has one.
pub(super) fn exif(bytes: &[u8]) -> Result<Option<&[u8]>> {
    Ok(Found::of(bytes)?.exif)
}

/// What there is, before it is read.
#[derive(Default)]
struct Found<'a> {
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
    comment: Option<&'a [u8]>,
    /// The file, if it is a PNG.
    png: Option<&'a [u8]>,
}

impl<'a> Found<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self> {
        let mut found = Found::default();
        match PictureFormat::of(bytes)? {
            PictureFormat::Png => {
                found.exif = png::chunks(bytes).find(|(name, _)| name == b"eXIf").map(|(_, content)| content);
                found.png = Some(bytes);
            }
            PictureFormat::Jpeg => {
                for (marker, content) in jpeg_segments(bytes) {
                    const XMP_SEGMENT: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
                    match marker {
                        0xe1 if content.starts_with(EXIF) => found.exif = found.exif.or(Some(content)),
                        0xe1 => found.xmp = found.xmp.or(content.strip_prefix(XMP_SEGMENT)),
                        0xfe => found.comment = Some(content),
                        _ => {}
                    }
                }
            }
            PictureFormat::WebP => {
                found.exif = webp::metadata(bytes, b"EXIF");
                found.xmp = webp::metadata(bytes, b"XMP ");
            }
        }
        Ok(found)
    }

    /// The comment in EXIF comes before PNG's `parameters`, and that before a JPEG's comment, if it is an infotext.
    fn texts(self) -> Texts {
        let lossy = |text: &[u8]| {
            let text = String::from_utf8_lossy(within(text, LONGEST)?).trim_matches('\0').to_owned();
            (!text.trim().is_empty()).then_some(text)
        };
        let tiff = self.exif.and_then(Tiff::new);
        let mut infotext = tiff.as_ref().and_then(|tiff| tiff.user_comment(LONGEST));
        let mut others = self.png.map(png_others).unwrap_or_default();
        let mut take = |keyword: &str, text: Option<String>, is_infotext: bool| match text {
            Some(text) if is_infotext && infotext.is_none() => infotext = Some(text),
            Some(text) => others.push((keyword.to_owned(), text)),
            None => {}
        };
        take("parameters", self.png.and_then(|bytes| png_text(bytes, KEYWORD, LONGEST)), true);
        let comment = self.comment.and_then(lossy);
        let is_infotext = comment.as_deref().is_some_and(|text| !Infotext::parse(text).fields.is_empty());
        take("comment", comment, is_infotext);
        for (name, text) in tiff.map(|tiff| tiff.texts(LONGEST)).unwrap_or_default() {
            take(&format!("exif:{name}"), Some(text), false);
        }
        take(XMP, self.xmp.and_then(lossy), false);
        let mut left = LONGEST_OTHERS;
        others.retain(|(keyword, text)| {
            let rest = left.checked_sub(keyword.len() + text.len());
            left = rest.unwrap_or(left);
            rest.is_some()
        });
        Texts { infotext, others }
    }
}

/// The texts of a PNG but its `parameters`. Only those that are told are unpacked.
fn png_others(bytes: &[u8]) -> Vec<(String, String)> {
    let is_text = |name: &[u8]| [b"tEXt", b"zTXt", b"iTXt"].iter().any(|each| name == *each);
    let mut chunks: Vec<(&[u8], &[u8], &[u8])> = vec![];
    for (name, content) in png::chunks(bytes).filter(|(name, _)| is_text(name)) {
        let Some((keyword, _)) = until_zero(content).filter(|(keyword, _)| *keyword != KEYWORD) else {
            continue;
        };
        if let Some(same) = chunks.iter_mut().find(|(other, _, _)| *other == keyword) {
            *same = (keyword, name, content);
        } else if chunks.len() < MOST_OTHERS {
            chunks.push((keyword, name, content));
        }
    }
    let texts = chunks.into_iter().filter_map(|(keyword, name, content)| {
        Some((latin1(keyword), text_chunk(name, content, keyword, LONGEST)?))
    });
    texts.collect()
}

/// The last of a PNG's texts with this keyword that is no longer than `longest` bytes.
pub(crate) fn png_text(bytes: &[u8], keyword: &[u8], longest: usize) -> Option<String> {
    /// Each may take time to unpack.
    const MOST: usize = 16;
    let is_named = |content: &[u8]| content.strip_prefix(keyword).is_some_and(|rest| rest.starts_with(&[0]));
    let chunks: Vec<_> = png::chunks(bytes).filter(|(_, content)| is_named(content)).collect();
    let mut last = chunks.iter().rev().take(MOST);
    last.find_map(|(name, content)| text_chunk(name, content, keyword, longest))
}

/// The text of a chunk that has this keyword.
fn text_chunk(name: &[u8], content: &[u8], keyword: &[u8], longest: usize) -> Option<String> {
    let (_, rest) = until_zero(content).filter(|(found, _)| *found == keyword)?;
    let within = |text| within(text, longest);
    let unpacked = |text| unpacked(text, longest);
    match (name, rest) {
        (b"tEXt", text) => within(text).map(latin1),
        (b"zTXt", [0, packed @ ..]) => unpacked(packed).map(|text| latin1(&text)),
        (b"iTXt", [packed, 0, rest @ ..]) => {
            let (_language, rest) = until_zero(rest)?;
            let (_translated, text) = until_zero(rest)?;
            let text = if *packed == 0 { within(text)?.to_owned() } else { unpacked(text)? };
            String::from_utf8(text).ok()
        }
        _ => None,
    }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn until_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn within(text: &[u8], longest: usize) -> Option<&[u8]> {
    (text.len() <= longest).then_some(text)
}

pub(super) fn unpacked(bytes: &[u8], longest: usize) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    ZlibDecoder::new(bytes).take(longest as u64 + 1).read_to_end(&mut text).ok()?;
    (text.len() <= longest).then_some(text)
}

/// The segments before a JPEG's first scan, each with its marker; what is damaged ends them.
pub(super) fn jpeg_segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        // Any number of these may fill the space before a marker.
        while rest.starts_with(&[0xff, 0xff]) {
            rest = rest.get(1..)?;
        }
        let (marker, after) = rest.split_at_checked(2)?;
        match *marker {
            // Start of scan, end of image.
            [0xff, 0xda | 0xd9] => None,
            [0xff, marker] => {
                let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
                let content = after.get(2..length)?;
                rest = after.get(length..)?;
                Some((marker, content))
            }
            _ => None,
        }
    })
}
