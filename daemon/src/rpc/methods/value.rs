//! From what the wire carries to a type.

use latentd_client::codec::decode_value;
use rmpv::Value;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::schema::{self, Tree, View};

/// Checks `value` against `schema`, the schema of `T`, and reads it.
pub(super) fn decode<T: DeserializeOwned>(schema: &Json, value: Value) -> Result<T> {
    schema::check(schema, &value)?;
    read(value)
}

/// Reads a value that was checked.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T> {
    decode_value(value).map_err(Error::invalid)
}

impl Tree for Value {
    const WHOLE_FLOATS: bool = true;

    fn view(&self) -> View<'_, Self> {
        match self {
            Self::Nil => View::Nil,
            Self::Boolean(value) => View::Boolean(*value),
            Self::Integer(number) => {
                let signed = number.as_i64().map(i128::from);
                View::Integer(signed.or_else(|| number.as_u64().map(i128::from)).unwrap_or_default())
            }
            Self::F32(number) => View::Float(f64::from(*number)),
            Self::F64(number) => View::Float(*number),
            Self::String(text) => View::Text(text.as_str()),
            Self::Binary(bytes) => View::Bytes(bytes.len()),
            Self::Array(items) => View::Array(items),
            Self::Map(entries) => View::Map(entries.iter().map(|(key, value)| (name(key), value)).collect()),
            Self::Ext(..) => View::Other(self.to_string()),
        }
    }
}

fn name(key: &Value) -> schema::Key<'_> {
    key.as_str().ok_or_else(|| schema::show(&key.view()))
}

#[cfg(test)]
mod tests {
    use latentd_client::protocol::Txt2ImgParams;
    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::schema::{check, of};

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
    }

    /// So many empty maps.
    fn numbered(count: usize) -> Value {
        Value::Map((0..count).map(|number| (number.to_string().into(), Value::Map(vec![]))).collect())
    }

    #[test]
    fn each_wrong_field_is_named() {
        let invalid_utf8 = rmpv::decode::read_value(&mut &[0xa2, 0xc3, 0x28][..]).expect("decodes");
        let rows = [
            (map(&[("promt", "x".into())]), "unknown field 'promt'; did you mean 'prompt'?"),
            (map(&[("output", map(&[("fromat", "png".into())]))]), "did you mean 'output.format'?"),
            (map(&[("output", map(&[("format", "pgn".into())]))]), "did you mean 'png'?"),
            (map(&[("width", 513.into())]), "width: 513 is not a multiple of 8; give 512 or 520"),
            (map(&[("width", 0.into())]), "width: 0 is out of range; give 8 to 4096"),
            (map(&[("width", (-8).into())]), "width: -8 is out of range"),
            (map(&[("width", (1u64 << 31).into())]), "width: 2147483648 is out of range"),
            (map(&[("width", "512".into())]), "width: '512' must be an integer"),
            (map(&[("steps", 0.into())]), "steps: 0 is out of range; give 1 to 1000"),
            (map(&[("steps", Value::F64(20.5))]), "steps: 20.5 must be an integer"),
            (map(&[("steps", Value::F64(0.0))]), "steps: 0.0 is out of range; give 1 to 1000"),
            (map(&[("steps", Value::F64(f64::NAN))]), "steps: NaN must be an integer"),
            (map(&[("seed", Value::F64(1e19))]), "seed: 1e19 is out of range; give -1 to"),
            (
                Value::Map(vec![("steps".into(), 1.into()), ("steps".into(), 1.into())]),
                "duplicate field `steps`",
            ),
            (map(&[("seed", Value::F64(1e20))]), "seed: 1e20 must be an integer"),
            (map(&[("cfg_scale", Value::F64(f64::NAN))]), "cfg_scale: NaN must be a finite number"),
            (map(&[("cfg_scale", Value::F64(f64::INFINITY))]), "cfg_scale: inf must be a finite number"),
            (map(&[("seed", (-2).into())]), "seed: -2 is out of range; give -1 to 9223372036854775807"),
            (map(&[("seed", u64::MAX.into())]), "seed: 18446744073709551615 is out of range; give -1 to"),
            (map(&[("prompt", "a\0b".into())]), "prompt: text has a NUL character"),
            (map(&[("prompt", invalid_utf8)]), "prompt: text is not valid UTF-8"),
            (map(&[("prompt", Value::Binary(vec![1]))]), "prompt: 1 bytes (bin) must be a string"),
            (map(&[("preview", map(&[("every", 0.into())]))]), "preview.every: 0 is out of range"),
            (map(&[("rng", 7.into())]), "rng: 7 must be one of nv, cpu"),
            (Value::Map(vec![(1.into(), 2.into())]), "the key 1 must be a string"),
            (map(&[("plugins", 5.into())]), "plugins: 5 must be a map"),
            (map(&[("plugins", map(&[("grain", true.into())]))]), "plugins.grain: true must be a map"),
            (
                map(&[("plugins", map(&[("grain", Value::Map(vec![(1.into(), 2.into())]))]))]),
                "plugins.grain: the key 1 must be a string",
            ),
            (map(&[("plugins", numbered(33))]), "plugins: 33 entries, 32 are allowed; send fewer"),
        ];
        let schema = of::<Txt2ImgParams>();
        for (value, expected) in rows {
            let error = decode::<Txt2ImgParams>(&schema, value.clone()).expect_err("refused");
            assert!(error.text.contains(expected), "{value}: {error}");
        }
    }

    #[test]
    fn what_the_schema_allows_decodes() {
        let value = map(&[
            ("prompt", "ünï".into()),
            ("width", Value::F64(64.0)),
            ("steps", Value::F32(7.0)),
            ("height", Value::Nil),
            ("cfg_scale", 7.into()),
            ("seed", (1u64 << 40).into()),
            ("preview", map(&[("every", 5.into())])),
            ("output", Value::Array(Vec::new())),
            ("plugins", numbered(32)),
        ]);
        let params = decode::<Txt2ImgParams>(&of::<Txt2ImgParams>(), value).expect("decodes");
        assert_eq!((params.width, params.height, params.seed), (Some(64), None, 1 << 40));
        assert_eq!(params.steps, 7, "a whole float is an integer");
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Either {
        Number(#[schemars(range(max = 10))] u32),
        Name(#[schemars(length(max = 3))] String),
        Point(Point),
        List(Vec<Point>),
        Box(Corners),
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Point {
        x: u32,
        y: Option<bool>,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Corners {
        from: Point,
        to: Point,
    }

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Holder {
        value: Either,
    }

    #[test]
    fn of_several_shapes_the_one_that_came_furthest_complains() {
        let point = |x: Value| map(&[("x", x)]);
        let rows = [
            (20.into(), "value: 20 is out of range; give 0 to 10"),
            ("long".into(), "value: text is 4 characters long, 3 are allowed"),
            (true.into(), "value: true must be an integer or a string or a map or an array"),
            (point("one".into()), "value.x: 'one' must be an integer"),
            (map(&[("x", 1.into()), ("z", 1.into())]), "unknown field 'value.z'; known: x, y"),
            (map(&[("from", point(1.into())), ("to", point((-1).into()))]), "value.to.x: -1 is out of range"),
            (map(&[("from", point(1.into()))]), "value.to: is missing"),
            (
                Value::Array(vec![point(1.into()), map(&[("x", 1.into()), ("y", 2.into())])]),
                "value.1.y: 2 must be true or false",
            ),
        ];
        let schema = of::<Holder>();
        for (value, expected) in rows {
            let error = check(&schema, &map(&[("value", value.clone())])).expect_err("refused");
            assert!(error.text.starts_with(expected), "{value}: {error}");
        }
        for value in [7.into(), 7.0.into(), "abc".into(), point(1.into()), Value::Array(vec![])] {
            assert_eq!(check(&schema, &map(&[("value", value)])), Ok(()));
        }
    }
}
