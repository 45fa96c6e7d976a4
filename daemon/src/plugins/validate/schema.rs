//! Parameters that a schema allows, at its limits and within them.

use serde_json::{Map, Value as Json, json};

use super::inputs::Random;
use crate::plugins::parameters;

/// Levels that are filled.
const DEEPEST: usize = 6;
/// Elements of a list, where the schema wants no more.
const MOST_ITEMS: u64 = 4;
/// Characters of parameters that are shown.
const MOST_SHOWN: usize = 400;
/// How often it is tried to meet what is not looked at here, such as patterns.
const TRIES: usize = 8;

/// Parameters by the schema; none if none were found.
pub(super) fn params(schema: &Json, random: &mut Random) -> Option<Map<String, Json>> {
    (0..TRIES).find_map(|_| {
        let Json::Object(made) = value(schema, schema, random, 0) else { return None };
        let mut whole = Json::Object(made.clone());
        parameters::with_defaults(schema, &mut whole).ok()?;
        parameters::validate(schema, &whole).ok()?;
        Some(made)
    })
}

/// Parameters for people who are to give them again; the beginning of long ones.
pub(super) fn shown(params: &Map<String, Json>) -> String {
    let text = Json::Object(params.clone()).to_string();
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A value that a part of the schema may allow.
fn value(root: &Json, schema: &Json, random: &mut Random, depth: usize) -> Json {
    if depth > DEEPEST {
        return Json::Null;
    }
    let at = |key: &str| schema.get(key);
    if let Some(default) = at("default").filter(|_| depth > 0 && random.below(5) == 0) {
        return default.clone();
    }
    // Whatever stands there is a picture.
    if ["x-image", "x-mask"].iter().any(|keyword| at(keyword) == Some(&Json::Bool(true))) {
        return json!({"blob": "made-up"});
    }
    if let Some(only) = at("const") {
        return only.clone();
    }
    if let Some(one) = at("enum").and_then(Json::as_array).and_then(|values| random.pick(values)) {
        return one.clone();
    }
    if let Some(part) = at("$ref").and_then(Json::as_str).and_then(|to| root.pointer(to.strip_prefix('#')?)) {
        return value(root, part, random, depth + 1);
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        let one = at(key).and_then(Json::as_array).and_then(|parts| random.pick(parts));
        if let Some(part) = one.filter(|_| at("properties").is_none()) {
            return value(root, part, random, depth + 1);
        }
    }
    let kind = match at("type") {
        Some(Json::Array(kinds)) => random.pick(kinds).and_then(Json::as_str),
        Some(Json::String(kind)) => Some(kind.as_str()),
        _ if at("properties").is_some() => Some("object"),
        _ => random.pick(&["null", "boolean", "integer", "number", "string"]).copied(),
    };
    match kind.unwrap_or_default() {
        "object" => object(root, schema, random, depth),
        "array" => array(root, schema, random, depth),
        "string" => string(schema, random).into(),
        "boolean" => (random.below(2) == 1).into(),
        "integer" => (number(schema, random, true) as i64).into(),
        "number" => json!(number(schema, random, false)),
        _ => Json::Null,
    }
}

fn object(root: &Json, schema: &Json, random: &mut Random, depth: usize) -> Json {
    let required = schema.get("required").and_then(Json::as_array);
    let mut made = Map::new();
    for (name, part) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        let is_required =
            required.is_some_and(|names| names.iter().any(|each| each.as_str() == Some(name.as_str())));
        if is_required || random.below(4) > 0 {
            made.insert(name.clone(), value(root, part, random, depth + 1));
        }
    }
    made.into()
}

fn array(root: &Json, schema: &Json, random: &mut Random, depth: usize) -> Json {
    let bound = |key: &str| schema.get(key).and_then(Json::as_u64);
    let least = bound("minItems").unwrap_or(0);
    let most = bound("maxItems").unwrap_or(u64::MAX).min(least + MOST_ITEMS).max(least);
    let count = least as usize + random.below((most - least + 1) as usize);
    let first = schema.get("prefixItems").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let any = json!({});
    let rest = schema.get("items").unwrap_or(&any);
    (0..count).map(|index| value(root, first.get(index).unwrap_or(rest), random, depth + 1)).collect()
}

fn string(schema: &Json, random: &mut Random) -> String {
    const CHARACTERS: [char; 12] = ['a', 'Z', '0', ' ', '_', '/', '\'', '"', '\\', 'ü', '雪', '\n'];
    let bound = |key: &str| schema.get(key).and_then(Json::as_u64);
    let least = bound("minLength").unwrap_or(0).min(1 << 16);
    let most = bound("maxLength").unwrap_or(300).min(1 << 16).max(least);
    let length = match random.below(3) {
        0 => least,
        1 => most,
        _ => least + random.below((most - least + 1) as usize) as u64,
    };
    (0..length).filter_map(|_| random.pick(&CHARACTERS)).collect()
}

/// At the least, at the most, at 0, or between.
fn number(schema: &Json, random: &mut Random, is_whole: bool) -> f64 {
    let bound = |key: &str| schema.get(key).and_then(Json::as_f64);
    let beside = if is_whole { 1.0 } else { 1e-6 };
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|least| least + beside));
    let most = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|most| most - beside));
    let (least, most) = match (least, most) {
        (Some(least), Some(most)) => (least, most),
        (Some(least), None) => (least, least + 1e6),
        (None, Some(most)) => (most - 1e6, most),
        (None, None) => (-1e6, 1e6),
    };
    let made = match random.below(5) {
        0 => least,
        1 => most,
        2 => 0.0_f64.clamp(least, most.max(least)),
        _ => least + random.share() * (most - least),
    };
    match bound("multipleOf").filter(|step| *step > 0.0) {
        Some(step) => (made / step).trunc() * step,
        None if is_whole => made.round(),
        None => made,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_made_reaches_the_limits_and_is_valid() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["mode"],
            "properties": {
                "mode": {"enum": ["a", "b"]},
                "strength": {"type": "number", "minimum": 0, "maximum": 1},
                "count": {"type": "integer", "exclusiveMinimum": 0, "maximum": 64, "multipleOf": 8},
                "text": {"type": ["string", "null"], "maxLength": 5},
                "units": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/unit"}},
            },
            "$defs": {"unit": {"type": "object", "properties": {"on": {"type": "boolean"}}}},
        });
        let mut random = Random::of(1, "params");
        let made: Vec<_> = (0..200).filter_map(|_| params(&schema, &mut random)).collect();
        assert!(made.len() > 100, "{}", made.len());
        let seen: BTreeSet<String> =
            made.iter().filter_map(|made| made.get("strength")).map(Json::to_string).collect();
        assert!(seen.contains("0.0") && seen.contains("1.0") && seen.len() > 10, "{seen:?}");
        for field in ["count", "text", "units"] {
            assert!(made.iter().any(|made| made.contains_key(field)), "{field}");
            assert!(made.iter().any(|made| !made.contains_key(field)), "{field}");
        }
        assert!(params(&json!({"type": "object", "required": ["a"]}), &mut random).is_none());
    }
}
