//! `request.rewrite`: a request made anew before it is resolved.

use serde::Serialize;

use super::lent;
use crate::abi::{LATENTD_ANY, LATENTD_NEGATIVE, latentd_prompt, latentd_rewrite};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::host::{items, text};
use crate::job::{Job, Plugin};

/// `request.rewrite`: at submit, seeds drawn, before anything else of the request is looked at. No instance is made for it.
pub trait RequestRewrite: Plugin {
    /// May answer one or several requests in the place of the one that came.
    fn request_rewrite(stage: &Rewrite<'_>) -> Result<()>;
}

/// What is to be rewritten.
pub struct Rewrite<'a> {
    /// The call.
    pub call: Call<'a>,
    /// The request and the plugin's parameters.
    pub job: Job<'a>,
    /// All prompts of the request, and of its plugins' parameters.
    pub prompts: Vec<PromptText<'a>>,
    /// Of each picture what draws it alone.
    pub seeds: Vec<u64>,
}

/// A prompt of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptText<'a> {
    /// As it was written, styles around it.
    pub text: &'a str,
    /// JSON pointer into the request: `/prompt`, `/plugins/NAME/field`.
    pub field: &'a str,
    /// Whether it is steered away from.
    pub is_negative: bool,
    /// Which picture it is for; all of them if `None`.
    pub image: Option<usize>,
}

impl<'a> Rewrite<'a> {
    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_rewrite) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let job = unsafe { Job::of(call, given.job) }?;
        // SAFETY: as the caller says.
        let (prompts, seeds) =
            unsafe { (items::<latentd_prompt>(given.prompts)?, items::<u64>(given.seeds)?) };
        let prompt = |prompt: latentd_prompt| PromptText {
            // SAFETY: lent until the call ends.
            text: unsafe { text(prompt.text) },
            // SAFETY: lent until the call ends.
            field: unsafe { text(prompt.field) },
            is_negative: prompt.kind == LATENTD_NEGATIVE,
            image: (prompt.image != LATENTD_ANY).then_some(prompt.image as usize),
        };
        let prompts = prompts.into_iter().map(prompt).collect();
        Ok(Self { call, job, prompts, seeds })
    }

    /// The request of this number, from 0 on without gaps: what came, changed as the patch says.
    pub fn reply(&self, number: usize, patch: &Patch) -> Result<()> {
        let slot =
            u32::try_from(number).map_err(|_| Error::failed(format!("request {number} is one too many")))?;
        self.call.reply(slot, &patch.encoded())
    }
}

/// What changes in a request: fields by their names, places by JSON pointers (`/plugins/NAME/units/0/prompt`). Maps merge, all
/// else replaces, `()` takes away.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    entries: Vec<(String, Vec<u8>)>,
}

impl Patch {
    /// One that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a field, or what is at a pointer.
    pub fn set<T: Serialize + ?Sized>(&mut self, place: &str, value: &T) -> Result<()> {
        let value = rmp_serde::to_vec_named(value)
            .map_err(|error| Error::failed(format!("{place} cannot be encoded: {error}")))?;
        self.entries.retain(|(other, _)| other != place);
        self.entries.push((place.to_owned(), value));
        Ok(())
    }

    /// As MessagePack: a map.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut bytes = vec![0xdf];
        bytes.extend((self.entries.len() as u32).to_be_bytes());
        for (place, value) in &self.entries {
            bytes.push(0xdb);
            bytes.extend((place.len() as u32).to_be_bytes());
            bytes.extend(place.as_bytes());
            bytes.extend(value);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Read {
        seed: u64,
        #[serde(rename = "/regions/0/prompt")]
        prompt: String,
    }

    #[test]
    fn a_patch_is_a_map_with_each_place_once() {
        let mut patch = Patch::new();
        patch.set("seed", &1).expect("set");
        patch.set("/regions/0/prompt", "a cat").expect("set");
        patch.set("seed", &7).expect("set");
        let read: Read = rmp_serde::from_slice(&patch.encoded()).expect("a map");
        assert_eq!(read, Read { seed: 7, prompt: "a cat".into() });
    }
}
