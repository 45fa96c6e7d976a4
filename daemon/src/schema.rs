//! Checks a value against a JSON Schema derived from one of our types.
//!
//! The schemas that `api_info` shows are the ones that decide, so ranges, names and types stand in one place: on
//! the fields of the type. Covers what schemars derives for our types, no more. What the wire carries and what the
//! configuration says are checked alike: each is a [`Tree`].

use std::fmt::Write;

use latentd_client::codec::whole;
use schemars::JsonSchema;
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::suggest::{advice, nearest};

/// The schema of `T`.
pub(crate) fn of<T: JsonSchema>() -> Json {
    schemars::schema_for!(T).to_value()
}

/// A value of any format, as deep as it goes.
pub(crate) trait Tree: Sized {
    /// Whether a whole number may come as a float.
    const WHOLE_FLOATS: bool;

    /// What it is.
    fn view(&self) -> View<'_, Self>;
}

/// One node of a [`Tree`].
pub(crate) enum View<'a, T> {
    Nil,
    Boolean(bool),
    Integer(i128),
    Float(f64),
    /// `None`: not valid UTF-8.
    Text(Option<&'a str>),
    /// So many.
    Bytes(usize),
    Array(&'a [T]),
    Map(Vec<(Key<'a>, &'a T)>),
    /// Something that no request and no setting has; how to show it.
    Other(String),
}

/// The key of an entry; one that is no text as it is shown.
pub(crate) type Key<'a> = Result<&'a str, String>;

/// Checks `value` against `schema`; the error names the field.
pub(crate) fn check<T: Tree>(schema: &Json, value: &T) -> Result<()> {
    let mut walk = Walk { root: schema, path: Vec::new() };
    walk.check(schema, value).map_err(|complaint| Error::invalid(complaint.text))
}

struct Walk<'a> {
    root: &'a Json,
    path: Vec<String>,
}

/// What is wrong with a value.
struct Complaint {
    text: String,
    /// How far the check came: fields and items that the value lies in, then [`Reach`].
    reach: (usize, Reach),
    /// The types that were wanted instead, if that is what is wrong.
    wanted: Vec<&'static str>,
}

/// How much of one value was right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// It is of another type.
    Nothing,
    /// Its type is right, a field in it is unknown.
    Type,
    /// All that is in it is right, something is missing.
    Given,
    /// Its type is right and so are its fields; what it holds is not.
    Fields,
}

impl<'a> Walk<'a> {
    fn check<T: Tree>(&mut self, schema: &'a Json, value: &T) -> Result<(), Complaint> {
        let schema = self.resolve(schema);
        if let Some(choices) = choices(schema) {
            return self.check_choice(&choices, value);
        }
        if let Some(alternatives) =
            schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array)
        {
            return self.check_any(alternatives, value);
        }
        let view = value.view();
        self.check_type::<T>(schema, &view)?;
        match view {
            View::Integer(number) => self.check_number(schema, number as f64, &show(&view)),
            View::Float(number) => self.check_number(schema, number, &show(&view)),
            View::Text(None) => {
                Err(self.say(Reach::Fields, format_args!("text is not valid UTF-8; send UTF-8")))
            }
            View::Text(Some(text)) if text.contains('\0') => {
                Err(self.say(Reach::Fields, format_args!("text has a NUL character; remove it")))
            }
            View::Text(Some(text)) => self.check_length(schema, text),
            View::Array(items) => self.check_items(schema, items),
            View::Map(entries) => self.check_fields(schema, &entries),
            View::Nil | View::Boolean(_) | View::Bytes(_) | View::Other(_) => Ok(()),
        }
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let pointer = schema.get("$ref").and_then(Json::as_str).and_then(|link| link.strip_prefix('#'));
        pointer.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema)
    }

    /// One of several shapes. The complaint of the shape that came furthest is the one that helps; where all are of
    /// other types, one that names them all.
    fn check_any<T: Tree>(&mut self, alternatives: &'a [Json], value: &T) -> Result<(), Complaint> {
        let mut furthest: Option<Complaint> = None;
        for alternative in alternatives {
            if self.resolve(alternative).get("type").and_then(Json::as_str) == Some("null") {
                if matches!(value.view(), View::Nil) {
                    return Ok(());
                }
                continue;
            }
            let Err(complaint) = self.check(alternative, value) else {
                return Ok(());
            };
            furthest = Some(match furthest.take() {
                Some(before)
                    if !before.wanted.is_empty()
                        && !complaint.wanted.is_empty()
                        && before.reach == complaint.reach =>
                {
                    self.other_type(value, [before.wanted, complaint.wanted].concat())
                }
                Some(before) if before.reach >= complaint.reach => before,
                _ => complaint,
            });
        }
        furthest.map_or(Ok(()), Err)
    }

    fn other_type<T: Tree>(&self, value: &T, wanted: Vec<&'static str>) -> Complaint {
        let mut kinds = Vec::new();
        for kind in wanted {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        self.wrong_type(&value.view(), kinds)
    }

    fn wrong_type<T>(&self, value: &View<'_, T>, wanted: Vec<&'static str>) -> Complaint {
        let complaint =
            self.say(Reach::Nothing, format_args!("{} must be {}", show(value), wanted.join(" or ")));
        Complaint { wanted, ..complaint }
    }

    fn check_choice<T: Tree>(&mut self, choices: &[&str], value: &T) -> Result<(), Complaint> {
        let listed = choices.join(", ");
        match value.view() {
            View::Text(Some(text)) if choices.contains(&text) => Ok(()),
            View::Text(Some(text)) => {
                let advice = advice(text, choices.iter().copied());
                Err(self.say(Reach::Fields, format_args!("'{}' is none of {listed}{advice}", shorten(text))))
            }
            other => Err(self.say(Reach::Nothing, format_args!("{} must be one of {listed}", show(&other)))),
        }
    }

    fn check_type<T: Tree>(&self, schema: &Json, value: &View<'_, T>) -> Result<(), Complaint> {
        let allowed: Vec<&str> = match schema.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
            _ => return Ok(()),
        };
        let binary = schema.get("format").and_then(Json::as_str) == Some("binary");
        let fits = |kind: &str| match kind {
            "null" => matches!(value, View::Nil),
            "boolean" => matches!(value, View::Boolean(_)),
            "integer" => match value {
                View::Integer(_) => true,
                View::Float(number) => T::WHOLE_FLOATS && whole(*number).is_some(),
                _ => false,
            },
            "number" => matches!(value, View::Integer(_) | View::Float(_)),
            "string" if binary => matches!(value, View::Bytes(_)),
            "string" => matches!(value, View::Text(_)),
            "array" => matches!(value, View::Array(_)),
            // An empty table of Lua goes over the wire as an empty array.
            "object" => matches!(value, View::Map(_) | View::Array([])),
            _ => false,
        };
        if allowed.iter().any(|kind| fits(kind)) {
            return Ok(());
        }
        let wanted = allowed.into_iter().filter(|kind| *kind != "null").map(article).collect();
        Err(self.wrong_type(value, wanted))
    }

    fn check_number(&self, schema: &Json, number: f64, value: &str) -> Result<(), Complaint> {
        if !number.is_finite() {
            return Err(self.say(Reach::Fields, format_args!("{number} must be a finite number")));
        }
        let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
        let (minimum, maximum) = (bound("minimum"), bound("maximum"));
        if minimum.is_some_and(|minimum| number < minimum) || maximum.is_some_and(|maximum| number > maximum)
        {
            let written = |name: &str| {
                let bound = schema.get(name)?;
                // As it is, where a float would not have all its digits.
                bound.as_i64().map(|whole| whole.to_string()).or(Some(bound.as_f64()?.to_string()))
            };
            let range = match (written("minimum"), written("maximum")) {
                (Some(minimum), Some(maximum)) => format!("{minimum} to {maximum}"),
                (Some(minimum), None) => format!("{minimum} or more"),
                (None, Some(maximum)) => format!("{maximum} or less"),
                (None, None) => String::new(),
            };
            return Err(self.say(Reach::Fields, format_args!("{value} is out of range; give {range}")));
        }
        match bound("multipleOf") {
            Some(factor) if number % factor != 0.0 => {
                let below = (number / factor).floor() * factor;
                let above = below + factor;
                let text = format_args!("{value} is not a multiple of {factor}; give {below} or {above}");
                Err(self.say(Reach::Fields, text))
            }
            _ => Ok(()),
        }
    }

    fn check_length(&self, schema: &Json, text: &str) -> Result<(), Complaint> {
        if text.is_empty() && schema.get("minLength").and_then(Json::as_u64).is_some_and(|least| least > 0) {
            return Err(self.say(Reach::Fields, format_args!("is empty; give a text")));
        }
        let Some(most) = schema.get("maxLength").and_then(Json::as_u64) else {
            return Ok(());
        };
        // Cheap first: there are no more characters than bytes.
        let length = if text.len() as u64 <= most { 0 } else { text.chars().count() as u64 };
        if length > most {
            let text = format_args!("text is {length} characters long, {most} are allowed; shorten it");
            return Err(self.say(Reach::Fields, text));
        }
        Ok(())
    }

    fn check_items<T: Tree>(&mut self, schema: &'a Json, items: &[T]) -> Result<(), Complaint> {
        let most = schema.get("maxItems").and_then(Json::as_u64).unwrap_or(u64::MAX);
        if items.len() as u64 > most {
            let text = format_args!("{} items, {most} are allowed; send fewer", items.len());
            return Err(self.say(Reach::Fields, text));
        }
        let Some(each) = schema.get("items") else {
            return Ok(());
        };
        for (index, item) in items.iter().enumerate() {
            self.inside(index.to_string(), |walk| walk.check(each, item))?;
        }
        Ok(())
    }

    fn check_fields<T: Tree>(
        &mut self,
        schema: &'a Json,
        entries: &[(Key<'_>, &T)],
    ) -> Result<(), Complaint> {
        let most = schema.get("maxProperties").and_then(Json::as_u64).unwrap_or(u64::MAX);
        if entries.len() as u64 > most {
            let text = format_args!("{} entries, {most} are allowed; send fewer", entries.len());
            return Err(self.say(Reach::Fields, text));
        }
        let fields = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties");
        for (key, value) in entries {
            let key = match key {
                Ok(key) => *key,
                Err(shown) => {
                    return Err(self.say(Reach::Type, format_args!("the key {shown} must be a string")));
                }
            };
            match (fields.and_then(|fields| fields.get(key)), others) {
                (Some(field), _) => self.inside(key.to_owned(), |walk| walk.check(field, *value))?,
                (None, Some(Json::Bool(false))) => return Err(self.unknown_field(key, fields)),
                (None, Some(each @ Json::Object(_))) => {
                    self.inside(shorten(key), |walk| walk.check(each, *value))?;
                }
                (None, _) => (),
            }
        }
        let required = schema.get("required").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        for name in required.iter().filter_map(Json::as_str) {
            if !entries.iter().any(|(key, _)| *key == Ok(name)) {
                let missing = self.inside(name.to_owned(), |walk| {
                    Err(walk.say(Reach::Given, format_args!("is missing; give it")))
                });
                // What is missing was not reached.
                let reach = (self.path.len(), Reach::Given);
                return missing.map_err(|complaint| Complaint { reach, ..complaint });
            }
        }
        Ok(())
    }

    fn unknown_field(&self, key: &str, fields: Option<&serde_json::Map<String, Json>>) -> Complaint {
        let names: Vec<_> = fields.into_iter().flat_map(serde_json::Map::keys).map(String::as_str).collect();
        let path = self.path.iter().fold(String::new(), |path, part| path + part + ".");
        let advice = match nearest(key, names.iter().copied()) {
            Some(meant) => format!("; did you mean '{path}{meant}'?"),
            None if names.is_empty() => "; it takes none".into(),
            None => format!("; known: {}", names.join(", ")),
        };
        Complaint {
            text: format!("unknown field '{path}{}'{advice}", shorten(key)),
            reach: (self.path.len(), Reach::Type),
            wanted: Vec::new(),
        }
    }

    fn inside(
        &mut self,
        part: String,
        check: impl FnOnce(&mut Self) -> Result<(), Complaint>,
    ) -> Result<(), Complaint> {
        self.path.push(part);
        let outcome = check(self);
        self.path.pop();
        outcome
    }

    fn say(&self, reach: Reach, what: std::fmt::Arguments<'_>) -> Complaint {
        let place = if self.path.is_empty() { "params".to_owned() } else { self.path.join(".") };
        Complaint { text: format!("{place}: {what}"), reach: (self.path.len(), reach), wanted: Vec::new() }
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

/// A type of JSON's as an error names it.
pub(crate) fn article(kind: &str) -> &'static str {
    match kind {
        "integer" => "an integer",
        "number" => "a number",
        "string" => "a string",
        "boolean" => "true or false",
        "array" => "an array",
        "object" => "a map",
        "null" => "null",
        _ => "something else",
    }
}

/// A value as an error shows it.
pub(crate) fn show<T>(value: &View<'_, T>) -> String {
    match value {
        View::Nil => "nil".into(),
        View::Boolean(value) => value.to_string(),
        View::Integer(number) => number.to_string(),
        // With its point, so that 20.0 is seen not to be 20.
        View::Float(number) => format!("{number:?}"),
        View::Text(Some(text)) => format!("'{}'", shorten(text)),
        View::Text(None) => "text that is not valid UTF-8".into(),
        View::Bytes(count) => format!("{count} bytes (bin)"),
        View::Array(items) => format!("an array of {}", items.len()),
        View::Map(entries) => format!("a map of {}", entries.len()),
        View::Other(shown) => shown.clone(),
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
