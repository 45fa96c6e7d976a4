//! Embeddings that travel in pictures, as A1111 writes them (`modules/textual_inversion/image_embedding.py`): a text in a
//! PNG, or in the lower halves of the pixels left and right of the picture. Nothing of a picture is believed before its
//! size was checked.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use flate2::read::ZlibDecoder;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::embedding::{Embedding, MOST_VECTORS, WIDEST, check_sizes};
use crate::image::{Picture, PictureFormat, PictureHeader, RgbImage, png_text};
use crate::{Error, Result};

/// Bytes of an encoded picture that is looked into: far more than 75 vectors and a picture need.
pub const LARGEST_PICTURE: u64 = 64 << 20;

/// Bytes of its pixels.
const MOST_PIXELS: u64 = 96 << 20;

/// The keyword of the text.
const KEYWORD: &[u8] = b"sd-ti-embedding";

/// Bytes of the JSON that describes an embedding: 20 for each number of a largest one, some to spare.
const LONGEST_JSON: usize = 16 << 20;

/// Bytes of a name that is believed: those of a file's.
const LONGEST_NAME: usize = 255;

/// What a picture carries.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureEmbedding {
    /// The name that it was trained under, which comes before the file's.
    pub name: Option<String>,
    /// Its vectors.
    pub embedding: Embedding,
}

/// Reads the embedding that a PNG or WebP carries; `None` if it carries none, is larger than any that does
/// ([`LARGEST_PICTURE`]), or is no such picture. `path` is what errors call it.
///
/// # Errors
/// If there is an embedding, and it is damaged or none that can be used.
pub fn embedding_of_picture(path: &Path, bytes: &[u8]) -> Result<Option<PictureEmbedding>> {
    if bytes.len() as u64 > LARGEST_PICTURE {
        return Ok(None);
    }
    let wrong = |reason: String| Error::model(path, format!("the embedding in this picture {reason}"));
    let json = match PictureFormat::of(bytes) {
        Ok(PictureFormat::Png) => match png_text(bytes, KEYWORD, LONGEST_JSON / 3 * 4 + 4) {
            Some(text) => Some(from_base64(text.as_bytes()).ok_or_else(|| wrong("is damaged".to_owned()))?),
            None => hidden(bytes).map_err(wrong)?,
        },
        Ok(PictureFormat::WebP) => hidden(bytes).map_err(wrong)?,
        Ok(PictureFormat::Jpeg) | Err(_) => None,
    };
    let Some(json) = json else { return Ok(None) };
    let said: Said =
        serde_json::from_slice(&json).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let Vectors(rows) = said.string_to_param.0;
    let width = rows.first().map_or(0, Vec::len);
    check_sizes(rows.len(), width).map_err(wrong)?;
    if rows.iter().any(|row| row.len() != width) {
        return Err(wrong("has vectors of different lengths".to_owned()));
    }
    if rows.iter().flatten().any(|value| !value.is_finite()) {
        return Err(wrong("has numbers that are not finite".to_owned()));
    }
    let vectors: Vec<Arc<[f32]>> = rows.into_iter().map(Arc::from).collect();
    let name = said.name.filter(|name| !name.is_empty() && name.len() <= LONGEST_NAME);
    Ok(Some(PictureEmbedding { name, embedding: Embedding::new(path, vectors, vec![])? }))
}

/// The JSON that the pixels hide, if they hide any; what is wrong with it.
fn hidden(bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let Some(packed) = hidden_bytes(bytes) else { return Ok(None) };
    let mut json = vec![];
    // The last columns are filled up with anything.
    let inflated = ZlibDecoder::new(&*packed).take(LONGEST_JSON as u64 + 1).read_to_end(&mut json);
    match inflated {
        Ok(_) if json.len() > LONGEST_JSON => Err(format!("is more than {LONGEST_JSON} bytes of text")),
        Ok(_) => Ok(Some(json)),
        Err(_) if json.starts_with(b"{") => Err("is damaged".to_owned()),
        // Black columns by chance.
        Err(_) => Ok(None),
    }
}

/// What the pixels say where the picture stands between two blocks, with a black column on either side: the lower half of
/// each number in the left block, and in the right one, is one half of a byte.
fn hidden_bytes(bytes: &[u8]) -> Option<Vec<u8>> {
    PictureHeader::read(bytes).ok()?.check(MOST_PIXELS).ok()?;
    let image = Picture::decode(bytes, MOST_PIXELS).ok()?.into_rgb();
    let Area { left, right, top, bottom } = inner(&image)?;
    let half = |x: usize, y: usize, channel: usize| {
        image.pixels.get((y * image.width + x) * 3 + channel).map_or(0, |value| value & 0x0f)
    };
    let is_black = |x: usize| (top..bottom).all(|y| (0..3).all(|channel| half(x, y, channel) == 0));
    let mut black = (left..right).filter(|x| is_black(*x));
    let (first, last) = (black.next()?, black.next_back()?);
    let width = first - left;
    if width == 0 || right - (last + 1) != width {
        return None;
    }
    let places = (top..bottom).flat_map(|y| (0..width * 3).map(move |at| (at / 3, y, at % 3)));
    let packed = places.zip(Noise::default()).map(|((x, y, channel), noise)| {
        let low = half(left + x, y, channel) ^ noise;
        let high = half(last + 1 + x, y, channel) ^ noise;
        high << 4 | low
    });
    Some(packed.collect())
}

/// A part of a picture: columns from `left` to before `right`, rows likewise.
struct Area {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

/// The picture without black borders. A pixel counts if none of its channels is zero.
fn inner(image: &RgbImage) -> Option<Area> {
    let mut area: Option<Area> = None;
    for (y, row) in image.pixels.chunks_exact(image.width.max(1) * 3).enumerate() {
        let counts = |pixel: &[u8]| pixel.iter().all(|value| *value > 0);
        let Some(first) = row.chunks_exact(3).position(counts) else { continue };
        let last = row.chunks_exact(3).rposition(counts).unwrap_or(first);
        let before = area.unwrap_or(Area { left: first, right: 0, top: y, bottom: 0 });
        area = Some(Area {
            left: before.left.min(first),
            right: before.right.max(last + 1),
            top: before.top,
            bottom: y + 1,
        });
    }
    area
}

/// What each half of a block was made to look like noise with: a linear congruential generator's remainders.
#[derive(Default)]
struct Noise(u32);

impl Iterator for Noise {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((self.0 % 255) as u8 & 0x0f)
    }
}

/// The bytes behind base64 with its usual letters; white space counts nothing, and `=` ends it.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for letter in text.iter().take_while(|letter| **letter != b'=') {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// The JSON that A1111 makes of an embedding; what else it says is passed by.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    name: Option<String>,
    string_to_param: OnlyParameter,
}

/// The one value of an object.
struct OnlyParameter(Vectors);

impl<'de> Deserialize<'de> for OnlyParameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Only;
        impl<'de> Visitor<'de> for Only {
            type Value = OnlyParameter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let first = map.next_entry::<String, Tensor>()?;
                let (_, Tensor { vectors }) = first.ok_or_else(|| de::Error::custom("it has no tensor"))?;
                if map.next_key::<String>()?.is_some() {
                    return Err(de::Error::custom("it has several tensors"));
                }
                Ok(OnlyParameter(vectors))
            }
        }
        deserializer.deserialize_map(Only)
    }
}

/// How A1111 writes a tensor.
#[derive(Deserialize)]
struct Tensor {
    #[serde(rename = "TORCHTENSOR")]
    vectors: Vectors,
}

/// Lists of numbers, or one such list: no more of them, and none longer, than an embedding has.
struct Vectors(Vec<Vec<f32>>);

impl<'de> Deserialize<'de> for Vectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows;
        impl<'de> Visitor<'de> for Rows {
            type Value = Vectors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of lists of numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let (mut rows, mut single) = (vec![], vec![]);
                while let Some(element) = seq.next_element::<Element>()? {
                    match element {
                        Element::Row(row) => rows.push(row),
                        Element::Number(number) => single.push(number),
                    }
                    if rows.len() > MOST_VECTORS || single.len() > WIDEST {
                        return Err(de::Error::custom(format!(
                            "it has more than {MOST_VECTORS} vectors, or longer ones than {WIDEST} numbers"
                        )));
                    }
                }
                match (rows.is_empty(), single.is_empty()) {
                    (true, _) => Ok(Vectors(vec![single])),
                    (false, true) => Ok(Vectors(rows)),
                    (false, false) => Err(de::Error::custom("it mixes numbers and lists of them")),
                }
            }
        }
        deserializer.deserialize_seq(Rows)
    }
}

enum Element {
    Number(f32),
    Row(Vec<f32>),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a list of numbers")
            }

            fn visit_f64<E>(self, value: f64) -> Result<Element, E> {
                Ok(Element::Number(value as f32))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Element, E> {
                Ok(Element::Number(value as f32))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Element, E> {
                Ok(Element::Number(value as f32))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
                let mut row = vec![];
                while let Some(number) = seq.next_element::<f64>()? {
                    if row.len() == WIDEST {
                        return Err(de::Error::custom(format!("a vector has more than {WIDEST} numbers")));
                    }
                    row.push(number as f32);
                }
                Ok(Element::Row(row))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;
    use crate::image::encode_png;

    const JSON: &str = r#"{"string_to_token": {"*": 265}, "string_to_param": {"*": {"TORCHTENSOR":
        [[0.5, -1.25, 3], [1e-3, 0.0, -7]]}}, "name": "my-style", "step": 100, "sd_checkpoint": null}"#;

    fn base64(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let bits =
                three.iter().chain(&[0, 0]).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
            for place in 0..4 {
                let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63] as char;
                text.push(if place <= three.len() { letter } else { '=' });
            }
        }
        text
    }

    /// A PNG with a text before its end.
    fn with_text(keyword: &str, text: &str) -> Vec<u8> {
        let image = RgbImage { width: 1, height: 1, pixels: vec![9; 3] };
        let mut png = encode_png(&image, "").expect("encoded");
        let content = [keyword.as_bytes(), b"\0", text.as_bytes()].concat();
        let end = png.split_off(png.len() - 12);
        png.extend((content.len() as u32).to_be_bytes());
        png.extend(b"tEXt");
        png.extend(content);
        png.extend([0; 4]);
        png.extend(end);
        png
    }

    fn packed(json: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(vec![], Compression::best());
        encoder.write_all(json).expect("packed");
        encoder.finish().expect("packed")
    }

    fn hidden_in(json: &str, height: usize, border: usize) -> RgbImage {
        hidden_bytes_in(&packed(json.as_bytes()), height, border)
    }

    /// The picture that A1111 makes, its blocks in columns of `height` pixels beside a grey square.
    fn hidden_bytes_in(data: &[u8], height: usize, border: usize) -> RgbImage {
        let row = data.len().div_ceil(height * 3) * 3;
        let noise: Vec<u8> = Noise::default().take(row * height).collect();
        let block = |shift: u32| -> Vec<u8> {
            // Filled up with what was there before, as numpy does, under a pattern in the upper halves.
            let halves = data.iter().cycle().zip(&noise);
            halves.map(|(byte, noise)| (byte >> shift & 0x0f) ^ noise | 0x50).collect()
        };
        let (low, high, grey) = (block(0), block(4), vec![100; 6]);
        let mut pixels = vec![];
        let width = (row * 2 + 3 + 6 + 3) / 3 + 2 * border;
        pixels.resize(border * width * 3, 0);
        for y in 0..height {
            let parts = [
                &vec![0; border * 3][..],
                &low[y * row..][..row],
                &[0; 3],
                &grey,
                &[0; 3],
                &high[y * row..][..row],
            ];
            for part in parts {
                pixels.extend(part);
            }
            pixels.resize(pixels.len() + border * 3, 0);
        }
        pixels.resize(pixels.len() + border * width * 3, 0);
        RgbImage { width, height: height + 2 * border, pixels }
    }

    fn read(bytes: &[u8]) -> Result<Option<PictureEmbedding>> {
        embedding_of_picture(Path::new("x.png"), bytes)
    }

    #[test]
    fn the_noise_is_that_of_a1111() {
        let first = [253u8, 242, 127, 44, 157, 27, 239, 133].map(|value| value & 0x0f);
        assert_eq!(Noise::default().take(8).collect::<Vec<_>>(), first);
    }

    #[test]
    fn each_way_to_carry_one_is_read() {
        let webp = |image: &RgbImage| {
            let mut bytes = vec![];
            let (width, height) = (image.width as u32, image.height as u32);
            let encoder = image_webp::WebPEncoder::new(&mut bytes);
            encoder.encode(&image.pixels, width, height, image_webp::ColorType::Rgb8).expect("encoded");
            bytes
        };
        let plain = hidden_in(JSON, 16, 0);
        for bytes in [
            with_text("sd-ti-embedding", &base64(JSON.as_bytes())),
            encode_png(&plain, "").expect("encoded"),
            encode_png(&hidden_in(JSON, 7, 5), "").expect("encoded"),
            webp(&plain),
        ] {
            let found = read(&bytes).expect("read").expect("a carrier");
            assert_eq!(found.name.as_deref(), Some("my-style"));
            let vectors: Vec<&[f32]> = found.embedding.vectors().iter().map(|vector| &**vector).collect();
            assert_eq!(vectors, [[0.5, -1.25, 3.0], [1e-3, 0.0, -7.0]]);
        }
        let nameless = r#"{"string_to_param": {"a": {"TORCHTENSOR": [1, 2]}}}"#;
        let found = read(&with_text("sd-ti-embedding", &base64(nameless.as_bytes()))).expect("read");
        let found = found.expect("a carrier");
        assert_eq!((found.name, found.embedding.vectors().len(), found.embedding.width()), (None, 1, 2));
    }

    #[test]
    fn other_pictures_carry_none() {
        let picture = |width: usize, height: usize, pixel: &dyn Fn(usize, usize) -> u8| {
            let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
            let pixels = places.flat_map(|(x, y)| [pixel(x, y); 3]).collect();
            encode_png(&RgbImage { width, height, pixels }, "a prompt").expect("encoded")
        };
        let black_columns = |x: usize, _| if x == 3 || x == 6 { 0 } else { 77 };
        let mut cut = encode_png(&hidden_in(JSON, 16, 0), "").expect("encoded");
        cut.truncate(cut.len() / 2);
        let jpeg = [0xff, 0xd8, 0xff, 0xe0];
        for bytes in [
            picture(10, 10, &|x, y| (x * y) as u8),
            picture(10, 10, &|_, _| 0),
            picture(10, 10, &black_columns),
            picture(1, 1, &|_, _| 255),
            with_text("parameters", "sd-ti-embedding"),
            cut,
            jpeg.to_vec(),
            b"no picture".to_vec(),
            vec![],
        ] {
            assert_eq!(read(&bytes).expect("looked at"), None);
        }
    }

    #[test]
    fn what_is_carried_and_is_no_embedding_is_refused() {
        let tensor = |text: &str| format!(r#"{{"string_to_param": {{"*": {{"TORCHTENSOR": {text}}}}}}}"#);
        let lists = |count: usize| format!("[{}]", vec!["[1]"; count].join(","));
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let wide = format!("[[{}]]", vec!["1"; WIDEST + 1].join(","));
        let rows = [
            (tensor("[[1, 2], [3]]"), "different lengths"),
            (tensor("[[1, 2], 3]"), "mixes numbers"),
            (tensor("[[1, NaN]]"), "cannot be read"),
            (tensor("[[1e300]]"), "not finite"),
            (tensor("[]"), "vectors of 0 numbers"),
            (tensor("[[[1]]]"), "cannot be read"),
            (tensor(&lists(76)), "more than 75 vectors"),
            (tensor(&wide), "more than 16384 numbers"),
            (tensor(&deep), "cannot be read"),
            (format!(r#"{{"other": {deep}}}"#), "cannot be read"),
            (r#"{"string_to_param": {}}"#.to_owned(), "no tensor"),
            (r#"{"name": "x"}"#.to_owned(), "string_to_param"),
            ("{".to_owned(), "cannot be read"),
        ];
        for (json, expected) in rows {
            let text = with_text("sd-ti-embedding", &base64(json.as_bytes()));
            let error = read(&text).expect_err("refused").to_string();
            let told = error.starts_with("x.png: the embedding in this picture ") && error.contains(expected);
            assert!(told, "{error}");
        }
        assert!(read(&with_text("sd-ti-embedding", "!")).is_err());
        let ragged = encode_png(&hidden_in(&tensor("[[1, 2], [3]]"), 9, 1), "").expect("encoded");
        assert!(read(&ragged).is_err());
        let bomb = packed(&vec![b' '; LONGEST_JSON + 1]);
        let whole = packed(JSON.as_bytes());
        for (data, expected) in [(&bomb[..], "more than"), (&whole[..whole.len() - 9], "is damaged")] {
            let picture = encode_png(&hidden_bytes_in(data, 16, 0), "").expect("encoded");
            let error = read(&picture).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(read(&with_text("sd-ti-embedding", &base64(tensor(&lists(75)).as_bytes()))).is_ok());
    }
}
