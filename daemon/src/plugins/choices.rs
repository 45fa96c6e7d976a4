//! Schemas as they are shown: where `x-engine` stands, what there is to choose from stands beside it.

use serde_json::Value as Json;

use super::engine_kinds::Kind;
use super::parameters::{DATA_KEYWORDS, NAMED_SCHEMAS};

/// Puts `x-choices` beside each `x-engine`.
pub(super) fn with_choices(schema: &mut Json, names: &dyn Fn(Kind) -> Vec<String>) {
    let Json::Object(map) = schema else { return };
    for (keyword, value) in map.iter_mut() {
        match value {
            _ if DATA_KEYWORDS.contains(&keyword.as_str()) => (),
            Json::Object(named) if NAMED_SCHEMAS.contains(&keyword.as_str()) => {
                named.values_mut().for_each(|schema| with_choices(schema, names));
            }
            Json::Array(schemas) => schemas.iter_mut().for_each(|schema| with_choices(schema, names)),
            schema => with_choices(schema, names),
        }
    }
    if let Some(kind) = map.get("x-engine").and_then(Json::as_str).and_then(Kind::from_name) {
        map.insert("x-choices".to_owned(), names(kind).into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn choices_stand_beside_each_engine() {
        let mut schema = json!({
            "type": "object",
            "properties": {
                "x-engine": {"type": "string"},
                "detector": {"anyOf": [{"enum": ["None"]}, {"x-engine": "detector"}]},
            },
            "default": {"x-engine": "detector"},
        });
        with_choices(&mut schema, &|kind| vec![format!("a {}", kind.name())]);
        let detector = json!({"x-engine": "detector", "x-choices": ["a detector"]});
        assert_eq!(schema["properties"]["detector"]["anyOf"][1], detector);
        assert_eq!(schema["properties"]["x-engine"], json!({"type": "string"}));
        assert_eq!(schema["default"], json!({"x-engine": "detector"}));
    }
}
