//! EXIF as it is read: TIFF's folders, as far as texts stand in them.

/// What begins EXIF in a JPEG, and in some WebPs.
pub(super) const EXIF: &[u8] = b"Exif\0\0";

/// Texts of the first folder by EXIF's names for them.
const TEXTS: [(u16, &str); 4] =
    [(0x010e, "ImageDescription"), (0x010f, "Make"), (0x0110, "Model"), (0x0131, "Software")];

/// The part of TIFF that EXIF is.
pub(super) struct Tiff<'a> {
    bytes: &'a [u8],
    little_endian: bool,
}

struct Entry {
    /// Bytes of a text.
    count: u32,
    /// Where the value stands, if it is longer than this.
    value: u32,
    /// Where the entry's own four bytes for it are.
    at: usize,
}

impl<'a> Tiff<'a> {
    pub(super) fn new(exif: &'a [u8]) -> Option<Self> {
        let bytes = exif.strip_prefix(EXIF).unwrap_or(exif);
        let little_endian = match bytes.get(..4)? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        Some(Self { bytes, little_endian })
    }

    /// `UserComment` in EXIF's own folder, no longer than `longest` bytes, if it says something.
    pub(super) fn user_comment(&self, longest: usize) -> Option<String> {
        const EXIF_FOLDER: u16 = 0x8769;
        const USER_COMMENT: u16 = 0x9286;
        let folder = self.entry(self.u32(4)?, EXIF_FOLDER)?.value;
        let text = comment_text(self.content(&self.entry(folder, USER_COMMENT)?, longest)?);
        (!text.trim().is_empty()).then_some(text)
    }

    /// The number from 1 to 8 that says how the picture is to be turned.
    pub(super) fn orientation(&self) -> Option<u8> {
        const ORIENTATION: u16 = 0x0112;
        // Two bytes, the first of the four that an entry has for its value.
        let number = self.u16(self.entry(self.u32(4)?, ORIENTATION)?.at)?;
        u8::try_from(number).ok().filter(|number| (1..=8).contains(number))
    }

    /// The texts of the first folder, each no longer than `longest` bytes.
    pub(super) fn texts(&self, longest: usize) -> Vec<(&'static str, String)> {
        let text = |tag| {
            let content = self.content(&self.entry(self.u32(4)?, tag)?, longest)?;
            let text = String::from_utf8_lossy(content).trim_matches('\0').to_owned();
            (!text.trim().is_empty()).then_some(text)
        };
        TEXTS.iter().filter_map(|(tag, name)| Some((*name, text(*tag)?))).collect()
    }

    fn content(&self, entry: &Entry, longest: usize) -> Option<&'a [u8]> {
        const OWN: usize = 4;
        let count = entry.count as usize;
        let start = if count <= OWN { entry.at } else { entry.value as usize };
        self.bytes.get(start..start.checked_add(count)?).filter(|_| count <= longest)
    }

    /// The entry of this tag in the folder at `offset`.
    fn entry(&self, offset: u32, tag: u16) -> Option<Entry> {
        const ENTRY: usize = 12;
        let folder = offset as usize;
        let mut entries = (0..usize::from(self.u16(folder)?)).map(|index| folder + 2 + index * ENTRY);
        let at = entries.find(|at| self.u16(*at) == Some(tag))?;
        Some(Entry { count: self.u32(at + 4)?, value: self.u32(at + 8)?, at: at + 8 })
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
