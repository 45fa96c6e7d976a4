//! What parameters stand for: the types of fields that the schema calls `x-image`, `x-mask` and `x-library`.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::abi::{LATENTD_EXT_FILE, LATENTD_EXT_HANDLE, latentd_file, latentd_handle};
use crate::call::Call;
use crate::error::Result;
use crate::image::Image;

/// A picture that a parameter names. In [`JobPlan::plan`](crate::JobPlan::plan) it has its size alone; as long as the plugin that
/// was made with it, it has pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GivenImage(latentd_handle);

impl GivenImage {
    /// The picture: of `x-image` 3 channels, or 4 where it has alpha; of `x-mask` 1, how much of each pixel counts.
    pub fn image<'a>(&self, call: &Call<'a>) -> Result<Image<'a>> {
        Image::of(*call, self.0)
    }
}

/// A library file, or a word that the schema lets stand in its place: `{"anyOf": [{"enum": ["None"]}, {"x-library": "KIND"}]}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileOr {
    /// The file.
    File(File),
    /// The word.
    Word(String),
}

/// A library file that a parameter names, held open as it was when the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct File(pub(crate) latentd_file);

impl<'de> Deserialize<'de> for GivenImage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ext(deserializer, LATENTD_EXT_HANDLE, "a picture").map(Self)
    }
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ext(deserializer, LATENTD_EXT_FILE, "a library file").map(Self)
    }
}

impl<'de> Deserialize<'de> for FileOr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = FileOr;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a library file or a word")
            }

            fn visit_str<E>(self, word: &str) -> Result<FileOr, E> {
                Ok(FileOr::Word(word.to_owned()))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<FileOr, D::Error> {
                let ext = Ext { kind: LATENTD_EXT_FILE, what: "a library file" };
                ext.visit_newtype_struct(deserializer).map(|file| FileOr::File(File(file)))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// The number in an ext of this type.
fn ext<'de, D: Deserializer<'de>>(deserializer: D, kind: u32, what: &'static str) -> Result<u64, D::Error> {
    deserializer.deserialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, Ext { kind, what })
}

struct Ext {
    kind: u32,
    what: &'static str,
}

impl<'de> Visitor<'de> for Ext {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        let (kind, number) = <(i8, Number)>::deserialize(deserializer)?;
        if kind as u32 != self.kind {
            return Err(de::Error::custom(format_args!("an ext of type {kind} is not {}", self.what)));
        }
        Ok(number.0)
    }
}

/// 8 bytes, big-endian.
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes(PhantomData<()>);

        impl Visitor<'_> for Bytes {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("8 bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Number, E> {
                let bytes = <[u8; 8]>::try_from(bytes).map_err(|_| E::invalid_length(bytes.len(), &self))?;
                Ok(Number(u64::from_be_bytes(bytes)))
            }
        }

        deserializer.deserialize_bytes(Bytes(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Params {
        image: Option<GivenImage>,
        model: File,
    }

    #[test]
    fn a_word_may_stand_in_a_files_place() {
        let read = |bytes: &[u8]| rmp_serde::from_slice::<Vec<Option<FileOr>>>(bytes);
        let bytes = [&[0x93, 0xd7, 2][..], &7u64.to_be_bytes(), &[0xa4], b"None", &[0xc0]].concat();
        let expected = vec![Some(FileOr::File(File(7))), Some(FileOr::Word("None".to_owned())), None];
        assert_eq!(read(&bytes).expect("read"), expected);
        read(&[&[0x91, 0xd7, 1][..], &7u64.to_be_bytes()].concat()).expect_err("a picture is none");
    }

    #[test]
    fn numbers_are_read_of_exts() {
        let ext = |kind: u8, number: u64| [&[0xd7, kind][..], &number.to_be_bytes()].concat();
        let map = |image: &[u8], model: &[u8]| {
            [&[0x82, 0xa5][..], b"image", image, &[0xa5], b"model", model].concat()
        };
        let read = |bytes: &[u8]| rmp_serde::from_slice::<Params>(bytes);
        let both = read(&map(&ext(1, 1 << 33), &ext(2, 7))).expect("read");
        assert_eq!(both, Params { image: Some(GivenImage(1 << 33)), model: File(7) });
        let one = read(&map(&[0xc0], &ext(2, 7))).expect("read");
        assert_eq!(one.image, None);
        for wrong in [map(&ext(2, 1), &ext(2, 7)), map(&[0xc0], &[7]), map(&[0xc0], &[0xd4, 2, 7])] {
            read(&wrong).expect_err("refused");
        }
    }
}
