//! From a decoded value to a type.

use rmpv::Value;
use serde::de::DeserializeOwned;

/// Reads a value as `T`; the error names the field.
///
/// Goes through bytes once more, because `rmpv`'s own deserializer does not read an enum from its name.
pub fn decode_value<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).map_err(|error| error.to_string())?;
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(&bytes);
    serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| format!("{}: {}", error.path(), error.inner()))
}
