//! EXIF with a user comment: where JPEG and WebP carry the infotext, written as A1111 writes it.

/// An EXIF block (TIFF, big-endian) with one folder in it, whose only entry is the comment in UTF-16.
pub(super) fn with_comment(text: &str) -> Vec<u8> {
    const EXIF_FOLDER: u16 = 0x8769;
    const USER_COMMENT: u16 = 0x9286;
    const LONG: u16 = 4;
    const UNDEFINED: u16 = 7;
    let mut comment = b"UNICODE\0".to_vec();
    comment.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
    // The header takes 8 bytes, each folder 18: a count, an entry, and where the next folder is.
    let mut block = b"MM\0*\0\0\0\x08".to_vec();
    block.extend(folder(EXIF_FOLDER, LONG, 1, 26));
    block.extend(folder(USER_COMMENT, UNDEFINED, comment.len() as u32, 44));
    block.extend(comment);
    block
}

/// A folder of one entry, with none after it.
fn folder(tag: u16, kind: u16, count: u32, value: u32) -> Vec<u8> {
    let mut folder = 1u16.to_be_bytes().to_vec();
    folder.extend(tag.to_be_bytes());
    folder.extend(kind.to_be_bytes());
    folder.extend(count.to_be_bytes());
    folder.extend(value.to_be_bytes());
    folder.extend([0; 4]);
    folder
}
