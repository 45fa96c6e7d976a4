//! The list of a sharded network's files, `NAME.index.json`: which file has which tensor.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// Bytes of JSON that are believed.
pub(super) const LARGEST: u64 = 32 << 20;

/// Tensors of one network. A UNet has some 700 to 2,000.
const MOST_TENSORS: usize = 1 << 16;

/// Files of one network. Real ones have up to some ten.
const MOST_SHARDS: usize = 64;

/// A network's files.
type Shards = BTreeSet<String>;

/// Reads the list, or says what is wrong with it. Names of files are names alone: none leads out of the folder.
pub(super) fn shards(json: &[u8]) -> Result<BTreeSet<String>, String> {
    let mut shards = Shards::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = Whole(&mut shards).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    read.map_err(|error| format!("is no list of a model's files: {error}"))?;
    if shards.is_empty() {
        return Err("names no files: it has no weight_map, or an empty one".to_owned());
    }
    Ok(shards)
}

/// Whether it is the name of a file in the folder and nothing else.
fn is_name(text: &str) -> bool {
    let mut components = Path::new(text).components();
    let is_plain = matches!(components.next(), Some(Component::Normal(name)) if name == text);
    is_plain && components.next().is_none() && !text.contains(['\0', '\\'])
}

struct Whole<'a>(&'a mut Shards);

struct WeightMap<'a>(&'a mut Shards);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if key == "weight_map" {
                map.next_value_seed(WeightMap(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for WeightMap<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMap<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from tensors to files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut tensors = 0;
        while let Some((_, file)) = map.next_entry::<IgnoredAny, Cow<'_, str>>()? {
            tensors += 1;
            if tensors > MOST_TENSORS {
                return Err(A::Error::custom(format!(
                    "more than the {MOST_TENSORS} tensors that are believed"
                )));
            }
            if !is_name(&file) {
                let shown: String = file.chars().take(80).collect();
                return Err(A::Error::custom(format!("{shown:?} is not the name of a file in its folder")));
            }
            self.0.insert(file.into_owned());
            if self.0.len() > MOST_SHARDS {
                return Err(A::Error::custom(format!("more than the {MOST_SHARDS} files that are believed")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_folder_and_counts_within_reason() {
        let map =
            |entries: &str| format!(r#"{{"metadata": {{"total_size": 7}}, "weight_map": {{{entries}}}}}"#);
        let many = |count: usize, of: &dyn Fn(usize) -> String| {
            map(&(0..count).map(of).collect::<Vec<_>>().join(","))
        };
        let tensors = |count| many(count, &|index| format!(r#""t{index}": "a""#));
        let files = |count| many(count, &|index| format!(r#""t{index}": "f{index}""#));
        let rows = [
            (map(r#""a": "x-00001-of-00002.safetensors", "b": "..x""#), None),
            (tensors(MOST_TENSORS), None),
            (tensors(MOST_TENSORS + 1), Some("65536 tensors")),
            (tensors(1_000_000), Some("65536 tensors")),
            (files(MOST_SHARDS), None),
            (files(MOST_SHARDS + 1), Some("64 files")),
            (map(r#""a": "../../etc/passwd""#), Some("../../etc/passwd")),
            (map(r#""a": "/etc/passwd""#), Some("/etc/passwd")),
            (map(r#""a": "..""#), Some("not the name of a file")),
            (map(r#""a": ".""#), Some("not the name of a file")),
            (map(r#""a": """#), Some("not the name of a file")),
            (map(r#""a": "b/""#), Some("not the name of a file")),
            (map(r#""a": "./b""#), Some("not the name of a file")),
            (map(r#""a": "sub/b""#), Some("not the name of a file")),
            (map("\"a\": \"b\\u0000c\""), Some("not the name of a file")),
            (map(r#""a": 7"#), Some("no list of a model's files")),
            (map(""), Some("names no files")),
            ("{}".into(), Some("names no files")),
            ("[]".into(), Some("no list")),
            (r#"{"weight_map": {}} x"#.into(), Some("no list")),
            (format!(r#"{{"metadata": {}"#, "[".repeat(100_000)), Some("no list")),
        ];
        for (json, refused) in rows {
            let shown = json.get(..json.len().min(80)).unwrap_or_default();
            match (shards(json.as_bytes()), refused) {
                (Ok(_), None) => (),
                (Err(reason), Some(expected)) => assert!(reason.contains(expected), "{shown}: {reason}"),
                (other, _) => panic!("{shown}: {other:?}"),
            }
        }
        assert!(is_name("model.fp16-00001-of-00002.safetensors") && is_name("..x"));
    }
}
