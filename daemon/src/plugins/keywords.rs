//! Where parameters stand for something: the schema keywords `x-image`, `x-mask`, `x-library`, `x-engine` and `x-prompt` at the
//! values that they hold for.
//!
//! A keyword holds for a value that validates against the schema that carries it; what another part of an `anyOf` or `oneOf`
//! names is itself: in `anyOf [{enum: ["None"]}, {x-library: "controlnet"}]` "None" is. Of what `not`, `if` or `contains` say nothing follows.

use serde_json::Value as Json;

use super::parameters::{DEEPEST, chain, compile};

/// The keywords, as schemas have them.
pub(super) const KEYWORDS: [&str; 5] = ["x-image", "x-mask", "x-library", "x-engine", "x-prompt"];

/// A value that a keyword holds for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// Where in the parameters, as a JSON pointer.
    pub pointer: String,
    pub keyword: &'static str,
    /// What the schema gives it: `true`, or the kind.
    pub of: Json,
}

/// The places of all keywords in parameters that are valid by `schema`, in the order of the parameters; each once.
pub(super) fn places(schema: &Json, params: &Json) -> Result<Vec<Place>, String> {
    let mut walk = Walk { root: schema, places: vec![] };
    walk.at(schema, params, &mut String::new(), 0)?;
    Ok(walk.places)
}

struct Walk<'a> {
    root: &'a Json,
    places: Vec<Place>,
}

impl<'a> Walk<'a> {
    fn at(
        &mut self,
        schema: &'a Json,
        value: &Json,
        pointer: &mut String,
        depth: usize,
    ) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("parameters are more than {DEEPEST} levels deep"));
        }
        for schema in chain(self.root, schema) {
            for keyword in KEYWORDS {
                let Some(of) = schema.get(keyword).filter(|of| **of != Json::Bool(false)) else { continue };
                let place = Place { pointer: pointer.clone(), keyword, of: of.clone() };
                if !self.places.contains(&place) {
                    self.places.push(place);
                }
            }
            let parts = |name: &str| schema.get(name).and_then(Json::as_array).into_iter().flatten();
            for part in parts("allOf") {
                self.at(part, value, pointer, depth + 1)?;
            }
            for parts in [parts("anyOf"), parts("oneOf")] {
                let parts: Vec<&Json> = parts.collect();
                // What one of them names is itself, whatever the others say of any text.
                if parts.iter().any(|part| names(part, value)) {
                    continue;
                }
                for part in parts {
                    if self.holds(part, value)? {
                        self.at(part, value, pointer, depth + 1)?;
                    }
                }
            }
            match value {
                Json::Object(fields) => {
                    for (name, field) in fields {
                        let known = schema.get("properties").and_then(|known| known.get(name));
                        if let Some(part) = known.or_else(|| schema.get("additionalProperties")) {
                            self.below(part, field, (pointer, &escaped(name)), depth)?;
                        }
                    }
                }
                Json::Array(items) => {
                    let first: Vec<&Json> = parts("prefixItems").collect();
                    for (index, item) in items.iter().enumerate() {
                        if let Some(part) = first.get(index).copied().or_else(|| schema.get("items")) {
                            self.below(part, item, (pointer, &index.to_string()), depth)?;
                        }
                    }
                }
                _ => (),
            }
        }
        Ok(())
    }

    fn below(
        &mut self,
        schema: &'a Json,
        value: &Json,
        (pointer, name): (&mut String, &str),
        depth: usize,
    ) -> Result<(), String> {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(name);
        let done = self.at(schema, value, pointer, depth + 1);
        pointer.truncate(length);
        done
    }

    /// Whether a value is valid by a part of the schema.
    fn holds(&self, part: &Json, value: &Json) -> Result<bool, String> {
        let mut alone = part.clone();
        // What it refers to are parts of the whole.
        if let (Some(map), Some(root)) = (alone.as_object_mut(), self.root.as_object()) {
            for (name, of) in root.iter().filter(|(_, of)| of.is_object() || of.is_array()) {
                if ["$defs", "definitions"].contains(&name.as_str()) {
                    map.insert(name.clone(), of.clone());
                }
            }
        }
        Ok(compile(&alone)?.is_valid(value))
    }
}

/// Whether a schema that carries no keyword has this value in its `enum`, or as its `const`.
fn names(schema: &Json, value: &Json) -> bool {
    let has = |keyword: &str| schema.get(keyword).is_some();
    let is_among = |values: &Json| values.as_array().is_some_and(|values| values.contains(value));
    !KEYWORDS.iter().any(|keyword| has(keyword))
        && (schema.get("enum").is_some_and(is_among) || schema.get("const") == Some(value))
}

/// A field's name within a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keywords_hold_where_values_are_valid_by_their_schemas() {
        let schema = json!({
            "type": "object",
            "properties": {
                "image": {"x-image": true},
                "model": {"anyOf": [{"enum": ["None"]}, {"$ref": "#/$defs/model"}]},
                "units": {"items": {"properties": {"a/b": {"x-prompt": true}, "model": {"$ref": "#/$defs/model"}}}},
                "pair": {"prefixItems": [{"x-mask": true}], "items": {"x-image": true}},
                "off": {"x-image": false},
                "plain": {"anyOf": [{"enum": ["None"]}, {"x-library": "lora"}]},
            },
            "additionalProperties": {"x-engine": "upscaler"},
            "$defs": {"model": {"type": "string", "not": {"const": "None"}, "x-library": "controlnet"}},
        });
        let found = |params: Json| -> Vec<String> {
            let places = places(&schema, &params).expect("walked");
            places
                .into_iter()
                .map(|Place { pointer, keyword, of }| format!("{pointer} {keyword} {of}"))
                .collect()
        };
        assert_eq!(found(json!({"model": "None", "off": "x", "plain": "None"})), [""; 0]);
        assert_eq!(found(json!({"plain": "x"})), ["/plain x-library \"lora\""]);
        assert_eq!(found(json!({"model": "canny"})), ["/model x-library \"controlnet\""]);
        assert_eq!(
            found(json!({"image": "a", "units": [{}, {"a/b": "p", "model": "x"}], "pair": [1, 2], "z": "u"})),
            [
                "/image x-image true",
                "/pair/0 x-mask true",
                "/pair/1 x-image true",
                "/units/1/a~1b x-prompt true",
                "/units/1/model x-library \"controlnet\"",
                "/z x-engine \"upscaler\"",
            ]
        );
    }
}
