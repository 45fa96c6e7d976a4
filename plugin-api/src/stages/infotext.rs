//! `infotext.write` and `infotext.parse`: what texts of pictures say of a plugin.

use serde::Serialize;

use super::{Picture, items, lent, pictures};
use crate::abi::{latentd_infotext, latentd_pair, latentd_pictures};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::host::text;
use crate::job::Plugin;

/// `infotext.write`: pictures are finished, and their texts are written.
pub trait InfotextWrite: Plugin {
    /// May add pairs to each.
    fn infotext_write(&self, stage: &Writing<'_>) -> Result<()>;
}

/// [`InfotextWrite`].
pub struct Writing<'a> {
    /// The call.
    pub call: Call<'a>,
    all: Vec<Picture<'a>>,
}

impl<'a> Writing<'a> {
    /// All that are drawn together.
    pub fn pictures(&self) -> &[Picture<'a>] {
        &self.all
    }

    /// Adds these pairs of key and value to the text of a picture of [`pictures`](Self::pictures), by its place there. Keys are of
    /// letters, digits, `_`, `-`, `/` and spaces, and none that the host has itself.
    pub fn add(&self, picture: usize, pairs: &[(&str, &str)]) -> Result<()> {
        let mut bytes = vec![0xdf];
        bytes.extend((pairs.len() as u32).to_be_bytes());
        for part in pairs.iter().flat_map(|(key, value)| [key, value]) {
            bytes.push(0xdb);
            bytes.extend((part.len() as u32).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        self.call.reply(picture as u32, &bytes)
    }

    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_pictures) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        Ok(Self { call, all: unsafe { pictures(call, given.pictures) }? })
    }
}

/// `infotext.parse`: a picture's text is read. Without an instance, on any thread.
pub trait InfotextParse: Plugin {
    /// May say what the plugin would be given to do the same.
    fn infotext_parse(stage: &Reading<'_>) -> Result<()>;
}

/// [`InfotextParse`].
pub struct Reading<'a> {
    /// The call.
    pub call: Call<'a>,
    /// Pairs of key and value of which no field of a request says anything.
    pub pairs: Vec<(&'a str, &'a str)>,
    /// The prompt.
    pub prompt: &'a str,
    /// The negative one.
    pub negative_prompt: &'a str,
}

impl<'a> Reading<'a> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// Gives the plugin's parameters: something that is a map.
    pub fn reply<T: Serialize>(&self, params: &T) -> Result<()> {
        let params = rmp_serde::to_vec_named(params)
            .map_err(|error| Error::failed(format!("the parameters cannot be encoded: {error}")))?;
        self.call.reply(0, &params)
    }

    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_infotext) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let pairs = unsafe { items::<latentd_pair>(given.pairs) }?;
        // SAFETY: texts are lent until the call ends.
        let pair = |pair: latentd_pair| unsafe { (text(pair.key), text(pair.value)) };
        let pairs = pairs.into_iter().map(pair).collect();
        // SAFETY: as above.
        let (prompt, negative_prompt) = unsafe { (text(given.prompt), text(given.negative_prompt)) };
        Ok(Self { call, pairs, prompt, negative_prompt })
    }
}
