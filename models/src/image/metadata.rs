//! The infotext that a picture carries: PNG's text chunks, or EXIF's user comment, as A1111 looks for them
//! (`modules/images.py: read_info_from_image`). The picture itself is not decoded.

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::{PictureFormat, png, webp};
use crate::Result;

/// Bytes of a text that is told; a longer one is as if it were not there.
const LONGEST: usize = 1 << 20;
const KEYWORD: &[u8] = b"parameters";
/// What begins EXIF in a JPEG, and in some WebPs.
const EXIF: &[u8] = b"Exif\0\0";

/// The infotext of a PNG, JPEG or WebP. The comment in EXIF comes before PNG's `parameters`. What is damaged is as if it
/// were not there; an error is only what is no picture.
pub fn read_infotext(bytes: &[u8]) -> Result<Option<String>> {
    Ok(match PictureFormat::of(bytes)? {
        PictureFormat::Png => png_infotext(bytes),
        PictureFormat::Jpeg => jpeg_exif(bytes).and_then(user_comment),
        PictureFormat::WebP => webp::metadata(bytes, b"EXIF").and_then(user_comment),
    })
}

fn png_infotext(bytes: &[u8]) -> Option<String> {
    let exif = png::chunks(bytes).find(|(name, _)| name == b"eXIf");
    let comment = exif.and_then(|(_, content)| user_comment(content));
    comment.or_else(|| png_text(bytes, KEYWORD, LONGEST))
}

/// The last of a PNG's texts with this keyword that is no longer than `longest` bytes.
pub(crate) fn png_text(bytes: &[u8], keyword: &[u8], longest: usize) -> Option<String> {
    png::chunks(bytes).filter_map(|(name, content)| text_chunk(name, content, keyword, longest)).last()
}

/// The text of a chunk that has this keyword.
fn text_chunk(name: &[u8], content: &[u8], keyword: &[u8], longest: usize) -> Option<String> {
    let (_, rest) = until_zero(content).filter(|(found, _)| *found == keyword)?;
    let latin1 = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect();
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

fn until_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn within(text: &[u8], longest: usize) -> Option<&[u8]> {
    (text.len() <= longest).then_some(text)
}

fn unpacked(bytes: &[u8], longest: usize) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    ZlibDecoder::new(bytes).take(longest as u64 + 1).read_to_end(&mut text).ok()?;
    (text.len() <= longest).then_some(text)
}

/// The EXIF segment before a JPEG's first scan.
fn jpeg_exif(bytes: &[u8]) -> Option<&[u8]> {
    const APP1: u8 = 0xe1;
    let mut rest = bytes.get(2..)?;
    loop {
        let (marker, after) = rest.split_at_checked(2)?;
        match *marker {
            // Any number of these may fill the space before a marker.
            [0xff, 0xff] => rest = rest.get(1..)?,
            // Start of scan, end of image.
            [0xff, 0xda | 0xd9] => return None,
            [0xff, marker] => {
                let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
                let content = after.get(2..length)?;
                if let Some(exif) = content.strip_prefix(EXIF).filter(|_| marker == APP1) {
                    return Some(exif);
                }
                rest = after.get(length..)?;
            }
            _ => return None,
        }
    }
}

/// `UserComment` in EXIF's own folder.
fn user_comment(exif: &[u8]) -> Option<String> {
    const EXIF_FOLDER: u16 = 0x8769;
    const USER_COMMENT: u16 = 0x9286;
    let tiff = Tiff::new(exif.strip_prefix(EXIF).unwrap_or(exif))?;
    let folder = tiff.entry(tiff.u32(4)?, EXIF_FOLDER)?.value;
    let comment = tiff.entry(folder, USER_COMMENT)?;
    // Up to four bytes would stand in the entry itself: not even a comment's prefix.
    let start = comment.value as usize;
    let bytes = tiff.bytes.get(start..start.checked_add(comment.count as usize)?)?;
    let text = comment_text(within(bytes, LONGEST)?);
    (!text.is_empty()).then_some(text)
}

/// A comment without its 8 bytes of prefix.
fn comment_text(bytes: &[u8]) -> String {
    let text = match bytes.split_first_chunk::<8>() {
        Some((b"UNICODE\0", text)) => utf16(text),
        Some((b"ASCII\0\0\0" | b"\0\0\0\0\0\0\0\0", text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    text.trim_matches('\0').to_owned()
}

/// Big-endian, as piexif writes it into any file; little-endian where that makes far more of it letters of Latin.
fn utf16(bytes: &[u8]) -> String {
    let units = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    let zeros = |index: usize| units().filter(|pair| pair[index] == 0).count();
    let read = if zeros(1) > zeros(0) { u16::from_le_bytes } else { u16::from_be_bytes };
    let text = char::decode_utf16(units().map(read)).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
    text.collect::<String>().trim_start_matches('\u{feff}').to_owned()
}

/// The part of TIFF that EXIF is.
struct Tiff<'a> {
    bytes: &'a [u8],
    little_endian: bool,
}

struct Entry {
    count: u32,
    /// The value, or where it stands.
    value: u32,
}

impl<'a> Tiff<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let little_endian = match bytes.get(..4)? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        Some(Self { bytes, little_endian })
    }

    /// The entry of this tag in the folder at `offset`.
    fn entry(&self, offset: u32, tag: u16) -> Option<Entry> {
        const ENTRY: usize = 12;
        let folder = offset as usize;
        let mut entries = (0..usize::from(self.u16(folder)?)).map(|index| folder + 2 + index * ENTRY);
        let at = entries.find(|at| self.u16(*at) == Some(tag))?;
        Some(Entry { count: self.u32(at + 4)?, value: self.u32(at + 8)? })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.little_endian { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }
}
