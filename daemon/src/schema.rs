//! Checks a MessagePack value against a JSON Schema derived from one of our types.
//!
//! The schemas that `api_info` shows are the ones that decide, so ranges, names and types stand in one place: on
//! the fields of the type. Covers what schemars derives for our types, no more. The configuration is checked the
//! same way.

use std::fmt::Write;

use latentd_client::codec::decode_value;
use rmpv::Value;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::suggest::nearest;

/// The schema of `T`.
pub(crate) fn of<T: JsonSchema>() -> Json {
    schemars::schema_for!(T).to_value()
}

/// Checks `value` against `schema`, the schema of `T`, and reads it.
pub(crate) fn decode<T: DeserializeOwned>(schema: &Json, value: &Value) -> Result<T> {
    check(schema, value)?;
    decode_value(value).map_err(Error::invalid)
}

/// Checks `value` against `schema`; the error names the field.
pub(crate) fn check(schema: &Json, value: &Value) -> Result<()> {
    let mut walk = Walk { root: schema, path: Vec::new() };
    walk.check(schema, value).map_err(Error::invalid)
}

struct Walk<'a> {
    root: &'a Json,
    path: Vec<String>,
}

impl<'a> Walk<'a> {
    fn check(&mut self, schema: &'a Json, value: &Value) -> Result<(), String> {
        let schema = self.resolve(schema);
        if let Some(choices) = choices(schema) {
            return self.check_choice(&choices, value);
        }
        if let Some(alternatives) =
            schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array)
        {
            return self.check_any(alternatives, value);
        }
        self.check_type(schema, value)?;
        match value {
            Value::Integer(_) | Value::F32(_) | Value::F64(_) => self.check_number(schema, value),
            Value::String(text) => match text.as_str() {
                None => Err(self.say(format_args!("text is not valid UTF-8; send UTF-8"))),
                Some(text) if text.contains('\0') => {
                    Err(self.say(format_args!("text has a NUL character; remove it")))
                }
                Some(text) => self.check_length(schema, text),
            },
            Value::Array(items) => self.check_items(schema, items),
            Value::Map(entries) => self.check_fields(schema, entries),
            _ => Ok(()),
        }
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let pointer = schema.get("$ref").and_then(Json::as_str).and_then(|link| link.strip_prefix('#'));
        pointer.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema)
    }

    /// One of several shapes: an optional value, as a rule. The complaint of the shape that came furthest is the
    /// one that helps.
    fn check_any(&mut self, alternatives: &'a [Json], value: &Value) -> Result<(), String> {
        let mut complaint = None;
        for alternative in alternatives {
            if self.resolve(alternative).get("type").and_then(Json::as_str) == Some("null") {
                if value.is_nil() {
                    return Ok(());
                }
                continue;
            }
            match self.check(alternative, value) {
                Ok(()) => return Ok(()),
                Err(text) => complaint = complaint.or(Some(text)),
            }
        }
        complaint.map_or(Ok(()), Err)
    }

    fn check_choice(&mut self, choices: &[&str], value: &Value) -> Result<(), String> {
        let listed = choices.join(", ");
        match value.as_str() {
            Some(text) if choices.contains(&text) => Ok(()),
            Some(text) => {
                let meant = nearest(text, choices.iter().copied()).unwrap_or_default();
                Err(self
                    .say(format_args!("'{}' is none of {listed}; did you mean '{meant}'?", shorten(text))))
            }
            None => Err(self.say(format_args!("{} must be one of {listed}", show(value)))),
        }
    }

    fn check_type(&self, schema: &Json, value: &Value) -> Result<(), String> {
        let allowed: Vec<&str> = match schema.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
            _ => return Ok(()),
        };
        let binary = schema.get("format").and_then(Json::as_str) == Some("binary");
        let fits = |kind: &str| match kind {
            "null" => value.is_nil(),
            "boolean" => value.is_bool(),
            "integer" => matches!(value, Value::Integer(_)),
            "number" => value.is_number(),
            "string" if binary => value.is_bin(),
            "string" => matches!(value, Value::String(_)),
            "array" => value.is_array(),
            // An empty table of Lua goes over the wire as an empty array.
            "object" => value.is_map() || value.as_array().is_some_and(Vec::is_empty),
            _ => false,
        };
        if allowed.iter().any(|kind| fits(kind)) {
            return Ok(());
        }
        let wanted =
            allowed.into_iter().filter(|kind| *kind != "null").map(article).collect::<Vec<_>>().join(" or ");
        Err(self.say(format_args!("{} must be {wanted}", show(value))))
    }

    fn check_number(&self, schema: &Json, value: &Value) -> Result<(), String> {
        let Some(number) = value.as_f64() else {
            return Ok(());
        };
        if !number.is_finite() {
            return Err(self.say(format_args!("{number} must be a finite number")));
        }
        let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
        let (minimum, maximum) = (bound("minimum"), bound("maximum"));
        if minimum.is_some_and(|minimum| number < minimum) || maximum.is_some_and(|maximum| number > maximum)
        {
            let range = match (minimum, maximum) {
                (Some(minimum), Some(maximum)) => format!("{minimum} to {maximum}"),
                (Some(minimum), None) => format!("{minimum} or more"),
                (None, Some(maximum)) => format!("{maximum} or less"),
                (None, None) => String::new(),
            };
            return Err(self.say(format_args!("{value} is out of range; give {range}")));
        }
        match bound("multipleOf") {
            Some(factor) if number % factor != 0.0 => {
                let below = (number / factor).floor() * factor;
                let above = below + factor;
                Err(self.say(format_args!("{value} is not a multiple of {factor}; give {below} or {above}")))
            }
            _ => Ok(()),
        }
    }

    fn check_length(&self, schema: &Json, text: &str) -> Result<(), String> {
        let Some(most) = schema.get("maxLength").and_then(Json::as_u64) else {
            return Ok(());
        };
        // Cheap first: there are no more characters than bytes.
        let length = if text.len() as u64 <= most { 0 } else { text.chars().count() as u64 };
        if length > most {
            return Err(
                self.say(format_args!("text is {length} characters long, {most} are allowed; shorten it"))
            );
        }
        Ok(())
    }

    fn check_items(&mut self, schema: &'a Json, items: &[Value]) -> Result<(), String> {
        let most = schema.get("maxItems").and_then(Json::as_u64).unwrap_or(u64::MAX);
        if items.len() as u64 > most {
            return Err(self.say(format_args!("{} items, {most} are allowed; send fewer", items.len())));
        }
        let Some(each) = schema.get("items") else {
            return Ok(());
        };
        for (index, item) in items.iter().enumerate() {
            self.inside(index.to_string(), |walk| walk.check(each, item))?;
        }
        Ok(())
    }

    fn check_fields(&mut self, schema: &'a Json, entries: &[(Value, Value)]) -> Result<(), String> {
        let fields = schema.get("properties").and_then(Json::as_object);
        let closed = schema.get("additionalProperties") == Some(&Json::Bool(false));
        for (key, value) in entries {
            let Some(key) = key.as_str() else {
                return Err(self.say(format_args!("the key {} must be a string", show(key))));
            };
            match fields.and_then(|fields| fields.get(key)) {
                Some(field) => self.inside(key.to_owned(), |walk| walk.check(field, value))?,
                None if closed => return Err(self.unknown_field(key, fields)),
                None => (),
            }
        }
        let required = schema.get("required").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        for name in required.iter().filter_map(Json::as_str) {
            if !entries.iter().any(|(key, _)| key.as_str() == Some(name)) {
                return self
                    .inside(name.to_owned(), |walk| Err(walk.say(format_args!("is missing; give it"))));
            }
        }
        Ok(())
    }

    fn unknown_field(&self, key: &str, fields: Option<&serde_json::Map<String, Json>>) -> String {
        let names = fields.into_iter().flat_map(serde_json::Map::keys).map(String::as_str);
        let path = self.path.iter().fold(String::new(), |path, part| path + part + ".");
        let advice = match nearest(key, names) {
            Some(meant) => format!("did you mean '{path}{meant}'?"),
            None => "it takes none".into(),
        };
        format!("unknown field '{path}{}'; {advice}", shorten(key))
    }

    fn inside(
        &mut self,
        part: String,
        check: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.path.push(part);
        let outcome = check(self);
        self.path.pop();
        outcome
    }

    fn say(&self, what: std::fmt::Arguments<'_>) -> String {
        if self.path.is_empty() {
            return format!("params: {what}");
        }
        format!("{}: {what}", self.path.join("."))
    }
}

/// The strings a schema allows, where it is a plain choice of strings.
fn choices(schema: &Json) -> Option<Vec<&str>> {
    if let Some(list) = schema.get("enum").and_then(Json::as_array) {
        return list.iter().map(Json::as_str).collect();
    }
    if let Some(one) = schema.get("const").and_then(Json::as_str) {
        return Some(vec![one]);
    }
    let alternatives = schema.get("oneOf").and_then(Json::as_array)?;
    let mut all = Vec::new();
    for alternative in alternatives {
        if alternative.get("properties").is_some() {
            return None;
        }
        all.extend(choices(alternative)?);
    }
    Some(all)
}

fn article(kind: &str) -> &str {
    match kind {
        "integer" => "an integer",
        "number" => "a number",
        "string" => "a string",
        "boolean" => "true or false",
        "array" => "an array",
        "object" => "a map",
        other => other,
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Binary(bytes) => format!("{} bytes (bin)", bytes.len()),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Map(entries) => format!("a map of {}", entries.len()),
        Value::String(text) => match text.as_str() {
            Some(text) => format!("'{}'", shorten(text)),
            None => "text that is not valid UTF-8".into(),
        },
        // With its point, so that 20.0 is seen not to be 20.
        Value::F64(number) => format!("{number:?}"),
        other => other.to_string(),
    }
}

/// Enough of a text to recognise it in an error, control characters made visible.
pub(crate) fn shorten(text: &str) -> String {
    let mut short = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == 60 {
            short.push('…');
            break;
        }
        // Writing to a String cannot fail.
        let _ = write!(short, "{}", character.escape_debug());
    }
    short
}

#[cfg(test)]
mod tests {
    use latentd_client::protocol::Txt2ImgParams;

    use super::*;

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
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
            (map(&[("steps", Value::F64(20.0))]), "steps: 20.0 must be an integer"),
            (map(&[("cfg_scale", Value::F64(f64::NAN))]), "cfg_scale: NaN must be a finite number"),
            (map(&[("cfg_scale", Value::F64(f64::INFINITY))]), "cfg_scale: inf must be a finite number"),
            (map(&[("seed", (-2).into())]), "seed: -2 is out of range; give -1 or more"),
            (map(&[("seed", u64::MAX.into())]), "seed: invalid value"),
            (map(&[("prompt", "a\0b".into())]), "prompt: text has a NUL character"),
            (map(&[("prompt", invalid_utf8)]), "prompt: text is not valid UTF-8"),
            (map(&[("prompt", Value::Binary(vec![1]))]), "prompt: 1 bytes (bin) must be a string"),
            (map(&[("preview", map(&[("every", 0.into())]))]), "preview.every: 0 is out of range"),
            (map(&[("rng", 7.into())]), "rng: 7 must be one of nv, cpu"),
            (Value::Map(vec![(1.into(), 2.into())]), "the key 1 must be a string"),
        ];
        let schema = of::<Txt2ImgParams>();
        for (value, expected) in rows {
            let error = decode::<Txt2ImgParams>(&schema, &value).expect_err("refused");
            assert!(error.text.contains(expected), "{value}: {error}");
        }
    }

    #[test]
    fn what_the_schema_allows_decodes() {
        let value = map(&[
            ("prompt", "ünï".into()),
            ("width", 64.into()),
            ("height", Value::Nil),
            ("cfg_scale", 7.into()),
            ("seed", (1u64 << 40).into()),
            ("preview", map(&[("every", 5.into())])),
            ("output", Value::Array(Vec::new())),
        ]);
        let params = decode::<Txt2ImgParams>(&of::<Txt2ImgParams>(), &value).expect("decodes");
        assert_eq!((params.width, params.height, params.seed), (Some(64), None, 1 << 40));
    }
}
