//! Plugins that know what a prompt says in `<…>`: the stage `prompt.tags`. What their answers mean is not known here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use latentd_client::protocol::PluginParams;
use latentd_plugin_api::abi::{LATENTD_PROMPT_TAGS, latentd_list, latentd_tag, latentd_text};

use super::Plugins;
use super::asked::Asked;
use super::call::Job;
use super::given::GivenPicture;
use super::host::{bytes, text};
use super::library::Plugin;
use super::opened::Opened;
use super::records::recorded;
use super::rewrite::given;
use crate::error::{Class, Error, Result};
use crate::library::Pinned;

/// A tag of a prompt as it is told.
pub(crate) struct Tag<'a> {
    pub name: &'a str,
    pub arguments: &'a [&'a str],
    /// Of a LoRA its file, if there is one of its name.
    pub file: Option<&'a Arc<Pinned>>,
}

/// A plugin that is asked of tags.
pub(crate) struct Tagger {
    plugin: Arc<Plugin>,
}

impl Plugins {
    /// Those of a request that are asked of tags, in their order; they are loaded.
    pub(crate) fn taggers(
        &self,
        asked: &BTreeMap<String, PluginParams>,
        job: &dyn Job,
    ) -> Result<Vec<Tagger>> {
        let plugins = self.of_stage(LATENTD_PROMPT_TAGS, asked, job)?;
        Ok(plugins.into_iter().map(Tagger::of).collect())
    }
}

impl Tagger {
    pub(super) fn of(plugin: Arc<Plugin>) -> Self {
        Self { plugin }
    }

    pub(crate) fn name(&self) -> &str {
        &self.plugin.manifest.name
    }

    /// An error of what it answered.
    pub(crate) fn error(&self, class: Class, what: &str) -> Error {
        self.asked().error(class, what)
    }

    fn asked(&self) -> Asked<'_> {
        let (stage, doing) = (LATENTD_PROMPT_TAGS, "looked at a tag");
        Asked { plugin: &self.plugin, stage, doing }
    }

    /// Asks it; MessagePack, or nothing if the tag is not its own. What it wants to be told comes beside.
    pub(crate) fn ask(
        &self,
        tag: &Tag<'_>,
        params: &PluginParams,
        job: &dyn Job,
    ) -> Result<(Option<Vec<u8>>, Vec<String>)> {
        let given = given(&self.plugin.manifest, params, job)?;
        let params = given.packed_for_plan();
        let sizes = given.pictures.iter().map(GivenPicture::size).collect();
        let opened = RefCell::new(Opened::new(given.files.clone(), sizes));
        let file = tag.file.and_then(|file| opened.borrow_mut().number(file)).unwrap_or_default();
        let arguments: Vec<latentd_text> = tag.arguments.iter().map(|argument| text(argument)).collect();
        let args = latentd_tag {
            size: size_of::<latentd_tag>() as u32,
            reserved: 0,
            name: text(tag.name),
            arguments: latentd_list {
                items: arguments.as_ptr().cast(),
                count: arguments.len() as u32,
                stride: size_of::<latentd_text>() as u32,
            },
            file,
            params: bytes(&params),
        };
        self.call(job, &opened, &raw const args)
    }

    /// Asks it with what is lent until it returns.
    pub(super) fn call(
        &self,
        job: &dyn Job,
        opened: &RefCell<Opened>,
        args: *const latentd_tag,
    ) -> Result<(Option<Vec<u8>>, Vec<String>)> {
        recorded(job, &self.plugin.manifest, || self.answer(job, opened, args))
    }

    fn answer(
        &self,
        job: &dyn Job,
        opened: &RefCell<Opened>,
        args: *const latentd_tag,
    ) -> Result<(Option<Vec<u8>>, Vec<String>)> {
        let Some(run) = self.plugin.tables.prompt_tags.and_then(|table| table.run) else {
            return Ok((None, vec![]));
        };
        let asked = self.asked();
        // SAFETY: what is lent lives until the function returns; the call is this one.
        let left = asked.answer(job, Some(opened), |call| unsafe { run(call, args) })?;
        let Some(mut state) = left else { return Ok((None, vec![])) };
        if state.replies.keys().any(|slot| *slot != 0) {
            return Err(self.error(Class::Plugin, "it answers in a slot that is none"));
        }
        Ok((state.replies.remove(&0), state.notices))
    }
}
