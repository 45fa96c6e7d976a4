//! PyTorch files put together by hand, as torch would never write them.

use std::io::Write;

/// One entry of an archive.
#[derive(Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    /// As they stand in the file.
    pub bytes: Vec<u8>,
    pub method: u16,
    /// What the directory says of its length unpacked.
    pub length: u32,
    /// Where the directory says it is, if that is a lie.
    pub offset: Option<u32>,
}

pub fn entry(name: &str, bytes: &[u8]) -> Entry {
    Entry { name: name.into(), bytes: bytes.to_vec(), method: 0, length: bytes.len() as u32, offset: None }
}

pub fn deflated(name: &str, bytes: &[u8]) -> Entry {
    let mut packed = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::best());
    packed.write_all(bytes).expect("packed");
    let packed = packed.finish().expect("packed");
    Entry { method: 8, length: bytes.len() as u32, ..entry(name, &packed) }
}

pub fn number(bytes: &mut Vec<u8>, value: u64, count: usize) {
    bytes.extend(&value.to_le_bytes()[..count]);
}

/// A ZIP archive without checksums.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    archive_of(entries, entries.len() as u64)
}

pub fn archive_of(entries: &[Entry], said: u64) -> Vec<u8> {
    let (mut file, mut directory) = (vec![], vec![]);
    for entry in entries {
        let offset = entry.offset.unwrap_or(file.len() as u32);
        let fields = |to: &mut Vec<u8>| {
            for (value, count) in
                [(20, 2), (0, 2), (u64::from(entry.method), 2), (0, 4), (0, 4), (entry.bytes.len() as u64, 4)]
            {
                number(to, value, count);
            }
            number(to, u64::from(entry.length), 4);
            number(to, entry.name.len() as u64, 2);
            number(to, 0, 2);
        };
        directory.extend(b"PK\x01\x02\x14\x00");
        fields(&mut directory);
        directory.extend([0; 10]);
        number(&mut directory, u64::from(offset), 4);
        directory.extend(&entry.name);
        file.extend(b"PK\x03\x04");
        fields(&mut file);
        file.extend(&entry.name);
        file.extend(&entry.bytes);
    }
    let start = file.len() as u64;
    let size = directory.len() as u64;
    file.extend(directory);
    file.extend(b"PK\x05\x06\x00\x00\x00\x00");
    number(&mut file, said, 2);
    number(&mut file, said, 2);
    number(&mut file, size, 4);
    number(&mut file, start, 4);
    number(&mut file, 0, 2);
    file
}

/// The archive of 2016 with one storage of a float, "0", whose parts that are storages too this pickle tells.
pub fn tar_with(parts: &[u8]) -> Vec<u8> {
    let mut storages = b"\x80\x02K\x01.\x80\x02K\x00U\x03cpuctorch\nFloatStorage\n\x87.".to_vec();
    number(&mut storages, 1, 8);
    storages.extend([&[7; 4], parts].concat());
    let mut file = vec![];
    for (name, bytes) in [
        ("sys_info", &b"\x80\x02}U\x0dlittle_endian\x88s."[..]),
        ("pickle", b"\x80\x02}U\x01wU\x011Qs."),
        ("tensors", b"\x80\x02K\x01.\x80\x02U\x011K\x00N\x87.\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("storages", &storages),
    ] {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        header[257..262].copy_from_slice(b"ustar");
        file.extend(header);
        file.extend(bytes);
        file.resize(file.len().next_multiple_of(512), 0);
    }
    file
}

/// An archive with this pickle and one storage of 64 bytes.
pub fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    archive(&[entry("a/data.pkl", pickle), entry("a/data/0", &[7; 64])])
}

/// The same pickle in the old stream.
pub fn stream_with(pickle: &[u8]) -> Vec<u8> {
    let mut file =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}".to_vec();
    file.extend(b"X\x0d\x00\x00\x00little_endian\x88s.");
    file.extend(pickle);
    file.extend(b"\x80\x02]X\x01\x00\x00\x000a.");
    number(&mut file, 16, 8);
    file.extend([7; 64]);
    file
}

/// The steps that make a tensor: 16 floats in storage "0", of this shape and these strides.
pub fn tensor(shape: &[u32], strides: &[u32], offset: u32) -> Vec<u8> {
    let sizes = |sizes: &[u32]| {
        let mut steps = b"(".to_vec();
        for size in sizes {
            steps.push(b'J');
            steps.extend(size.to_le_bytes());
        }
        steps.push(b't');
        steps
    };
    let mut steps =
        b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x10tQJ"
            .to_vec();
    steps.extend(offset.to_le_bytes());
    steps.extend(sizes(shape));
    steps.extend(sizes(strides));
    steps.extend(b"\x89NtR");
    steps
}

/// A dictionary with one tensor, and something else beside it.
pub fn beside(other: &[u8]) -> Vec<u8> {
    [b"\x80\x02}(U\x01w", &tensor(&[4, 4], &[4, 1], 0)[..], b"U\x01x", other, b"u."].concat()
}

pub fn dict_of(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02}U\x01w", value, b"s."].concat()
}
