//! `prompt.tags`: what a prompt says in `<…>` that the host does not know.

use serde::de::DeserializeOwned;

use super::rewrite::Patch;
use super::{items, lent};
use crate::abi::{latentd_tag, latentd_text};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::given::File;
use crate::host::{bytes, text};
use crate::job::Plugin;

/// `prompt.tags`: at submit, for tags that the host does not know, and LoRAs with arguments that it does not know. No instance is
/// made for it.
pub trait PromptTags: Plugin {
    /// What the tag is; `None` if it is somebody else's.
    fn prompt_tags(tag: &Tag<'_>) -> Result<Option<TagAnswer>>;
}

/// A tag of a prompt: `<name:argument:…>`.
pub struct Tag<'a> {
    /// The call.
    pub call: Call<'a>,
    /// "lora", or the name of a tag that the host does not know.
    pub name: &'a str,
    /// What stands between colons behind the name.
    pub arguments: Vec<&'a str>,
    /// Of a LoRA its file, if there is one of its name.
    pub file: Option<File>,
    params: &'a [u8],
}

/// What a plugin says of a tag that is its own.
#[derive(Clone, Debug, Default)]
pub struct TagAnswer {
    scales: Vec<(String, f64)>,
    parameters: Patch,
}

impl<'a> Tag<'a> {
    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_tag) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let arguments = unsafe { items::<latentd_text>(given.arguments) }?;
        // SAFETY: lent until the call ends.
        let arguments = arguments.into_iter().map(|argument| unsafe { text(argument) }).collect();
        let file = (given.file != 0).then_some(File(given.file));
        // SAFETY: lent until the call ends.
        let (name, params) = unsafe { (text(given.name), bytes(given.params.data, given.params.length)) };
        Ok(Self { call, name, arguments, file, params })
    }

    /// The plugin's own parameters of the request.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T> {
        rmp_serde::from_slice(self.params)
            .map_err(|error| Error::failed(format!("its parameters are not what it takes: {error}")))
    }

    pub(crate) fn reply(&self, answer: &TagAnswer) -> Result<()> {
        self.call.reply(0, &answer.encoded())
    }
}

impl TagAnswer {
    /// It is this plugin's.
    pub fn claimed() -> Self {
        Self::default()
    }

    /// And a LoRA's strength is so many times what it was in tensors whose names begin so.
    #[must_use]
    pub fn with_scale(mut self, prefix: &str, factor: f64) -> Self {
        self.scales.push((prefix.to_owned(), factor));
        self
    }

    /// And the plugin's parameters change so.
    #[must_use]
    pub fn with_parameters(mut self, patch: Patch) -> Self {
        self.parameters = patch;
        self
    }

    /// As MessagePack: a map.
    fn encoded(&self) -> Vec<u8> {
        fn text(bytes: &mut Vec<u8>, text: &str) {
            bytes.push(0xdb);
            bytes.extend((text.len() as u32).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        let mut bytes = vec![0x83];
        text(&mut bytes, "claimed");
        bytes.push(0xc3);
        text(&mut bytes, "scales");
        bytes.push(0xdd);
        bytes.extend((self.scales.len() as u32).to_be_bytes());
        for (prefix, factor) in &self.scales {
            bytes.push(0x92);
            text(&mut bytes, prefix);
            bytes.push(0xcb);
            bytes.extend(factor.to_be_bytes());
        }
        text(&mut bytes, "parameters");
        bytes.extend(self.parameters.encoded());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Read {
        claimed: bool,
        scales: Vec<(String, f64)>,
        parameters: BTreeMap<String, f64>,
    }

    #[test]
    fn an_answer_is_a_map() {
        let mut patch = Patch::new();
        patch.set("strength", &0.5).expect("set");
        let answer = TagAnswer::claimed().with_scale("a.", 0.25).with_parameters(patch);
        let read: Read = rmp_serde::from_slice(&answer.encoded()).expect("a map");
        let expected = Read {
            claimed: true,
            scales: vec![("a.".into(), 0.25)],
            parameters: [("strength".to_owned(), 0.5)].into(),
        };
        assert_eq!(read, expected);
    }
}
