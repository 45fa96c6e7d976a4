//! What a plugin takes as parameters: the JSON Schema that its manifest has of them, its defaults, and whether parameters are
//! valid by it.
//!
//! Both sides are foreign, the schema a plugin's and the values a client's: what either may cost is bounded. A value that
//! is not allowed is told by its place.

use std::collections::hash_map::{Entry, HashMap};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use latentd_client::protocol::LibraryKind;
use serde_json::Value as Json;

use super::engine_kinds::Kind;
use crate::schema::{article, shorten};
use crate::suggest::advice;

/// The kind of library files of this name.
pub(super) fn kind_of(name: &str) -> Option<LibraryKind> {
    LibraryKind::ALL.iter().find(|(_, own)| *own == name).map(|(kind, _)| *kind)
}

/// Bytes of a schema.
const LARGEST_SCHEMA: usize = 256 << 10;

/// Levels of a schema with what it refers to, and how many schemas all of them are, written out.
pub(super) const DEEPEST: usize = 128;
const MOST_SCHEMAS: u64 = 100_000;

/// What defaults may add to parameters: values, and bytes of texts.
const MOST_DEFAULTS: usize = 1 << 20;

/// Keywords of a schema whose values are no schemas; and those that hold schemas by name.
pub(super) const DATA_KEYWORDS: [&str; 5] = ["default", "const", "enum", "examples", "required"];
pub(super) const NAMED_SCHEMAS: [&str; 5] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// The draft that schemas are written in, where they say it.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A schema that can be compiled and checked against within bounds.
pub(super) fn read_parameters(text: &str) -> Result<Json, String> {
    if text.len() > LARGEST_SCHEMA {
        return Err(format!("the schema is {} bytes long, {LARGEST_SCHEMA} are allowed", text.len()));
    }
    let schema: Json = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let Some(map) = schema.as_object() else {
        return Err(format!("the schema is {}, it must be a map", show(&schema)));
    };
    match map.get("type") {
        Some(Json::String(kind)) if kind == "object" => (),
        Some(other) => return Err(format!("its type is {}, it must be 'object'", show(other))),
        None => return Err("its type is missing; give \"type\": \"object\"".into()),
    }
    match map.get("$schema") {
        Some(Json::String(draft)) if draft.trim_end_matches('#') == DRAFT => (),
        Some(other) => return Err(format!("its $schema is {}, only '{DRAFT}' is read", show(other))),
        None => (),
    }
    check_keywords(&schema, true)?;
    Extent { root: &schema, known: HashMap::new() }.of(&schema, 0)?;
    let validator = compile(&schema)?;
    let mut defaults = Json::Object(serde_json::Map::new());
    with_defaults(&schema, &mut defaults)?;
    // What is wrong with the whole is what the request leaves out.
    let wrong = validator.iter_errors(&defaults).find(|error| !error.instance_path().as_str().is_empty());
    if let Some(error) = wrong {
        return Err(format!("a default is not what the schema allows: {}", describe(&schema, &error)));
    }
    Ok(schema)
}

/// Nothing that is not in the schema is looked for.
pub(super) fn compile(schema: &Json) -> Result<Validator, String> {
    // Values come from clients: patterns must not be able to take for ever.
    let patterns = PatternOptions::regex();
    let options =
        jsonschema::options().with_draft(Draft::Draft202012).offline().with_pattern_options(patterns);
    options.build(schema).map_err(|error| {
        let place = error.instance_path().as_str();
        let text = shorten(&error.to_string());
        if place.is_empty() { text } else { format!("{place}: {text}") }
    })
}

/// That a schema has no keyword that is not there yet, and refers to nothing but its own parts, by pointer.
fn check_keywords(schema: &Json, is_root: bool) -> Result<(), String> {
    let Json::Object(map) = schema else {
        return Ok(());
    };
    for (keyword, value) in map {
        match (keyword.as_str(), value) {
            ("x-image" | "x-mask", value) if !value.is_boolean() => {
                return Err(format!("has {keyword}: {}; it may be true or false", show(value)));
            }
            ("x-library", kind)
                if kind.as_str().and_then(kind_of).is_none() && *kind != Json::Bool(false) =>
            {
                let kinds = LibraryKind::ALL.map(|(_, name)| name);
                let advice = advice(kind.as_str().unwrap_or_default(), kinds);
                return Err(format!("has x-library: {}, which is no kind of file{advice}", show(kind)));
            }
            ("x-engine", kind)
                if kind.as_str().and_then(Kind::from_name).is_none() && *kind != Json::Bool(false) =>
            {
                let advice = advice(kind.as_str().unwrap_or_default(), Kind::ALL.map(Kind::name));
                return Err(format!("has x-engine: {}, which is no kind of engine{advice}", show(kind)));
            }
            ("$ref", Json::String(to)) if to != "#" && !to.starts_with("#/") => {
                return Err(format!(
                    "refers to '{}'; only its own parts can be referred to, such as '#/$defs/NAME'",
                    shorten(to)
                ));
            }
            // These give names to parts, which would lead around the counting of them.
            ("$id", _) if !is_root => {
                return Err("uses $id within; it may stand at its beginning only".into());
            }
            (name @ ("$dynamicRef" | "$dynamicAnchor" | "$recursiveRef"), _) => {
                return Err(format!("uses {name}; use $ref with '#/$defs/NAME'"));
            }
            (name, _) if DATA_KEYWORDS.contains(&name) => (),
            (name, Json::Object(named)) if NAMED_SCHEMAS.contains(&name) => {
                named.values().try_for_each(|schema| check_keywords(schema, false))?;
            }
            (_, Json::Array(schemas)) => {
                schemas.iter().try_for_each(|schema| check_keywords(schema, false))?;
            }
            (_, schema) => check_keywords(schema, false)?,
        }
    }
    Ok(())
}

/// How large a schema is with all that it refers to: a short one can stand for more than can be gone through.
struct Extent<'a> {
    root: &'a Json,
    /// Of parts that are referred to: how many values and levels. `None` while they are counted: they come round.
    known: HashMap<&'a str, Option<(u64, usize)>>,
}

impl<'a> Extent<'a> {
    /// Values and levels of a part that stands so deep.
    fn of(&mut self, part: &'a Json, depth: usize) -> Result<(u64, usize), String> {
        let mut parts: Vec<&Json> = Vec::new();
        let (mut count, mut levels) = (1_u64, 0);
        match part {
            Json::Object(map) => {
                if let Some(Json::String(to)) = map.get("$ref") {
                    let (referred, below) = self.referred(to, depth + 1)?;
                    count = count.saturating_add(referred);
                    levels = below;
                }
                parts.extend(map.values());
            }
            Json::Array(items) => parts.extend(items),
            _ => return Ok((1, 1)),
        }
        for part in parts {
            let (inner, below) = self.of(part, depth + 1)?;
            count = count.saturating_add(inner);
            levels = levels.max(below);
        }
        if depth + levels > DEEPEST {
            return Err(format!("the schema is more than {DEEPEST} levels deep; make it flatter"));
        }
        if count > MOST_SCHEMAS {
            return Err(format!("the schema is larger than {MOST_SCHEMAS} values with what it refers to"));
        }
        Ok((count, levels + 1))
    }

    fn referred(&mut self, to: &'a str, depth: usize) -> Result<(u64, usize), String> {
        if depth > DEEPEST {
            return Err(format!("the schema is more than {DEEPEST} levels deep; make it flatter"));
        }
        match self.known.entry(to) {
            Entry::Occupied(known) => Ok(known.get().unwrap_or((1, 1))),
            Entry::Vacant(place) => {
                let part = to.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
                let part =
                    part.ok_or_else(|| format!("refers to '{}', which it does not have", shorten(to)))?;
                place.insert(None);
                let extent = self.of(part, depth)?;
                self.known.insert(to, Some(extent));
                Ok(extent)
            }
        }
    }
}

/// Puts the schema's defaults where parameters are left out: of the fields (`properties`) of maps, and of maps that are
/// items of arrays. An error if that were more than can be meant.
pub(crate) fn with_defaults(schema: &Json, params: &mut Json) -> Result<(), String> {
    Defaults { root: schema, left: MOST_DEFAULTS }.fill(schema, params, 0)
}

struct Defaults<'a> {
    root: &'a Json,
    left: usize,
}

impl<'a> Defaults<'a> {
    fn fill(&mut self, schema: &'a Json, value: &mut Json, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("parameters with their defaults are more than {DEEPEST} levels deep"));
        }
        for schema in chain(self.root, schema) {
            match value {
                Json::Object(fields) => {
                    let known = schema.get("properties").and_then(Json::as_object);
                    for (name, schema) in known.into_iter().flatten() {
                        self.spend(1)?;
                        if !fields.contains_key(name)
                            && let Some(default) =
                                chain(self.root, schema).find_map(|schema| schema.get("default"))
                        {
                            self.spend_on(default)?;
                            self.spend(name.len())?;
                            fields.insert(name.clone(), default.clone());
                        }
                        if let Some(field) = fields.get_mut(name) {
                            self.fill(schema, field, depth + 1)?;
                        }
                    }
                }
                Json::Array(items) => {
                    let first = schema.get("prefixItems").and_then(Json::as_array);
                    let first = first.map_or(&[][..], Vec::as_slice);
                    for (index, item) in items.iter_mut().enumerate() {
                        self.spend(1)?;
                        if let Some(schema) = first.get(index).or_else(|| schema.get("items")) {
                            self.fill(schema, item, depth + 1)?;
                        }
                    }
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn spend(&mut self, amount: usize) -> Result<(), String> {
        let left = self.left.checked_sub(amount);
        self.left = left.ok_or("parameters with their defaults are too large; give fewer")?;
        Ok(())
    }

    fn spend_on(&mut self, value: &Json) -> Result<(), String> {
        match value {
            Json::String(text) => self.spend(1 + text.len()),
            Json::Array(items) => {
                self.spend(1)?;
                items.iter().try_for_each(|item| self.spend_on(item))
            }
            Json::Object(fields) => fields.iter().try_for_each(|(name, value)| {
                self.spend(1 + name.len())?;
                self.spend_on(value)
            }),
            _ => self.spend(1),
        }
    }
}

/// A schema, what it refers to, and so on.
pub(super) fn chain<'a>(root: &'a Json, schema: &'a Json) -> impl Iterator<Item = &'a Json> {
    let next = move |schema: &&'a Json| {
        let to = schema.get("$ref").and_then(Json::as_str)?;
        root.pointer(to.strip_prefix('#')?)
    };
    // Some come round.
    std::iter::successors(Some(schema), next).take(DEEPEST)
}

/// That parameters are what a schema allows; else where they are not, what stands there, and what may. The schema is compiled
/// for each call.
pub(crate) fn validate(schema: &Json, params: &Json) -> Result<(), String> {
    let validator = compile(schema)?;
    validator.validate(params).map_err(|error| describe(schema, &error))
}

/// The same of several, by a schema that is compiled once.
pub(super) fn validate_each(schema: &Json, all: impl Iterator<Item = Json>) -> Result<(), String> {
    let validator = compile(schema)?;
    for params in all {
        validator.validate(&params).map_err(|error| describe(schema, &error))?;
    }
    Ok(())
}

/// An error with the pointer to its place and the value there.
fn describe(schema: &Json, error: &ValidationError<'_>) -> String {
    let error = innermost(error);
    let place = error.instance_path().as_str();
    let value = show(error.instance());
    let text = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let keyword = error.schema_path().as_str();
            let parent = keyword.rsplit_once('/').and_then(|(parent, _)| schema.pointer(parent));
            let known = parent.and_then(|parent| parent.get("properties")).and_then(Json::as_object);
            let known: Vec<&str> =
                known.into_iter().flat_map(serde_json::Map::keys).map(String::as_str).collect();
            let name = unexpected.first().map_or("", String::as_str);
            let advice = match advice(name, known.iter().copied()) {
                advice if !advice.is_empty() => advice,
                _ if known.is_empty() => "; it takes none".into(),
                _ => format!("; known: {}", known.join(", ")),
            };
            return format!("{place}: unknown field '{}'{advice}", shorten(name))
                .trim_start_matches(": ")
                .into();
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default().replace('~', "~0").replace('/', "~1");
            return format!("{place}/{}: is missing; give it", shorten(&name));
        }
        ValidationErrorKind::Type { kind } => {
            let kinds: Vec<String> = match kind {
                TypeKind::Single(kind) => vec![kind.to_string()],
                TypeKind::Multiple(kinds) => kinds.iter().map(|kind| kind.to_string()).collect(),
            };
            let kinds: Vec<&str> = kinds.iter().map(|kind| article(kind)).collect();
            format!("{value} must be {}", kinds.join(" or "))
        }
        ValidationErrorKind::Enum { options } => {
            let choices = options.as_array().map_or(&[][..], Vec::as_slice);
            let listed: Vec<String> = choices.iter().map(show).collect();
            let name = error.instance().as_str().unwrap_or_default();
            let advice = advice(name, choices.iter().filter_map(Json::as_str));
            format!("{value} is none of {}{advice}", listed.join(", "))
        }
        ValidationErrorKind::Constant { expected_value } => {
            format!("{value} must be {}", show(expected_value))
        }
        ValidationErrorKind::Minimum { limit } => format!("{value} is out of range; give {limit} or more"),
        ValidationErrorKind::Maximum { limit } => format!("{value} is out of range; give {limit} or less"),
        ValidationErrorKind::ExclusiveMinimum { limit } => {
            format!("{value} is out of range; give more than {limit}")
        }
        ValidationErrorKind::ExclusiveMaximum { limit } => {
            format!("{value} is out of range; give less than {limit}")
        }
        ValidationErrorKind::FalseSchema => format!("{value} is not allowed; leave it out"),
        _ => error.masked_with(value).to_string(),
    };
    format!("{}: {text}", if place.is_empty() { "parameters" } else { place })
}

/// Of an error in all of several shapes, the one of the shape that came furthest, where one came further than the others.
fn innermost<'a, 'i>(error: &'a ValidationError<'i>) -> &'a ValidationError<'i>
where
    'static: 'i,
{
    let depth = |error: &ValidationError<'_>| error.instance_path().as_str().matches('/').count();
    let (ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context }) =
        error.kind()
    else {
        return error;
    };
    let firsts = context.iter().filter_map(|errors| errors.first());
    let furthest = firsts.max_by_key(|inner| depth(inner)).filter(|inner| depth(inner) > depth(error));
    furthest.map_or(error, |inner| innermost(inner))
}

/// A value as an error shows it.
fn show(value: &Json) -> String {
    match value {
        Json::String(text) => format!("'{}'", shorten(text)),
        Json::Array(items) => format!("an array of {}", items.len()),
        Json::Object(fields) => format!("a map of {}", fields.len()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(text in "\\PC{0,200}") {
            read_parameters(&text).ok();
        }
    }

    #[test]
    fn schemas_that_cannot_be_kept_are_refused() {
        let check = |schema: &Json, expected: &str| {
            let found = read_parameters(&schema.to_string()).expect_err(expected);
            assert!(found.contains(expected), "{schema}\n{found}");
        };
        let field = |schema: Json| json!({"type": "object", "properties": {"a": schema}});
        check(&json!([]), "is an array of 0, it must be a map");
        check(&json!({}), "type is missing");
        check(&json!({"type": "array"}), "type is 'array', it must be 'object'");
        check(&json!({"type": ["object", "null"]}), "type is an array of 2");
        check(
            &json!({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}),
            "only 'https:",
        );
        check(&field(json!({"type": "intger"})), "/properties/a/type: ");
        check(&field(json!({"pattern": "("})), "/properties/a/pattern: ");
        check(&field(json!({"pattern": "^(?=x)"})), "/properties/a/pattern: ");
        for to in ["http://127.0.0.1:9/x.json", "file:///etc/passwd", "x.json", "urn:x", DRAFT, "#anchor"] {
            check(&field(json!({"$ref": to})), "only its own parts can be referred to");
        }
        check(&field(json!({"$ref": "#/$defs/none"})), "which it does not have");
        check(&field(json!({"$dynamicRef": "#x"})), "uses $dynamicRef");
        check(&field(json!({"$id": "x"})), "uses $id within");
        for (kind, advice) in
            [(json!("detectr"), "did you mean 'detector'?"), (json!(true), ""), (json!(1), "")]
        {
            let text = format!("has x-engine: {}, which is no kind of engine", show(&kind));
            check(&field(json!({"x-engine": kind})), &text);
            check(&field(json!({"anyOf": [{"enum": ["None"]}, {"x-engine": kind}]})), advice);
            // A field may be called so.
            let named = json!({"type": "object", "properties": {"x-engine": {"default": {"x-engine": 1}}}});
            read_parameters(&named.to_string()).expect("a schema");
        }
        check(
            &field(json!({"type": "number", "default": "x"})),
            "a default is not what the schema allows: /a: 'x'",
        );
        check(&field(json!({"x-image": "yes"})), "has x-image: 'yes'; it may be true or false");
        check(&field(json!({"x-library": "controlnets"})), "is no kind of file; did you mean 'controlnet'?");
        read_parameters(&field(json!({"x-library": "lora", "x-mask": false})).to_string()).expect("a schema");
        assert!(read_parameters("{").expect_err("none").starts_with("not JSON: "));
        let deep = format!("{{\"type\":\"object\",\"not\":{}{}", "{\"not\":".repeat(100_000), "{}");
        assert!(read_parameters(&deep).is_err());
    }

    #[test]
    fn short_schemas_that_stand_for_very_much_are_refused_at_once() {
        let with = |count: usize, each: &dyn Fn(String) -> Json, last: Json| {
            let next = |index: usize| each(format!("#/$defs/n{}", index + 1));
            let mut parts: serde_json::Map<_, _> =
                (0..count).map(|index| (format!("n{index}"), next(index))).collect();
            parts.insert(format!("n{count}"), last);
            let schema = json!({"type": "object", "$ref": "#/$defs/n0", "$defs": parts});
            read_parameters(&schema.to_string())
        };
        let twice = |to: String| json!({"allOf": [{"$ref": to}, {"$ref": to}]});
        let error = with(28, &twice, json!({})).expect_err("too large");
        assert!(error.contains("is larger than 100000 values"), "{error}");
        with(8, &twice, json!({})).expect("not large");
        let error = with(5000, &|to| json!({"$ref": to}), json!({})).expect_err("too deep");
        assert!(error.contains("levels deep"), "{error}");
        with(40, &|to| json!({"$ref": to}), json!({})).expect("not deep");
        // Those that come round have an end, except where each adds a default.
        with(3, &twice, json!({"$ref": "#/$defs/n0"})).expect("goes round");
        let round = json!({"type": "object", "properties": {"a": {"$ref": "#"}}});
        read_parameters(&round.to_string()).expect("goes round");
        let endless = json!({"type": "object", "properties": {"a": {"$ref": "#", "default": {}}}});
        let error = read_parameters(&endless.to_string()).expect_err("endless");
        assert!(error.contains("levels deep"), "{error}");
    }

    #[test]
    fn defaults_stand_where_nothing_was_given() {
        let schema = json!({
            "type": "object",
            "properties": {
                "strength": {"type": "number", "default": 0.5},
                "none": {"type": "string"},
                "inner": {"default": {}, "properties": {"x": {"default": [1]}}},
                "units": {"items": {"$ref": "#/$defs/unit"}},
                "pair": {
                    "prefixItems": [{"properties": {"first": {"default": 1}}}],
                    "items": {"properties": {"more": {"default": 2}}},
                },
                "unit": {"$ref": "#/$defs/unit", "default": {"weight": 3}},
            },
            "$defs": {"unit": {"type": "object", "default": {"weight": 7}, "properties": {
                "weight": {"type": "number", "default": 1},
                "name": {"type": ["string", "null"], "default": null},
            }}},
        });
        let check = |params: Json, expected: &Json| {
            let mut found = params;
            with_defaults(&schema, &mut found).expect("filled");
            assert_eq!(&found, expected);
        };
        let least = json!({
            "strength": 0.5, "inner": {"x": [1]}, "unit": {"weight": 3, "name": null},
        });
        check(json!({}), &least);
        check(least.clone(), &least);
        check(
            json!({
                "strength": null, "inner": {"x": 2, "y": 3},
                "units": [{}, {"weight": 2}, 4], "pair": [{}, {}], "unit": 1,
            }),
            &json!({
                "strength": null, "inner": {"x": 2, "y": 3},
                "units": [{"weight": 1, "name": null}, {"weight": 2, "name": null}, 4],
                "pair": [{"first": 1}, {"more": 2}], "unit": 1,
            }),
        );
        let each = json!({"properties": {"x": {"default": "y".repeat(100_000)}}});
        let large = json!({"type": "object", "properties": {"a": {"items": each}}});
        let error = with_defaults(&large, &mut json!({"a": vec![json!({}); 1000]})).expect_err("too large");
        assert!(error.contains("too large"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_parameters_is_said_with_its_place() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["on"],
            "properties": {
                "on": {"type": "boolean"},
                "strength": {"type": "number", "minimum": 0, "maximum": 1},
                "above": {"exclusiveMinimum": 0},
                "mode": {"enum": ["fast", "good"]},
                "size": {"type": ["integer", "string"], "multipleOf": 8},
                "text": {"type": "string", "maxLength": 3, "pattern": "^a"},
                "units": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/unit"}},
                "any": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/unit"}]},
                "no": false,
            },
            "$defs": {"unit": {
                "type": "object", "additionalProperties": false, "properties": {"weight": {"type": "number"}},
            }},
        });
        read_parameters(&schema.to_string()).expect("a schema");
        let check = |field: &str, value: Json, expected: &str| {
            let mut params = json!({"on": true});
            params.as_object_mut().expect("a map").insert(field.to_owned(), value);
            assert_eq!(validate(&schema, &params).err().unwrap_or_default(), expected);
        };
        check("strength", json!(0.5), "");
        check("units", json!([{"weight": 1}]), "");
        check("strength", json!(2), "/strength: 2 is out of range; give 1 or less");
        check("strength", json!(-0.5), "/strength: -0.5 is out of range; give 0 or more");
        check("strength", json!("x"), "/strength: 'x' must be a number");
        check("above", json!(0), "/above: 0 is out of range; give more than 0");
        check("mode", json!("fsat"), "/mode: 'fsat' is none of 'fast', 'good'; did you mean 'fast'?");
        check("size", json!(true), "/size: true must be an integer or a string");
        check("size", json!(9), "/size: 9 is not a multiple of 8");
        check("text", json!("bc"), "/text: 'bc' does not match \"^a\"");
        check("text", json!("abcd"), "/text: 'abcd' is longer than 3 characters");
        check("units", json!([{"wieght": 1}]), "/units/0: unknown field 'wieght'; did you mean 'weight'?");
        check("units", json!([{"weight": []}]), "/units/0/weight: an array of 0 must be a number");
        check("units", json!([{}, {}, {}]), "/units: an array of 3 has more than 2 items");
        check("any", json!({"weight": "x"}), "/any/weight: 'x' must be a number");
        check("no", json!(1), "/no: 1 is not allowed; leave it out");
        check("strenght", json!(1), "unknown field 'strenght'; did you mean 'strength'?");
        check("on", json!(1), "/on: 1 must be true or false");
        let missing = validate(&schema, &json!({})).expect_err("missing");
        assert_eq!(missing, "/on: is missing; give it");
        assert_eq!(validate(&schema, &json!(1)).expect_err("none"), "parameters: 1 must be a map");
    }
}
