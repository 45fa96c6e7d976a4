//! What texts of pictures say of plugins: pairs that they add to a text (stage `infotext.write`), and what the pairs of another's
//! text mean to them (stage `infotext.parse`). Which keys are the daemon's own is not known here.

use std::collections::BTreeMap;
use std::sync::Arc;

use latentd_client::protocol::PluginParams;
use latentd_models::sampling::NoiseSource;
use latentd_plugin_api::abi::{LATENTD_INFOTEXT_PARSE, latentd_infotext, latentd_list, latentd_pair};
use rmpv::Value;

use super::asked::Asked;
use super::call::Job;
use super::host::text;
use super::library::Plugin;
use super::listing::disabled;
use super::parameters::{self, DEEPEST};
use super::settings::PluginConfigs;
use super::{HIGHEST, Plugins, usable};
use crate::error::{Class, Error, Result};
use crate::memory::Lease;
use crate::schema::shorten;

/// A pair of a picture's text.
pub(crate) type Pair = (String, String);

/// Characters of a key.
const LONGEST_KEY: usize = 64;
/// Bytes of a value.
const LONGEST_VALUE: usize = 2048;
/// Pairs that one plugin adds to a text, and bytes of them together.
const MOST_PAIRS: usize = 64;
const MOST_BYTES: usize = 8192;
/// Bytes of parameters that a text is read as.
const MOST_PARAMS: usize = 1 << 20;

/// The pairs that a plugin adds to a text.
pub(super) fn pairs(reply: &[u8]) -> Result<Vec<Pair>, String> {
    let Value::Map(entries) = one_value(reply)? else { return Err("it gives no map of pairs".to_owned()) };
    if entries.len() > MOST_PAIRS {
        return Err(format!("it gives {} pairs, {MOST_PAIRS} are allowed", entries.len()));
    }
    let mut pairs: Vec<Pair> = vec![];
    for (key, value) in entries {
        let Some(key) = key.as_str().filter(|key| is_key(key)) else {
            return Err(format!(
                "the key '{}' cannot be read back: give 2 to {LONGEST_KEY} letters, digits, '_', '-', '/' and spaces",
                shorten(key.as_str().unwrap_or_default())
            ));
        };
        let Some(value) = value.as_str().filter(|value| (1..=LONGEST_VALUE).contains(&value.len())) else {
            return Err(format!("the value of '{key}' is no text of 1 to {LONGEST_VALUE} bytes"));
        };
        if pairs.iter().any(|(other, _)| other == key) {
            return Err(format!("it gives '{key}' twice"));
        }
        pairs.push((key.to_owned(), value.to_owned()));
    }
    let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MOST_BYTES {
        return Err(format!("its pairs are {bytes} bytes, {MOST_BYTES} are allowed"));
    }
    Ok(pairs)
}

/// Whether A1111 reads it as a key.
fn is_key(key: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (2..=LONGEST_KEY).contains(&key.len())
        && key.starts_with(is_word)
        && key.chars().all(|c| is_word(c) || matches!(c, ' ' | '-' | '/'))
        && !key.ends_with(' ')
}

/// MessagePack that is one value.
fn one_value(reply: &[u8]) -> Result<Value, String> {
    let mut rest = reply;
    let value = rmpv::decode::read_value_with_max_depth(&mut rest, DEEPEST)
        .map_err(|error| format!("what it gives cannot be read: {error}"))?;
    if rest.is_empty() { Ok(value) } else { Err("it gives more than one value".to_owned()) }
}

/// A picture's text.
pub(crate) struct ForeignText<'a> {
    /// Those of which a request says nothing.
    pub pairs: &'a [Pair],
    pub prompt: &'a str,
    pub negative_prompt: &'a str,
}

impl Plugins {
    /// What a picture's text says of plugins that are not among `named`, and what there is to tell of that. Those who may read it
    /// are loaded.
    pub(crate) fn parsed(
        &self,
        text: &ForeignText<'_>,
        named: &BTreeMap<String, PluginParams>,
    ) -> (BTreeMap<String, PluginParams>, Vec<String>) {
        let (mut all, mut notices) = (BTreeMap::new(), vec![]);
        if text.pairs.is_empty() {
            return (all, notices);
        }
        let found = self.found();
        let reads = |name: &str, stages: &[super::manifest::Stage]| {
            !named.contains_key(name) && stages.iter().any(|stage| stage.id == LATENTD_INFOTEXT_PARSE)
        };
        let readers =
            usable(&found, &HIGHEST).filter(|(_, (manifest, _))| reads(&manifest.name, &manifest.stages));
        let configs = self.configs();
        let readers = readers.map(|(_, (manifest, _))| manifest.name.clone());
        let readers: Vec<String> = readers.filter(|name| disabled(name, &configs).is_none()).collect();
        for name in readers {
            let read = self.load(&name, &HIGHEST, &found).and_then(|plugin| {
                let args = Told::new(text);
                parse(&plugin, &raw const args.told, &Asking(Arc::clone(&configs)))
            });
            match read {
                Ok((params, said)) => {
                    notices.extend(said.into_iter().map(|text| format!("plugin '{name}': {text}")));
                    all.extend(params.map(|params| (name, params)));
                }
                Err(error) => notices.push(error.text),
            }
        }
        (all, notices)
    }
}

/// A text as it is lent.
pub(super) struct Told {
    pub told: latentd_infotext,
    _pairs: Vec<latentd_pair>,
}

impl Told {
    pub(super) fn new(given: &ForeignText<'_>) -> Self {
        let pair = |(key, value): &Pair| latentd_pair { key: text(key), value: text(value) };
        let pairs: Vec<latentd_pair> = given.pairs.iter().map(pair).collect();
        let told = latentd_infotext {
            size: size_of::<latentd_infotext>() as u32,
            reserved: 0,
            pairs: latentd_list {
                items: pairs.as_ptr().cast(),
                count: pairs.len() as u32,
                stride: size_of::<latentd_pair>() as u32,
            },
            prompt: text(given.prompt),
            negative_prompt: text(given.negative_prompt),
        };
        Self { told, _pairs: pairs }
    }
}

/// What a plugin reads in a text that is lent until it returns, by its schema; and what it wants to be told.
pub(super) fn parse(
    plugin: &Arc<Plugin>,
    args: *const latentd_infotext,
    job: &dyn Job,
) -> Result<(Option<PluginParams>, Vec<String>)> {
    let Some(run) = plugin.tables.infotext_parse.and_then(|table| table.run) else {
        return Ok((None, vec![]));
    };
    let asked = Asked { plugin, stage: LATENTD_INFOTEXT_PARSE, doing: "read a picture's text" };
    let wrong = |text: String| asked.error(Class::Plugin, &text);
    // SAFETY: what is lent lives until the function returns; the call is this one.
    let Some(state) = asked.answer(job, None, |call| unsafe { run(call, args) })? else {
        return Ok((None, vec![]));
    };
    if let Some(slot) = state.replies.keys().find(|slot| **slot != 0) {
        return Err(wrong(format!("it replies in slot {slot}, of 0 alone")));
    }
    let params = state.replies.get(&0).map(|reply| read(plugin, reply)).transpose().map_err(wrong)?;
    Ok((params, state.notices))
}

/// Parameters that a plugin gives itself.
fn read(plugin: &Plugin, reply: &[u8]) -> Result<PluginParams, String> {
    if reply.len() > MOST_PARAMS {
        return Err(format!("its parameters are {} bytes, {MOST_PARAMS} are allowed", reply.len()));
    }
    let params = one_value(reply)?;
    if !params.is_map() {
        return Err("it gives no map of parameters".to_owned());
    }
    let params: PluginParams =
        rmpv::ext::from_value(params).map_err(|_| "it gives no map of parameters".to_owned())?;
    let json = params.to_json().ok_or("its parameters hold what JSON cannot")?;
    match &plugin.manifest.parameters {
        Some(schema) => {
            let mut json = serde_json::Value::Object(json);
            parameters::with_defaults(schema, &mut json)?;
            parameters::validate(schema, &json)?;
        }
        None if !json.is_empty() => return Err("it gives parameters, and takes none".to_owned()),
        None => (),
    }
    Ok(params)
}

/// Somebody asks of a picture: there is no job.
struct Asking(Arc<PluginConfigs>);

impl Job for Asking {
    fn is_cancelled(&self) -> bool {
        false
    }

    fn reserve(&self, _bytes: u64, plugin: &str) -> Result<Lease> {
        Err(Error::new(
            Class::Unsupported,
            format!("plugin '{plugin}' is given no memory where texts are read"),
        ))
    }

    fn compute(&self, work: &mut (dyn FnMut() + Send)) {
        work();
    }

    fn configs(&self) -> Arc<PluginConfigs> {
        Arc::clone(&self.0)
    }

    fn noise_source(&self) -> NoiseSource {
        NoiseSource::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(value: &serde_json::Value) -> Vec<u8> {
        rmp_serde::to_vec_named(value).expect("packed")
    }

    #[test]
    fn pairs_are_what_can_be_read_back() {
        use serde_json::json;
        let found = pairs(&packed(&json!({"Face model": "a, b: \"c\"", "x_/-9": "1"})));
        let expected = [("Face model", "a, b: \"c\""), ("x_/-9", "1")];
        assert_eq!(found, Ok(expected.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()));
        let many: serde_json::Map<String, serde_json::Value> =
            (0..65).map(|place| (format!("k{place}"), json!("v"))).collect();
        let long = "x".repeat(LONGEST_VALUE);
        let large: serde_json::Map<String, serde_json::Value> =
            (0..5).map(|place| (format!("k{place}"), json!(long))).collect();
        for (reply, words) in [
            (json!([]), "no map"),
            (json!({"a": "b"}), "'/' and spaces"),
            (json!({"-ab": "b"}), "cannot be read back"),
            (json!({"ab ": "b"}), "cannot be read back"),
            (json!({"a:b": "b"}), "cannot be read back"),
            (json!({"a".repeat(65): "b"}), "cannot be read back"),
            (json!({"ab": ""}), "1 to 2048 bytes"),
            (json!({"ab": 5}), "is no text"),
            (json!({"ab": long.clone() + "x"}), "1 to 2048 bytes"),
            (json!(many), "65 pairs"),
            (json!(large), "bytes, 8192 are allowed"),
        ] {
            let error = pairs(&packed(&reply)).expect_err("refused");
            assert!(error.contains(words), "{error}");
        }
        // Twice: no JSON says so.
        let twice = [0x82, 0xa2, b'a', b'b', 0xa1, b'c', 0xa2, b'a', b'b', 0xa1, b'd'];
        assert!(pairs(&twice).expect_err("refused").contains("twice"));
        assert!(pairs(&[0xc1]).is_err() && pairs(&[0x80, 0x80]).is_err() && pairs(&[]).is_err());
        assert!(pairs(&[0x91; 1000]).is_err());
    }
}
