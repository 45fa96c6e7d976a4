//! How much of a header is believed. A file of a few megabytes could otherwise ask for gigabytes: each tensor in it takes
//! many times the bytes that name it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Bytes of a header. Those of real files are some hundred kilobytes, with the notes of a trainer a few megabytes.
pub const LARGEST_HEADER: usize = 32 << 20;

/// Tensors. A checkpoint has some 1,200 to 3,000, an adapter up to some 10,000.
pub(super) const MOST_TENSORS: usize = 1 << 16;

/// Dimensions of all tensors together.
const MOST_DIMENSIONS: usize = 1 << 21;

/// Texts in the metadata.
pub(super) const MOST_TEXTS: usize = 1 << 16;

/// Where tensors end otherwise than the file does.
pub(super) const NOT_FILLED: &str =
    "is cut off or padded: its tensors do not fill it exactly; copy or download it again";

/// Why the header's JSON is not believed, of a file with so many bytes behind it. What is no JSON at all is left to who reads
/// it.
pub(super) fn check(header: &[u8], behind: usize) -> Result<(), String> {
    if header.len() > LARGEST_HEADER {
        let length = header.len();
        return Err(format!(
            "is not safetensors, or none that is believed: header length {length}, {LARGEST_HEADER} bytes are allowed"
        ));
    }
    let mut counted = Counted::default();
    // Ends at the first that is too much.
    let read = Whole(&mut counted).deserialize(&mut serde_json::Deserializer::from_slice(header));
    for (what, count, most) in [
        ("tensors", counted.tensors, MOST_TENSORS),
        ("dimensions of tensors", counted.dimensions, MOST_DIMENSIONS),
        ("texts of metadata", counted.texts, MOST_TEXTS),
    ] {
        if count > most {
            return Err(format!(
                "its header has more than the {most} {what} that are believed; it is no model"
            ));
        }
    }
    // Places are added to each other later.
    if counted.end > behind as u64 {
        return Err(NOT_FILLED.to_owned());
    }
    match read {
        // What is written in another way might still be read, and was not counted.
        Err(error) if error.is_data() => Err(format!("is not sound safetensors: {error}")),
        _ => Ok(()),
    }
}

/// What stands in a header; nothing of it is kept.
#[derive(Default)]
struct Counted {
    tensors: usize,
    dimensions: usize,
    texts: usize,
    /// Bytes behind the header up to the last tensor's end.
    end: u64,
}

/// Counts one more; an error, which ends the reading, beyond `most`.
fn count<E: Error>(counter: &mut usize, most: usize) -> Result<(), E> {
    *counter += 1;
    if *counter > most { Err(E::custom("too many")) } else { Ok(()) }
}

/// The header.
struct Whole<'a>(&'a mut Counted);

/// The metadata.
struct Texts<'a>(&'a mut Counted);

/// One tensor.
struct Tensor<'a>(&'a mut Counted);

/// Its shape.
struct Shape<'a>(&'a mut Counted);

/// Where it begins and ends.
struct Offsets<'a>(&'a mut Counted);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if name == "__metadata__" {
                map.next_value_seed(Texts(self.0))?;
            } else {
                count(&mut self.0.tensors, MOST_TENSORS)?;
                map.next_value_seed(Tensor(self.0))?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Texts<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Texts<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of texts")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count(&mut self.0.texts, MOST_TEXTS)?;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Tensor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tensor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if key == "shape" {
                map.next_value_seed(Shape(self.0))?;
            } else if key == "data_offsets" {
                map.next_value_seed(Offsets(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Shape<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Shape<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shape")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<(), A::Error> {
        while sizes.next_element::<IgnoredAny>()?.is_some() {
            count(&mut self.0.dimensions, MOST_DIMENSIONS)?;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Offsets<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Offsets<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor's place")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut offsets: A) -> Result<(), A::Error> {
        while let Some(offset) = offsets.next_element()? {
            self.0.end = self.0.end.max(offset);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_any_model_has_is_not_believed() {
        let many =
            |count: usize, of: &dyn Fn(usize) -> String| (0..count).map(of).collect::<Vec<_>>().join(",");
        let tensors =
            |count| format!("{{{}}}", many(count, &|index| format!(r#""t{index}":{{"shape":[1]}}"#)));
        let texts = |count| {
            let texts = many(count, &|index| format!(r#""t{index}":"""#));
            format!(r#"{{"a":{{"shape":[]}},"__metadata__":{{{texts}}}}}"#)
        };
        let shapes =
            |count| format!(r#"{{"a":{{"dtype":"F16","shape":[{}]}}}}"#, many(count, &|_| "1".into()));
        for (header, refused) in [
            (tensors(MOST_TENSORS), None),
            (tensors(MOST_TENSORS + 1), Some("65536 tensors")),
            (texts(MOST_TEXTS), None),
            (texts(MOST_TEXTS + 1), Some("65536 texts")),
            (shapes(MOST_DIMENSIONS), None),
            (shapes(MOST_DIMENSIONS + 1), Some("2097152 dimensions")),
            (" ".repeat(LARGEST_HEADER + 1), Some("33554432 bytes are allowed")),
            ("[".repeat(100_000), Some("expected a map of tensors")),
            (r#"{"a":7,"#.into(), Some("expected a tensor")),
            (r#"{"a":["F16",[1],[0,2]]}"#.into(), Some("expected a tensor")),
            (r#"{"__metadata__":null,"a":{"shape":[]}}"#.into(), None),
            (r#"{"a":{"#.into(), None),
            (r#"{"a":{"data_offsets":[0,7]}}"#.into(), None),
            (r#"{"a":{"data_offsets":[0,8]}}"#.into(), Some("do not fill it")),
            (r#"{"a":{"data_offsets":[18446744073709551615,0]}}"#.into(), Some("do not fill it")),
            (r#"{"a":{"data_offsets":[0,18446744073709551616]}}"#.into(), Some("not sound")),
            (r#"{"a":{"data_offsets":[0,-1]}}"#.into(), Some("not sound")),
        ] {
            let shown = header.get(..header.len().min(60)).unwrap_or_default();
            match (check(header.as_bytes(), 7), refused) {
                (Ok(()), None) => (),
                (Err(reason), Some(expected)) => assert!(reason.contains(expected), "{shown}: {reason}"),
                (other, _) => panic!("{shown}: {other:?}"),
            }
        }
    }
}
