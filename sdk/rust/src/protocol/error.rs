//! Errors on the wire: `[code, "E_NAME: what is wrong, with the value; what to do"]`.

use std::fmt;

use rmpv::Value;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The classes of error, with their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorName {
    /// 0: a defect of the daemon, or the machine failed it (disk full).
    Internal,
    /// 1: the request is wrong; sending it again will not help.
    InvalidParams,
    /// 2: no such method, job, model or file.
    NotFound,
    /// 3: a limit is reached; later it may work.
    Busy,
    /// 4: somebody cancelled the job.
    Cancelled,
    /// 5: a model file is broken, or is not what its place says.
    Model,
    /// 6: it does not fit into the memory budget.
    Memory,
    /// 7: a plugin failed.
    Plugin,
    /// 8: understood, but this build or model cannot do it.
    Unsupported,
}

impl ErrorName {
    /// All of them with their names; the place in the list is the code.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Internal, "E_INTERNAL"),
        (Self::InvalidParams, "E_INVALID_PARAMS"),
        (Self::NotFound, "E_NOT_FOUND"),
        (Self::Busy, "E_BUSY"),
        (Self::Cancelled, "E_CANCELLED"),
        (Self::Model, "E_MODEL"),
        (Self::Memory, "E_MEMORY"),
        (Self::Plugin, "E_PLUGIN"),
        (Self::Unsupported, "E_UNSUPPORTED"),
    ];

    /// The number on the wire.
    pub fn code(self) -> i64 {
        self as i64
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(each, _)| *each == self).map_or("E_INTERNAL", |(_, name)| name)
    }

    /// The one with this code; a code of a newer daemon reads as [`Self::Internal`].
    pub fn from_code(code: i64) -> Self {
        let place = usize::try_from(code).ok();
        place.and_then(|place| Self::ALL.get(place)).map_or(Self::Internal, |(each, _)| *each)
    }
}

/// An error as a daemon answers it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct WireError {
    /// Its class.
    pub name: ErrorName,
    /// What is wrong and what to do, without the name in front.
    pub text: String,
}

impl WireError {
    /// An error of this class.
    pub fn new(name: ErrorName, text: impl Into<String>) -> Self {
        Self { name, text: text.into() }
    }

    /// Reads `[code, text]`; anything else becomes the text of an E_INTERNAL.
    pub fn from_value(value: &Value) -> Self {
        let parts = value.as_array().map_or(&[][..], Vec::as_slice);
        match (parts.first().and_then(Value::as_i64), parts.get(1).and_then(Value::as_str)) {
            (Some(code), Some(text)) => Self::from_parts(code, text),
            _ => Self::new(ErrorName::Internal, value.to_string()),
        }
    }

    fn from_parts(code: i64, text: &str) -> Self {
        let name = ErrorName::from_code(code);
        let bare = text.strip_prefix(name.name()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(text);
        Self::new(name, bare)
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name.name(), self.text)
    }
}

impl Serialize for WireError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.name.code(), self.to_string()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WireError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (code, text) = <(i64, String)>::deserialize(deserializer)
            .map_err(|error| D::Error::custom(format!("an error is [code, text]: {error}")))?;
        Ok(Self::from_parts(code, &text))
    }
}

impl schemars::JsonSchema for WireError {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Error".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "`[code, \"E_NAME: what is wrong; what to do\"]`",
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
        })
    }
}
