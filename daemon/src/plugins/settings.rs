//! What the configuration file says of plugins: whether each is used, and settings of its own by the schema in its manifest.
//!
//! Settings say where and how much: folders, limits, accounts. What a picture looks like hangs on parameters alone, which it
//! tells.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map as JsonMap, Value as Json};

use super::asks::Asks;
use super::keywords::KEYWORDS;
use super::parameters::{read_parameters, validate, with_defaults};

/// `[plugins.NAME]` of the configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginConfig {
    /// Whether it is used: one that is not is listed, and refused where a request names it.
    pub enabled: bool,
    /// Where it runs. `process`: in processes of its own; if it crashes, hangs or takes too much memory, that costs one job.
    /// `inline`: within the daemon, with all that this may: its crash is the daemon's, it cannot be ended, and it can read and
    /// change whatever the user can. Plugins that come with latentd run inline if nothing is said, all others in processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Seconds that one of its functions may take by itself in a process of its own, more than 0: while the daemon works for it,
    /// its clock stands still. If nothing is said, 10 for what a request waits for as it comes, and 600 in a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<f64>,
    /// Bytes that a process of its own may allocate; tensors that it is given or asks for are counted apart. What it
    /// has counts as the daemon's memory while it works.
    pub memory_bytes: u64,
    /// Folders and files outside of the system's that its processes may read, such as those of an interpreter and its packages.
    pub reads: Vec<PathBuf>,
    /// Its own settings, by the schema in its manifest (`latentd plugins schema NAME --settings`).
    pub settings: JsonMap<String, Json>,
}

/// Where a plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Isolation {
    /// In processes of its own.
    Process,
    /// Within the daemon.
    Inline,
}

impl PluginConfig {
    /// What its processes may, with what the user agreed to of what it asks for.
    pub(super) fn limits(&self, asked: &Asks) -> Limits {
        let seconds = self.deadline_seconds.filter(|seconds| *seconds > 0.0);
        let (reads, writes) = asked.paths(crate::paths::home().as_deref());
        Limits {
            deadline: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            memory: self.memory_bytes.max(asked.memory.unwrap_or_default()),
            network: asked.network,
            reads: self.reads.iter().cloned().chain(reads).chain(writes.clone()).collect(),
            writes,
        }
    }
}

/// What processes of a plugin may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// What a function may take by itself, if not as usual.
    pub deadline: Option<Duration>,
    /// Bytes that one may allocate.
    pub memory: u64,
    /// Whether it has the network.
    pub network: bool,
    /// What it may read besides.
    pub reads: Vec<PathBuf>,
    /// Where it may write.
    pub writes: Vec<PathBuf>,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            isolation: None,
            deadline_seconds: None,
            memory_bytes: 512 << 20,
            reads: vec![],
            settings: JsonMap::new(),
        }
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
