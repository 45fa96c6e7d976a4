//! From a decoded value to a type.

use std::fmt;

use rmpv::Value;
use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, VariantAccess, Visitor,
};
use serde::{Deserializer, forward_to_deserialize_any};

/// Reads a value as `T`; the error names the field. Binary data is moved, not copied. A whole number is one as integer and
/// as float: Lua and JavaScript know no difference.
pub fn decode_value<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(Typed(value)).map_err(|error| match error.path().to_string().as_str() {
        "." => error.inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    })
}

/// The integer that a float is, if it is one: from −2⁶³ to 2⁶⁴.
pub fn whole(number: f64) -> Option<i128> {
    let is_whole = number.fract() == 0.0
        && (-9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0).contains(&number);
    is_whole.then_some(number as i128)
}

/// `rmpv` has a deserializer too; it reads no enum from its name.
struct Typed(Value);

/// Why a value is not of the type.
#[derive(Debug)]
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

impl IntoDeserializer<'_, Wrong> for Typed {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Typed {
    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let float = match self.0 {
            Value::F32(number) => f64::from(number),
            Value::F64(number) => number,
            _ => return self.deserialize_any(visitor),
        };
        match whole(float) {
            Some(number) if number < 0 => visitor.visit_i64(number as i64),
            Some(number) => visitor.visit_u64(number as u64),
            None => visitor.visit_f64(float),
        }
    }

    fn map<'de, V: Visitor<'de>>(entries: Vec<(Value, Value)>, visitor: V) -> Result<V::Value, Wrong> {
        let mut map =
            MapDeserializer::new(entries.into_iter().map(|(key, value)| (Typed(key), Typed(value))));
        let value = visitor.visit_map(&mut map)?;
        map.end()?;
        Ok(value)
    }
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            self.integer(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Typed {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Nil => visitor.visit_unit(),
            Value::Boolean(value) => visitor.visit_bool(value),
            Value::Integer(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => Err(Wrong::custom("an integer of more than 64 bits")),
            },
            Value::F32(number) => visitor.visit_f32(number),
            Value::F64(number) => visitor.visit_f64(number),
            Value::String(text) => match text.into_str() {
                Some(text) => visitor.visit_string(text),
                None => Err(Wrong::custom("text that is not valid UTF-8")),
            },
            Value::Binary(bytes) => visitor.visit_byte_buf(bytes),
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Typed));
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            Value::Map(entries) => Self::map(entries, visitor),
            Value::Ext(kind, _) => Err(Wrong::custom(format_args!("an extension of type {kind}"))),
        }
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.0.is_nil() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            // An empty table of Lua goes over the wire as an empty array.
            Value::Array(items) if items.is_empty() => Self::map(Vec::new(), visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::String(text) => {
                let text = text.into_str().ok_or_else(|| Wrong::custom("text that is not valid UTF-8"))?;
                StringDeserializer::new(text).deserialize_enum(name, variants, visitor)
            }
            Value::Map(mut entries) if entries.len() == 1 => match entries.pop() {
                Some((variant, content)) => visitor.visit_enum(Variant { variant, content }),
                None => Err(Wrong::custom("no variant")),
            },
            _ => Err(Wrong::custom(format_args!("a {name} is text, or a map of one entry"))),
        }
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct identifier ignored_any
    }
}

/// An enum's variant that holds something: a map of its name to that.
struct Variant {
    variant: Value,
    content: Value,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Wrong;
    type Variant = Typed;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Typed), Wrong> {
        Ok((seed.deserialize(Typed(self.variant))?, Typed(self.content)))
    }
}

impl<'de> VariantAccess<'de> for Typed {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        if self.0.is_nil() { Ok(()) } else { Err(Wrong::custom("this variant holds nothing")) }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Wrong> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_map(visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::protocol::Bytes;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Nothing,
        One(f64),
        Two(u8, String),
        Named { side: Option<i64> },
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct All {
        flag: bool,
        small: u8,
        wide: i64,
        number: f64,
        text: String,
        bytes: Bytes,
        list: Vec<(i32, bool)>,
        shapes: Vec<Shape>,
        map: BTreeMap<String, Option<u64>>,
        inner: Option<Box<All>>,
    }

    fn shape() -> impl Strategy<Value = Shape> {
        prop_oneof![
            Just(Shape::Nothing),
            any::<f64>().prop_filter("equal to itself", |x| !x.is_nan()).prop_map(Shape::One),
            any::<(u8, String)>().prop_map(|(a, b)| Shape::Two(a, b)),
            any::<Option<i64>>().prop_map(|side| Shape::Named { side }),
        ]
    }

    fn all() -> impl Strategy<Value = All> {
        let plain = (any::<(bool, u8, i64, i32, String)>(), any::<Vec<u8>>(), any::<Vec<(i32, bool)>>());
        let maps = any::<BTreeMap<String, Option<u64>>>();
        let leaf = (plain, prop::collection::vec(shape(), 0..4), maps).prop_map(
            |((plain, bytes, list), shapes, map)| {
                let (flag, small, wide, number, text) = plain;
                All {
                    flag,
                    small,
                    wide,
                    number: f64::from(number) / 8.0,
                    text,
                    bytes: Bytes(bytes),
                    list,
                    shapes,
                    map,
                    inner: None,
                }
            },
        );
        leaf.prop_recursive(3, 8, 1, |inner| {
            inner.prop_map(|inner| All { inner: Some(Box::new(inner)), ..All::default() })
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read(all in all()) {
            let bytes = rmp_serde::to_vec_named(&all).expect("encodes");
            let value = rmpv::decode::read_value(&mut bytes.as_slice()).expect("decodes");
            prop_assert_eq!(decode_value::<All>(value), Ok(all));
        }
    }

    fn entry(name: &str, value: impl Into<Value>) -> Value {
        Value::Map(vec![(name.into(), value.into())])
    }

    #[test]
    fn whole_floats_are_integers_and_others_are_not() {
        for (number, small, wide) in [
            (20.0, Some(20), Some(20)),
            (-0.0, Some(0), Some(0)),
            (300.0, None, Some(300)),
            (-3.0, None, Some(-3)),
        ] {
            for value in [Value::F64(number), Value::F32(number as f32)] {
                let read = decode_value::<All>(entry("small", value.clone())).ok().map(|all| all.small);
                assert_eq!(read, small, "{value}");
                let read = decode_value::<All>(entry("wide", value.clone())).ok().map(|all| all.wide);
                assert_eq!(read, wide, "{value}");
            }
        }
        for number in [20.5, f64::NAN, f64::INFINITY, 1e300, 9.3e18] {
            assert!(decode_value::<All>(entry("wide", number)).is_err(), "{number}");
        }
        assert_eq!(decode_value::<All>(entry("number", 7)).map(|all| all.number), Ok(7.0));
    }

    #[test]
    fn errors_name_the_field_and_nothing_panics() {
        let inner = entry("inner", entry("small", "x"));
        let error = decode_value::<All>(inner).expect_err("text is no number");
        assert!(error.starts_with("inner.small: "), "{error}");
        for value in [
            entry("shapes", Value::Array(vec![Value::Map(vec![])])),
            entry("shapes", Value::Array(vec![entry("Nothing", 1)])),
            entry("shapes", Value::Array(vec![entry("None", Value::Nil)])),
            entry("bytes", Value::Ext(1, vec![])),
            entry("list", Value::Array(vec![Value::Array(vec![1.into()])])),
        ] {
            assert!(decode_value::<All>(value.clone()).is_err(), "{value}");
        }
        assert_eq!(
            decode_value::<All>(entry("inner", Value::Array(vec![]))).map(|all| all.inner),
            Ok(Some(Box::default()))
        );
    }

    #[test]
    fn binary_data_is_moved() {
        let bytes = vec![7u8; 1000];
        let place = bytes.as_ptr();
        let all = decode_value::<All>(entry("bytes", Value::Binary(bytes))).expect("read");
        assert_eq!(all.bytes.0.as_ptr(), place);
    }
}
