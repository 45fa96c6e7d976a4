//! Pictures as other programs write them, and as hostile ones do. The files and what Pillow makes of them come from
//! `tests/fixtures/pictures.py`.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

const MOST: u64 = 1 << 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pictures")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All files and their bytes.
fn all() -> Vec<(String, Vec<u8>)> {
    let names = fs::read_dir(folder()).expect("fixtures").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| [".png", ".jpg", ".webp"].iter().any(|ending| name.ends_with(ending)));
    names.sort();
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

#[test]
fn every_form_is_read_as_pillow_reads_it() {
    let told: serde_json::Value = serde_json::from_slice(&read("pictures.json")).expect("JSON");
    for (name, told) in told.as_object().expect("a map") {
        let bytes = read(name);
        let number = |key: &str| told[key].as_u64().expect("a number");
        let header = PictureHeader::read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let picture = Picture::decode(&bytes, MOST).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (picture.width as u64, picture.height as u64),
            (number("width"), number("height")),
            "{name}"
        );
        assert_eq!((u64::from(header.width), u64::from(header.height)), (number("width"), number("height")));
        assert_eq!(picture.channels.count() as u64, number("channels"), "{name}");
        let digits = told["pixels"].as_str().expect("text").as_bytes().chunks_exact(2);
        let pixels: Vec<u8> = digits
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("text"), 16).expect("hex"))
            .collect();
        let apart = picture.pixels.iter().zip(&pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or_default();
        // What a decoder may do: rounding of the transform, of the colours, and another filter between colours that are
        // stored at half size (full-colour.jpg is not).
        let allowed = match (header.format, name.as_str()) {
            (PictureFormat::Jpeg, "grey.jpg") => 1,
            (PictureFormat::Jpeg, "full-colour.jpg" | "cmyk.jpg") => 3,
            (PictureFormat::Jpeg, _) => 8,
            (PictureFormat::WebP, name) if name.starts_with("lossy") => 2,
            (PictureFormat::Png | PictureFormat::WebP, _) => 0,
        };
        assert!(apart <= allowed, "{name}: {apart} apart");
        assert_eq!(picture.pixels.len(), pixels.len(), "{name}");
    }
}

#[test]
fn infotexts_are_found_wherever_they_are() {
    let infotext = String::from_utf8(read("infotext.txt")).expect("text");
    let latin = infotext.replace('„', "«").replace('“', "»");
    let ascii = infotext.replace(['„', '“'], "'");
    for (name, bytes) in all() {
        let expected = match name.as_str() {
            "infotext-text.png" | "infotext-text-packed.png" => Some(&latin),
            "infotext-ascii.jpg" => Some(&ascii),
            name if name.starts_with("infotext") => Some(&infotext),
            _ => None,
        };
        assert_eq!(read_infotext(&bytes).expect("a picture").as_ref(), expected, "{name}");
    }
    assert_eq!(Infotext::parse(&infotext).to_string(), infotext);
    let white = RgbImage { width: 1, height: 1, pixels: vec![255; 3] };
    for text in [infotext, latin] {
        assert_eq!(read_infotext(&encode_png(&white, &text).expect("encodes")).expect("read"), Some(text));
    }
}

#[test]
fn opacity_is_written_where_the_format_has_it() {
    let pixels: Vec<u8> = (0..=255).flat_map(|at: u8| [at, 7, 90, at]).collect();
    let picture = Picture { width: 16, height: 16, channels: Channels::Rgba, pixels };
    for format in [PictureFormat::Png, PictureFormat::WebP] {
        let bytes = picture.encode(format, "a cat").expect("encodes");
        assert_eq!(Picture::decode(&bytes, MOST).expect("decodes"), picture, "{format:?}");
        assert_eq!(read_infotext(&bytes).expect("read").as_deref(), Some("a cat"));
    }
    let white = picture.over_colour([255; 3]).expect("laid over").into_rgb();
    let jpeg = picture.encode(PictureFormat::Jpeg, "").expect("encodes");
    assert_eq!(jpeg, white.encode(PictureFormat::Jpeg, "").expect("encodes"));
    let grey = Picture { width: 16, height: 16, channels: Channels::Grey, pixels: (0..=255).collect() };
    let png = grey.encode(PictureFormat::Png, "").expect("encodes");
    assert_eq!(Picture::decode(&png, MOST).expect("decodes"), grey);
    let webp = grey.encode(PictureFormat::WebP, "").expect("encodes");
    assert_eq!(Picture::decode(&webp, MOST).expect("decodes").into_rgb(), grey.into_rgb());
}

#[test]
fn what_is_written_says_how_it_was_made_in_every_format() {
    let side = 40;
    let pixels =
        (0..side * side).flat_map(|at| [at % side * 6, at / side * 6, 128].map(|c| c as u8)).collect();
    let image = RgbImage { width: side, height: side, pixels };
    let texts = ["", "a cat\nSteps: 20, Seed: 1, CFG scale: 7", "„雪 🗼“ \u{1b}[0m", &"x".repeat(30_000)];
    for format in [PictureFormat::Png, PictureFormat::Jpeg, PictureFormat::WebP] {
        for text in texts {
            let bytes = image.encode(format, text).expect("encodes");
            assert_eq!(PictureFormat::of(&bytes).expect("a picture"), format);
            let expected = (!text.is_empty()).then(|| text.to_owned());
            assert_eq!(read_infotext(&bytes).expect("read"), expected, "{format:?}");
            let back = Picture::decode(&bytes, MOST).expect("decodes").into_rgb();
            let apart =
                back.pixels.iter().zip(&image.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            assert!(apart <= if format == PictureFormat::Jpeg { 20 * back.pixels.len() as u64 } else { 0 });
        }
    }
    // What does not fit is refused, not cut off.
    let long = "🗼".repeat(20_000);
    let error = image.encode(PictureFormat::Jpeg, &long).expect_err("refused").to_string();
    assert!(error.contains("jpeg: 40000 characters") && error.contains("use png or webp"), "{error}");
    PictureFormat::Jpeg.check_infotext(32_000).expect("fits");
    let bytes = image.encode(PictureFormat::WebP, &long).expect("encodes");
    assert_eq!(read_infotext(&bytes).expect("read"), Some(long));
    for (extension, format) in
        [("JPG", Some(PictureFormat::Jpeg)), ("webp", Some(PictureFormat::WebP)), ("gif", None)]
    {
        assert_eq!(PictureFormat::from_extension(extension), format);
    }
}

#[test]
fn what_is_no_picture_is_refused_with_what_it_is() {
    for (bytes, expected) in [
        (&b""[..], "no bytes"),
        (b"GIF89a.....", "'GIF89a..…' begins no PNG, JPEG or WebP"),
        (b"\x89PNG\r\n\x1a\n", "png: "),
        (b"\xff\xd8\xff\xd9", "jpeg: "),
        (b"RIFF\x04\0\0\0WEBP", "webp: "),
    ] {
        let error = Picture::decode(bytes, MOST).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_cut_short_is_an_error() {
    for (name, bytes) in all() {
        // The last bytes of a PNG and of an animation are no pixels, and of metadata neither.
        let skipped = if name.starts_with("animated") { bytes.len() / 2 } else { 13 };
        if name.starts_with("infotext") {
            continue;
        }
        for length in (0..bytes.len() - skipped).step_by(3) {
            let cut = Picture::decode(&bytes[..length], MOST);
            assert!(cut.is_err(), "{name}, {length} of {} bytes", bytes.len());
        }
    }
}

/// What is promised in a header alone is refused by its size, before memory is taken.
#[test]
fn headers_beyond_reason_are_refused() {
    let size = |at: usize, bytes: &[u8], side: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + side.len()].copy_from_slice(side);
        bytes
    };
    let png = |side: u32, colour: u8| {
        let mut bytes = size(16, &read("rgb.png"), &side.to_be_bytes());
        bytes[20..24].copy_from_slice(&side.to_be_bytes());
        bytes[25] = colour;
        let sum = crc(&bytes[12..29]);
        size(29, &bytes, &sum.to_be_bytes())
    };
    let jpeg = read("rgb.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
    let extended = read("lossy-alpha.webp");
    let still = read("lossy.webp");
    let stream = extended.windows(4).position(|name| name == b"VP8 ").expect("a stream");
    let huge = [0xff, 0x3f, 0xff, 0x3f];
    for (what, bytes, expected) in [
        ("a PNG", png(i32::MAX as u32, 0), "png: "),
        ("a PNG with opacity", png(i32::MAX as u32, 6), "png: "),
        ("a PNG of a few GiB", png(1 << 16, 2), "png: 65536x65536 takes 12884901888 bytes of pixels"),
        ("a JPEG", size(frame + 5, &jpeg, &[0xff; 4]), "jpeg: 65535x65535 takes"),
        ("a WebP", size(26, &still, &huge), "webp: 16383x16383 takes"),
        // Canvas and frame: the decoder would take memory by either.
        ("a WebP's canvas", size(24, &extended, &[0xff, 0xff, 0, 0xff, 0xff, 0]), "webp: "),
        (
            "a WebP's frame",
            size(stream + 14, &extended, &huge),
            "webp: a frame is 16383x16383, the picture 20x13",
        ),
    ] {
        let error = Picture::decode(&bytes, 64 << 20).expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    // A bomb: a megabyte that unpacks to a gigabyte.
    let bomb = RgbImage { width: 4096, height: 4096, pixels: vec![0; 4096 * 4096 * 3] };
    let bomb = encode_png(&bomb, "").expect("encodes");
    assert!(bomb.len() < 1 << 20);
    let error = Picture::decode(&bomb, 16 << 20).expect_err("refused").to_string();
    assert!(error.ends_with("4096x4096 takes 50331648 bytes of pixels, 16777216 are allowed"), "{error}");
    Picture::decode(&bomb, 48 << 20).expect("as much as is allowed");
}

/// Texts that unpack to more than is told are as if they were not there.
#[test]
fn texts_beyond_reason_are_left_out() {
    let white = RgbImage { width: 1, height: 1, pixels: vec![255; 3] };
    let png = encode_png(&white, &"a".repeat(2 << 20)).expect("encodes");
    assert_eq!(read_infotext(&png).expect("a picture"), None);
    let mut packed = flate2::write::ZlibEncoder::new(b"parameters\0\0".to_vec(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, &vec![b'a'; 1 << 28]).expect("packed");
    let content = packed.finish().expect("packed");
    let mut bomb = encode_png(&white, "").expect("encodes");
    let chunk = [b"zTXt", content.as_slice()].concat();
    let length = (content.len() as u32).to_be_bytes();
    let sum = crc(&chunk).to_be_bytes();
    bomb.splice(33..33, [&length[..], &chunk, &sum].concat());
    assert_eq!(read_infotext(&bomb).expect("a picture"), None);
    Picture::decode(&bomb, MOST).expect("the pixels are sound");
}

/// A PNG with these chunks behind its header.
fn with_chunks(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let white = RgbImage { width: 1, height: 1, pixels: vec![255; 3] };
    let mut png = encode_png(&white, "").expect("encodes");
    let parts = chunks.iter().flat_map(|(name, content)| {
        let chunk = [&name[..], content].concat();
        [(content.len() as u32).to_be_bytes().to_vec(), chunk.clone(), crc(&chunk).to_be_bytes().to_vec()]
    });
    let parts: Vec<Vec<u8>> = parts.collect();
    png.splice(33..33, parts.concat());
    png
}

#[test]
fn texts_of_other_programs_are_told_as_they_are() {
    let told = |bytes: &[u8]| read_texts(bytes).expect("a picture");
    let named = |keyword: &str, text: &str| [keyword.as_bytes(), b"\0", text.as_bytes()].concat();
    let png = with_chunks(&[
        (b"tEXt", &named("prompt", "{}")),
        (b"iTXt", &named("workflow", "\0\0\0\0„x“")),
        (b"tEXt", &named("parameters", "a cat")),
        (b"tEXt", &named("prompt", "{\"1\": 2}")),
        (b"tEXt", b"no keyword"),
    ]);
    let others = [("prompt", "{\"1\": 2}"), ("workflow", "„x“")];
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
    };
    assert_eq!(told(&png), Texts { infotext: Some("a cat".into()), others: pairs(&others) });

    // As A1111's images browser and ComfyUI's savers of WebP leave them.
    let mut exif = b"MM\0*\0\0\0\x08\0\x02".to_vec();
    for (tag, count, value) in [(0x010fu16, 3u32, u32::from_be_bytes(*b"me\0\0")), (0x0131, 8, 38)] {
        exif.extend(tag.to_be_bytes());
        exif.extend(2u16.to_be_bytes());
        exif.extend(count.to_be_bytes());
        exif.extend(value.to_be_bytes());
    }
    exif.extend([0; 4]);
    exif.extend(b"ComfyUI\0");
    let segment = |marker: u8, content: &[u8]| {
        [&[0xff, marker][..], &(content.len() as u16 + 2).to_be_bytes(), content].concat()
    };
    let white = RgbImage { width: 8, height: 8, pixels: vec![255; 192] };
    let mut jpeg = white.encode(PictureFormat::Jpeg, "").expect("encodes");
    let segments = [
        segment(0xe1, &[&b"Exif\0\0"[..], &exif].concat()),
        segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        segment(0xfe, b"drawn by hand"),
    ];
    jpeg.splice(2..2, segments.concat());
    let others = [
        ("comment", "drawn by hand"),
        ("exif:Make", "me"),
        ("exif:Software", "ComfyUI"),
        ("XML:com.adobe.xmp", "<x/>"),
    ];
    assert_eq!(told(&jpeg), Texts { infotext: None, others: pairs(&others) });
    jpeg.splice(2..2, segment(0xfe, b"first"));
    let end = jpeg.windows(13).position(|window| window == b"drawn by hand").expect("a comment");
    let text = b"Steps: 1, Seed: 2, Size: 8x8";
    jpeg.splice(end - 4..end + 13, segment(0xfe, text));
    assert_eq!(
        told(&jpeg).infotext.as_deref(),
        Some("Steps: 1, Seed: 2, Size: 8x8"),
        "an infotext there is one"
    );
}

#[test]
fn hostile_texts_are_bounded() {
    let mut packed = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::best());
    std::io::Write::write_all(&mut packed, &vec![b'a'; 1 << 20]).expect("packed");
    let packed = packed.finish().expect("packed");
    let bombs: Vec<Vec<u8>> =
        (0..20_000).map(|index| [format!("k{index}").as_bytes(), b"\0\0", &packed].concat()).collect();
    let chunks: Vec<(&[u8; 4], &[u8])> = bombs.iter().map(|bomb| (b"zTXt", bomb.as_slice())).collect();
    let texts = read_texts(&with_chunks(&chunks)).expect("a picture");
    assert!(texts.others.iter().map(|(_, text)| text.len()).sum::<usize>() <= 4 << 20);
    assert_eq!(texts.others.len(), 3);
    let same: Vec<(&[u8; 4], Vec<u8>)> =
        (0..20_000).map(|_| (b"zTXt", [b"parameters\0\0", &packed[..packed.len() - 1]].concat())).collect();
    let same: Vec<(&[u8; 4], &[u8])> =
        same.iter().map(|(name, content)| (*name, content.as_slice())).collect();
    assert_eq!(read_texts(&with_chunks(&same)).expect("a picture"), Texts::default());
}

#[test]
fn raw_pixels_must_be_as_many_as_their_sizes_say() {
    for (length, width, height, channels, expected) in [
        (6, 2, 1, 3, None),
        (2, 2, 1, 1, None),
        (8, 2, 1, 4, None),
        (7, 2, 1, 3, Some("raw: 2x1 with 3 channels is 6 bytes, 7 are given")),
        (4, 2, 1, 2, Some("channels: 2 is none of 1 (grey), 3 (RGB), 4 (RGBA)")),
        (0, 0, 5, 3, Some("raw: 0x5 has no pixels; width and height must be at least 1")),
        (3, u32::MAX, u32::MAX, 4, Some("4 channels is 18446744073709551615 bytes")),
    ] {
        let outcome = Picture::from_raw(vec![7; length], width, height, channels);
        match expected {
            None => assert_eq!(outcome.expect("taken").into_rgb().pixels, [7; 6]),
            Some(expected) => {
                let error = outcome.expect_err("refused").to_string();
                assert!(error.contains(expected), "{error}");
            }
        }
    }
}

#[test]
fn opacity_is_kept() {
    let picture = Picture::from_raw(vec![1, 2, 3, 4, 5, 6, 7, 8], 2, 1, 4).expect("taken");
    assert_eq!(picture.alpha(), Some(vec![4, 8]));
    assert_eq!(picture.into_rgb().pixels, [1, 2, 3, 5, 6, 7]);
    assert_eq!(Picture::from_raw(vec![1, 2, 3], 1, 1, 3).expect("taken").alpha(), None);
}

#[test]
fn what_is_read_from_a_file_is_bounded() {
    assert_eq!(read_encoded(&b"abc"[..], 3).expect("read"), b"abc");
    let error = read_encoded(std::io::repeat(0), 1000).expect_err("refused").to_string();
    assert_eq!(error, "picture: more than 1000 bytes, which is the limit");
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A palette whose last colour is cut short, with opacities: png 0.18.1 panics.
#[test]
fn a_panic_of_a_decoder_is_an_error() {
    let mut bytes = read("palette-alpha.png");
    let palette = bytes.windows(4).position(|name| name == b"PLTE").expect("a palette");
    bytes[palette - 1] -= 2;
    bytes.drain(palette + 4..palette + 6);
    let bytes = repaired(&bytes).expect("chunks");
    PictureHeader::read(&bytes).expect("nothing is wrong yet");
    let error = Picture::decode(&bytes, MOST).expect_err("refused").to_string();
    assert_eq!(error, "png: it is damaged in a way that the decoder does not know");
}

/// A real file with some bytes changed, some taken out and some put in.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0..4u8, any::<[u8; 4]>());
    let changes = proptest::collection::vec(change, 1..8);
    (prop::sample::select(all()), changes).prop_map(|((_, mut bytes), changes)| {
        for (place, kind, values) in changes {
            let at = place.index(bytes.len());
            let end = (at + usize::from(values[0]) % 16).min(bytes.len());
            match kind {
                0 => bytes[at] = values[1],
                1 => bytes[at] ^= 1 << (values[1] % 8),
                2 if bytes.len() > 64 => drop(bytes.drain(at..end)),
                _ => drop(bytes.splice(at..at, values)),
            }
        }
        // So that changes reach what is behind the checksums.
        repaired(&bytes).unwrap_or(bytes)
    })
}

/// A PNG with checksums that are right again.
fn repaired(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let mut at = bytes.starts_with(b"\x89PNG").then_some(8)?;
    while let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let end = at.checked_add(8)?.checked_add(u32::from_be_bytes(*length) as usize)?;
        let sum = crc(bytes.get(at + 4..end)?).to_be_bytes();
        bytes.get_mut(end..end + 4)?.copy_from_slice(&sum);
        at = end + 4;
    }
    Some(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_an_error_or_a_picture(bytes in mutated()) {
        let picture = Picture::decode(&bytes, MOST);
        if let Ok(picture) = picture {
            prop_assert_eq!(picture.pixels.len(), picture.width * picture.height * picture.channels.count());
            prop_assert!(picture.pixels.len() as u64 <= MOST);
        }
        read_infotext(&bytes).ok();
    }
}
