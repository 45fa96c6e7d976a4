//! What plugins know of the tags in a request's prompts (stage `prompt.tags`): whose they are, and how strong LoRAs are where.

use std::collections::BTreeMap;

use latentd_models::adapters::Scales;
use latentd_models::prompt::NamedNetwork;
use rmpv::Value;

use super::patch;
use crate::schema::shorten;

/// Prefixes of one LoRA, and bytes of each.
const MOST_SCALES: usize = 4096;
const LONGEST_PREFIX: usize = 256;
/// How many times as strong a LoRA may be.
const STRONGEST: f64 = 1000.0;

/// Of the tags that plugins know, by how they are written, what they say of a LoRA.
#[derive(Default)]
pub(super) struct Tags(BTreeMap<String, Told>);

/// What a plugin says of one.
#[derive(Default)]
pub(super) struct Told {
    scales: Scales,
    /// Tells them from others.
    key: String,
}

/// An answer as it was read.
#[derive(Default)]
pub(super) struct Answer {
    pub told: Told,
    pub is_claimed: bool,
    /// A merge patch over the plugin's own.
    pub parameters: Vec<(String, Value)>,
}

impl Tags {
    /// Takes what a plugin says of a tag.
    pub(super) fn insert(&mut self, written: &str, told: Told) {
        self.0.insert(written.to_owned(), told);
    }

    /// Whether a plugin knows it.
    pub(super) fn has(&self, network: &NamedNetwork) -> bool {
        self.0.contains_key(&network.written)
    }

    /// How strong a LoRA is where, and what tells that from other such.
    pub(super) fn scales(&self, network: &NamedNetwork) -> (Scales, String) {
        let told = self.0.get(&network.written);
        told.map_or_else(Default::default, |told| (told.scales.clone(), told.key.clone()))
    }
}

impl Answer {
    /// MessagePack; of a LoRA's tag, or another.
    pub(super) fn read(reply: &[u8], of_lora: bool) -> Result<Self, String> {
        let mut answer = Self::default();
        for (key, value) in patch::read(reply)? {
            match (key.as_str(), value) {
                ("claimed", Value::Boolean(claimed)) => answer.is_claimed = claimed,
                ("claimed", _) => return Err("claimed must be true or false".into()),
                ("parameters", Value::Map(entries)) => {
                    let entry = |(key, value): (Value, Value)| Some((key.as_str()?.to_owned(), value));
                    let entries = entries.into_iter().map(entry).collect::<Option<_>>();
                    answer.parameters = entries.ok_or("a key of parameters is no text")?;
                }
                ("parameters", _) => return Err("parameters must be a map".into()),
                ("scales", Value::Array(scales)) if scales.is_empty() || of_lora => {
                    answer.told = Told::read(&scales)?;
                }
                ("scales", Value::Array(_)) => return Err("scales are for LoRAs only".into()),
                ("scales", _) => return Err("scales must be a list".into()),
                (other, _) => {
                    let other = shorten(other);
                    return Err(format!("'{other}' is unknown; known: claimed, scales, parameters"));
                }
            }
        }
        Ok(answer)
    }
}

impl Told {
    fn read(scales: &[Value]) -> Result<Self, String> {
        if scales.len() > MOST_SCALES {
            return Err(format!("{} scales, {MOST_SCALES} are allowed", scales.len()));
        }
        let mut read = vec![];
        for scale in scales {
            let pair = scale.as_array().and_then(|pair| match pair.as_slice() {
                [prefix, factor] => Some((prefix.as_str()?, factor.as_f64()?)),
                _ => None,
            });
            let (prefix, factor) = pair.ok_or("a scale must be [prefix, factor]")?;
            if prefix.contains('\0') {
                return Err("a prefix has a zero".into());
            }
            if prefix.len() > LONGEST_PREFIX {
                return Err(format!("a prefix is {} bytes long, {LONGEST_PREFIX} are allowed", prefix.len()));
            }
            if !factor.is_finite() || factor.abs() > STRONGEST {
                let prefix = shorten(prefix);
                return Err(format!("the factor of '{prefix}' is {factor}; give {STRONGEST} or less"));
            }
            read.push((prefix.to_owned(), factor as f32));
        }
        let keys = read.iter().map(|(prefix, factor)| format!("{prefix}\0{:x}", factor.to_bits()));
        let key = keys.collect::<Vec<_>>().join("\0");
        Ok(Self { scales: Scales::new(read), key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, of_lora: bool) -> Result<Answer, String> {
        let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
        Answer::read(&rmp_serde::to_vec_named(&value).expect("packed"), of_lora)
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for (json, of_lora, expected) in [
            ("[]", true, "not a map"),
            (r#"{"claimed": 1}"#, true, "claimed must be true or false"),
            (r#"{"scale": []}"#, true, "'scale' is unknown"),
            (r#"{"scales": {}}"#, true, "scales must be a list"),
            (r#"{"scales": [["a"]]}"#, true, "a scale must be [prefix, factor]"),
            (r#"{"scales": [["a", 1001]]}"#, true, "the factor of 'a' is 1001"),
            (r#"{"scales": [["a", 1]]}"#, false, "scales are for LoRAs only"),
            (r#"{"parameters": []}"#, false, "parameters must be a map"),
        ] {
            let found = read(json, of_lora).err().unwrap_or_default();
            assert!(found.contains(expected), "{json}: {found}");
        }
        let answer = read(r#"{"claimed": true, "scales": [["a", 0.5]], "parameters": {"x": 1}}"#, true);
        let answer = answer.expect("read");
        assert!(answer.is_claimed && answer.parameters.len() == 1 && !answer.told.key.is_empty());
    }
}
