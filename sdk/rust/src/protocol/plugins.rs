//! `plugins.*`: what is installed, and the parameters that requests give to plugins.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use rmpv::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map as JsonMap, Value as Json};

/// What `plugins.list` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginList {
    /// All that were found, those too that cannot be used.
    pub plugins: Vec<PluginEntry>,
    /// What the daemon's kernel cannot deny to plugins that run in processes of their own, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_confined: Vec<String>,
}

/// A plugin's file, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PluginEntry {
    /// What requests call it in `plugins`; absent if the file could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version; absent as `name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it is.
    pub path: String,
    /// Whether it may be asked for.
    pub state: PluginState,
    /// Why it may not, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The interface that it was built for; absent as `name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abi: Option<String>,
    /// Its licence, as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// What it does, as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it takes part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<String>,
    /// Methods of its own by their names, which clients call as `NAME.method`; `api_info` has their schemas.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub methods: BTreeMap<String, PluginMethod>,
    /// What requests and other plugins may have it compute: names by kind (`upscaler`, `restorer`, `preprocessor`, `detector`,
    /// `tagger`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub engines: BTreeMap<String, Vec<String>>,
    /// Kinds of library files that it may write and remove.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub saves: Vec<String>,
    /// What it asks its user for.
    #[serde(skip_serializing_if = "PluginAsks::is_nothing")]
    pub asks: PluginAsks,
    /// Whether the user agreed to all of that, for this content of its file; true if it asks for nothing. What was not agreed
    /// to it does without.
    pub agreed: bool,
    /// Where it runs: `process`, one of its own, or `inline`, within the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// What of the daemon it works with: services such as `network/draft-1`, or `subjob/draft-1` of those that draw on their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<String>,
}

/// What a plugin asks for beyond what each has: its own folder, and what the daemon does for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PluginAsks {
    /// The network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
    /// Folders that it would read, from the root on or from `~`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<String>,
    /// Folders that it would write into, and read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub write_folders: Vec<String>,
    /// Bytes of memory for each of its processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

impl PluginAsks {
    /// Whether it asks for nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A method of a plugin's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PluginMethod {
    /// How it is called.
    pub kind: PluginMethodKind,
    /// The plugin's version that first had it, as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What it does, as the plugin says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// How a plugin's method is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PluginMethodKind {
    /// It answers at once.
    Quick,
    /// It becomes a job, as `txt2img` does.
    Job,
    /// Something that a newer daemon knows.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl PluginMethodKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Job => "job",
            Self::Unknown => "unknown",
        }
    }
}

/// What became of a plugin's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PluginState {
    /// It may be asked for, and is loaded then.
    Ready,
    /// It is in memory.
    Loaded,
    /// Another version or copy of it is used.
    SetAside,
    /// The configuration says that it is not used.
    Disabled,
    /// It cannot be used.
    Refused,
    /// Something that a newer daemon knows.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl PluginState {
    /// All that are known, with their names.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Ready, "ready"),
        (Self::Loaded, "loaded"),
        (Self::SetAside, "set-aside"),
        (Self::Disabled, "disabled"),
        (Self::Refused, "refused"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(each, _)| *each == self).map_or("unknown", |(_, name)| name)
    }
}

impl fmt::Display for PluginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With the width that is asked for: lists have columns.
        f.pad(self.name())
    }
}

/// What a plugin did since the daemon started (`status`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PluginStatus {
    /// The plugin's name.
    pub name: String,
    /// Its version: each has an entry of its own.
    pub version: String,
    /// Calls of its functions.
    pub calls: u64,
    /// Seconds that they took, without what they waited for.
    pub seconds: f64,
    /// How many of them failed.
    pub failures: u64,
    /// Why the last of those did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// The last lines that it logged, at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<PluginLine>,
}

/// A line that a plugin logged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PluginLine {
    /// The plugin's name.
    pub plugin: String,
    /// When; seconds since 1970.
    pub time: f64,
    /// "error", "warn" or "info".
    pub level: String,
    /// The line, at most 1000 characters of it.
    pub text: String,
}

/// `plugins.schema`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginSchemaParams {
    /// The plugin's name.
    #[schemars(length(min = 1, max = 1000))]
    pub name: String,
}

/// `plugins.enable`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginEnableParams {
    /// The plugin's name.
    #[schemars(length(min = 1, max = 1000))]
    pub name: String,
}

/// What `plugins.schema` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginSchema {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The JSON Schema of its parameters, with their defaults.
    #[schemars(with = "JsonMap<String, Json>")]
    pub parameters: Json,
    /// Those of its own methods, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub methods: BTreeMap<String, PluginMethodSchema>,
    /// The same of its settings in the configuration file, `[plugins.NAME.settings]`; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<JsonMap<String, Json>>")]
    pub settings: Option<Json>,
}

/// What a method of a plugin takes and gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginMethodSchema {
    /// The JSON Schema of its parameters, with their defaults.
    #[schemars(with = "JsonMap<String, Json>")]
    pub params: Json,
    /// The JSON Schema of its result; absent if the plugin does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<JsonMap<String, Json>>")]
    pub result: Option<Json>,
}

/// A plugin's parameters: names, and values of whatever kind MessagePack has, bytes among them. The plugin's own schema says which.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginParams(pub BTreeMap<String, Value>);

impl PluginParams {
    /// As JSON has them.
    pub fn from_json(params: JsonMap<String, Json>) -> Self {
        Self(params.into_iter().map(|(name, value)| (name, from_json(value))).collect())
    }

    /// As JSON, if it can carry them: it has no bytes, no infinity, and no number that is none.
    pub fn to_json(&self) -> Option<JsonMap<String, Json>> {
        self.0.iter().map(|(name, value)| Some((name.clone(), to_json(value)?))).collect()
    }
}

impl From<PluginParams> for Value {
    fn from(params: PluginParams) -> Self {
        Self::Map(params.0.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

fn from_json(value: Json) -> Value {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(value) => value.into(),
        Json::Number(number) => {
            let whole = number.as_u64().map(Value::from).or_else(|| number.as_i64().map(Value::from));
            whole.or_else(|| number.as_f64().map(Value::from)).unwrap_or(Value::Nil)
        }
        Json::String(text) => text.into(),
        Json::Array(items) => Value::Array(items.into_iter().map(from_json).collect()),
        Json::Object(entries) => {
            let entries = entries.into_iter().map(|(name, value)| (name.into(), from_json(value)));
            Value::Map(entries.collect())
        }
    }
}

fn to_json(value: &Value) -> Option<Json> {
    let float = |number: f64| serde_json::Number::from_f64(number).map(Json::Number);
    match value {
        Value::Nil => Some(Json::Null),
        Value::Boolean(value) => Some((*value).into()),
        Value::Integer(number) => number.as_u64().map(Json::from).or_else(|| number.as_i64().map(Json::from)),
        Value::F32(number) => float(f64::from(*number)),
        Value::F64(number) => float(*number),
        Value::String(text) => text.as_str().map(Json::from),
        Value::Array(items) => items.iter().map(to_json).collect::<Option<_>>().map(Json::Array),
        Value::Map(entries) => {
            let mut map = JsonMap::new();
            for (name, value) in entries {
                let before = map.insert(name.as_str()?.to_owned(), to_json(value)?);
                if before.is_some() {
                    return None;
                }
            }
            Some(Json::Object(map))
        }
        Value::Binary(_) | Value::Ext(..) => None,
    }
}

impl Serialize for PluginParams {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PluginParams {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        by_name(deserializer).map(Self)
    }
}

impl JsonSchema for PluginParams {
    fn schema_name() -> Cow<'static, str> {
        "PluginParams".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "description": "A plugin's parameters: plugins.schema says which."})
    }
}

/// A map by names, each of them once. As everywhere an empty array stands for an empty map, also where serde has flattened the
/// struct around it.
pub(super) fn by_name<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct ByName<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for ByName<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((name, value)) = entries.next_entry::<String, V>()? {
                if map.contains_key(&name) {
                    return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                }
                map.insert(name, value);
            }
            Ok(map)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            match items.next_element::<IgnoredAny>()? {
                None => Ok(BTreeMap::new()),
                Some(_) => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
            }
        }
    }

    deserializer.deserialize_any(ByName(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_value;
    use crate::protocol::{Img2ImgParams, Txt2ImgParams};

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
    }

    fn sent<T: Serialize>(params: &T) -> Value {
        let bytes = rmp_serde::to_vec_named(params).expect("encodes");
        rmpv::decode::read_value(&mut bytes.as_slice()).expect("decodes")
    }

    #[test]
    fn whatever_messagepack_has_arrives() {
        let inner = map(&[("x", Value::Nil), ("deep", Value::Array(vec![map(&[]), Value::Array(vec![])]))]);
        let values = [
            ("bytes", Value::Binary(vec![0, 255, 128])),
            ("half", Value::F32(0.5)),
            ("wide", Value::F64(-1e300)),
            ("large", u64::MAX.into()),
            ("small", i64::MIN.into()),
            ("text", "ünï".into()),
            ("flag", true.into()),
            ("inner", inner),
        ];
        let given = map(&[("plugins", map(&[("a", map(&values)), ("b", Value::Array(vec![]))]))]);
        let expected: BTreeMap<_, _> =
            values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        // Flattened too.
        let plain = decode_value::<Txt2ImgParams>(given.clone()).expect("read");
        let begun = decode_value::<Img2ImgParams>(given).expect("read");
        assert_eq!(begun.drawing.plugins, plain.plugins);
        assert_eq!(plain.plugins["a"], PluginParams(expected));
        assert_eq!(plain.plugins["b"], PluginParams::default());
        assert_eq!(decode_value::<Txt2ImgParams>(sent(&plain)), Ok(plain.clone()));
        assert_eq!(decode_value::<Img2ImgParams>(sent(&begun)), Ok(begun));
        assert_eq!(plain.plugins["a"].to_json(), None, "JSON has no bytes");
    }

    #[test]
    fn none_are_not_sent_and_what_is_no_map_is_refused() {
        let none = decode_value::<Img2ImgParams>(map(&[("plugins", Value::Array(vec![]))])).expect("read");
        let Value::Map(fields) = sent(&none) else { panic!("no map") };
        assert!(!fields.iter().any(|(name, _)| name.as_str() == Some("plugins")));
        for value in [5.into(), "x".into(), Value::Nil, Value::Array(vec![1.into()]), Value::Binary(vec![1])]
        {
            let one = map(&[("plugins", map(&[("a", value.clone())]))]);
            let error = decode_value::<Txt2ImgParams>(one).expect_err("refused");
            assert!(error.contains("expected a map"), "{error}");
            assert!(decode_value::<Txt2ImgParams>(map(&[("plugins", value)])).is_err());
        }
        let twice = map(&[("a", map(&[])), ("a", map(&[]))]);
        assert!(decode_value::<Txt2ImgParams>(map(&[("plugins", twice)])).is_err());
        let schema = schemars::schema_for!(Txt2ImgParams).to_value();
        assert_eq!(schema["properties"]["plugins"]["maxProperties"], 32);
        assert_eq!(schema["$defs"]["PluginParams"]["type"], "object");
    }

    #[test]
    fn json_is_carried_and_comes_back() {
        let text = r#"{"a":null,"b":[true,1,-1,18446744073709551615,0.1,1.0],"c":{"ü":"x"}}"#;
        let params = PluginParams::from_json(serde_json::from_str(text).expect("JSON"));
        assert_eq!(serde_json::to_string(&params.to_json().expect("JSON")).expect("text"), text);
        assert_eq!(serde_json::from_str::<PluginParams>(text).expect("read"), params);
        for value in [
            Value::Binary(vec![]),
            Value::F64(f64::NAN),
            Value::F32(f32::INFINITY),
            Value::Ext(1, vec![]),
            Value::Map(vec![(1.into(), 1.into())]),
            Value::Map(vec![("x".into(), 1.into()), ("x".into(), 2.into())]),
        ] {
            let params = PluginParams(BTreeMap::from([("x".to_owned(), Value::Array(vec![value.clone()]))]));
            assert_eq!(params.to_json(), None, "{value}");
        }
    }

    #[test]
    fn states_have_their_names_and_those_of_a_newer_daemon_are_read() {
        for (state, name) in PluginState::ALL {
            assert_eq!(decode_value(Value::from(name)), Ok(state));
            assert_eq!(sent(&state), Value::from(name));
        }
        let entry = map(&[("path", "/a.so".into()), ("state", "asleep".into()), ("more", 1.into())]);
        let expected = PluginEntry { path: "/a.so".into(), ..PluginEntry::default() };
        assert_eq!(decode_value::<PluginEntry>(entry), Ok(expected));
    }
}
