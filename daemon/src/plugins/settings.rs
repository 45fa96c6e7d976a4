//! What the configuration file says of plugins: whether each is used, and settings of its own by the schema in its manifest.
//!
//! Settings say where and how much: folders, limits, accounts. What a picture looks like hangs on parameters alone, which it
//! tells.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map as JsonMap, Value as Json};

use super::keywords::KEYWORDS;
use super::parameters::{read_parameters, validate, with_defaults};

/// `[plugins.NAME]` of the configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginConfig {
    /// Whether it is used: one that is not is listed, and refused where a request names it.
    pub enabled: bool,
    /// Its own settings, by the schema in its manifest (`latentd plugins schema NAME --settings`).
    pub settings: JsonMap<String, Json>,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self { enabled: true, settings: JsonMap::new() }
    }
}

/// What is said of all of them, by name.
pub(crate) type PluginConfigs = BTreeMap<String, PluginConfig>;

/// A schema of settings: as one of parameters, but nothing in it stands for pictures, files or prompts, which come with a request.
pub(super) fn read_schema(text: &str) -> Result<Json, String> {
    let schema = read_parameters(text)?;
    match keyword_in(&schema) {
        Some(keyword) => Err(format!("uses the schema keyword {keyword}, which is for parameters only")),
        None => Ok(schema),
    }
}

fn keyword_in(schema: &Json) -> Option<&str> {
    match schema {
        Json::Object(map) => map.iter().find_map(|(name, value)| {
            KEYWORDS.contains(&name.as_str()).then_some(name.as_str()).or_else(|| keyword_in(value))
        }),
        Json::Array(items) => items.iter().find_map(keyword_in),
        _ => None,
    }
}

/// A plugin's settings with the defaults of its schema; else what is wrong with them, and where that stands.
pub(super) fn settled(
    name: &str,
    schema: Option<&Json>,
    configs: &PluginConfigs,
) -> Result<JsonMap<String, Json>, String> {
    let given = configs.get(name).map_or_else(JsonMap::new, |config| config.settings.clone());
    let wrong = |text: String| format!("[plugins.{name}.settings] of the configuration file: {text}");
    let Some(schema) = schema else {
        return match given.keys().next() {
            Some(key) => Err(wrong(format!("'{key}': this plugin has no settings; remove it"))),
            None => Ok(given),
        };
    };
    let mut settings = Json::Object(given);
    with_defaults(schema, &mut settings).and_then(|()| validate(schema, &settings)).map_err(wrong)?;
    match settings {
        Json::Object(settings) => Ok(settings),
        _ => Ok(JsonMap::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configs(settings: Json) -> PluginConfigs {
        let Json::Object(settings) = settings else { panic!("an object") };
        PluginConfigs::from([("ant".to_owned(), PluginConfig { settings, ..PluginConfig::default() })])
    }

    #[test]
    fn settings_are_what_the_schema_says_with_its_defaults() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["key"],
            "properties": {"folder": {"type": "string", "default": "/tmp"}, "key": {"type": "string"},
                           "most": {"type": "integer", "minimum": 1}}
        });
        let with = |settings| settled("ant", Some(&schema), &configs(settings));
        let whole = json!({"folder": "/tmp", "key": "x"});
        assert_eq!(with(json!({"key": "x"})).map(Json::Object), Ok(whole));
        for (settings, expected) in [
            (json!({}), "/key: is missing; give it"),
            (json!({"key": "x", "most": 0}), "/most: 0 is out of range; give 1 or more"),
            (json!({"key": "x", "fodler": ""}), "unknown field 'fodler'; did you mean 'folder'?"),
        ] {
            let found = with(settings).expect_err("refused");
            assert_eq!(found, format!("[plugins.ant.settings] of the configuration file: {expected}"));
        }
        // Nobody says anything of it.
        assert!(settled("ant", Some(&schema), &PluginConfigs::new()).is_err());
        assert_eq!(settled("ant", None, &PluginConfigs::new()), Ok(JsonMap::new()));
        let found = settled("ant", None, &configs(json!({"a": 1}))).expect_err("refused");
        assert!(found.ends_with("'a': this plugin has no settings; remove it"), "{found}");
    }

    #[test]
    fn settings_stand_for_nothing_else() {
        for keyword in KEYWORDS {
            let value = if keyword == "x-library" { json!("lora") } else { json!(true) };
            let schema = json!({"type": "object", "properties": {"a": {"anyOf": [{"type": "string", keyword: value}]}}});
            let found = read_schema(&schema.to_string()).expect_err("refused");
            assert!(found.contains(keyword), "{found}");
        }
    }
}
