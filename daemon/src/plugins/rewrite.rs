//! Plugins that make a request anew before it is resolved: the stage `request.rewrite`. What their patches mean is not known
//! here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use latentd_client::protocol::PluginParams;
use latentd_plugin_api::abi::{
    LATENTD_ANY, LATENTD_NEGATIVE, LATENTD_PROMPT, LATENTD_REQUEST_REWRITE, latentd_list, latentd_prompt,
    latentd_rewrite,
};

use super::asked::Asked;
use super::call::Job;
use super::given::{Given, GivenPicture};
use super::host::text;
use super::job::{JobFacts, described};
use super::library::Plugin;
use super::manifest::{Manifest, Stage};
use super::opened::Opened;
use super::order;
use super::prompts::ParamPrompt;
use super::records::recorded;
use super::{Plugins, named};
use crate::error::{Class, Error, Result};

/// Requests that one may become.
pub(crate) const MOST_REQUESTS: usize = 256;

/// A prompt of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PromptText {
    pub text: String,
    /// JSON pointer into the request.
    pub field: String,
    pub is_negative: bool,
    /// Which picture it is for; all of them if `None`.
    pub image: Option<usize>,
}

/// A request as it is told to who rewrites it.
pub(crate) struct Rewriting<'a> {
    pub method: &'static str,
    /// As MessagePack.
    pub request: &'a [u8],
    pub prompts: &'a [PromptText],
    /// Of each picture.
    pub seeds: &'a [u64],
    pub batch: u32,
}

/// What a plugin answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// MessagePack, one for each request; none leaves it as it is.
    pub patches: Vec<Vec<u8>>,
    pub notices: Vec<String>,
}

/// A plugin that rewrites requests.
pub(crate) struct Rewriter {
    plugin: Arc<Plugin>,
}

impl Plugins {
    /// Those of a request that rewrite it, in their order; they are loaded.
    pub(crate) fn rewriters(
        &self,
        asked: &BTreeMap<String, PluginParams>,
        job: &dyn Job,
    ) -> Result<Vec<Rewriter>> {
        let plugins = self.of_stage(LATENTD_REQUEST_REWRITE, asked, job)?;
        Ok(plugins.into_iter().map(Rewriter::of).collect())
    }

    /// The plugins of a request that take part in a stage, in their order there; they are loaded.
    pub(super) fn of_stage(
        &self,
        id: &str,
        asked: &BTreeMap<String, PluginParams>,
        job: &dyn Job,
    ) -> Result<Vec<Arc<Plugin>>> {
        let found = self.found();
        let mut plugins = vec![];
        for name in asked.keys() {
            let (_, (manifest, _)) = named(name, job.versions(), &found)?;
            if manifest.stages.iter().any(|stage| stage.id == id) {
                plugins.push(self.load(name, job.versions(), &found)?);
            }
        }
        let placed = plugins.iter().filter_map(|plugin| {
            let stages = &plugin.manifest.stages;
            let Stage { place, after, before, .. } = stages.iter().find(|stage| stage.id == id)?;
            Some(order::Member { name: &plugin.manifest.name, place: *place, after, before })
        });
        let names = order::order(&placed.collect::<Vec<_>>())
            .map_err(|cycle| Error::new(Class::Plugin, format!("{id}: {cycle}")))?;
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        plugins.sort_by_key(|plugin| names.iter().position(|name| *name == plugin.manifest.name));
        Ok(plugins)
    }

    /// The parameters of a request's plugins with their defaults, and which of them are prompts.
    pub(crate) fn prompts(
        &self,
        asked: &BTreeMap<String, PluginParams>,
        job: &dyn Job,
    ) -> Result<BTreeMap<String, (PluginParams, Vec<ParamPrompt>)>> {
        let found = self.found();
        let of_plugin = |(name, params): (&String, &PluginParams)| {
            let (_, (manifest, _)) = named(name, job.versions(), &found)?;
            let given = given(&manifest, params, job)?;
            let prompts = manifest.parameters.as_ref().map(|schema| given.prompts(schema)).transpose();
            let prompts = prompts.map_err(|text| Error::invalid(format!("plugins.{name}: {text}")))?;
            Ok((name.clone(), (given.told, prompts.unwrap_or_default())))
        };
        asked.iter().map(of_plugin).collect()
    }
}

/// A plugin's parameters, settled.
pub(super) fn given(manifest: &Manifest, params: &PluginParams, job: &dyn Job) -> Result<Given> {
    let field = format!("plugins.{}", manifest.name);
    Given::settle(&field, manifest.parameters.as_ref(), params, job.resources())
}

impl Rewriter {
    pub(super) fn of(plugin: Arc<Plugin>) -> Self {
        Self { plugin }
    }

    pub(crate) fn name(&self) -> &str {
        &self.plugin.manifest.name
    }

    pub(crate) fn version(&self) -> &str {
        &self.plugin.manifest.version
    }

    /// An error of what it answered.
    pub(crate) fn error(&self, class: Class, what: &str) -> Error {
        self.asked().error(class, what)
    }

    fn asked(&self) -> Asked<'_> {
        let (stage, doing) = (LATENTD_REQUEST_REWRITE, "rewrote the request");
        Asked { plugin: &self.plugin, stage, doing }
    }

    /// Asks it.
    pub(crate) fn rewrite(
        &self,
        params: &PluginParams,
        rewriting: &Rewriting<'_>,
        job: &dyn Job,
    ) -> Result<Answer> {
        let given = given(&self.plugin.manifest, params, job)?;
        let params = given.packed_for_plan();
        let sizes = given.pictures.iter().map(GivenPicture::size).collect();
        let opened = RefCell::new(Opened::new(given.files.clone(), sizes));
        let facts = JobFacts {
            method: rewriting.method,
            request: rewriting.request,
            pictures: rewriting.seeds.len() as u32,
            batch: rewriting.batch,
            strict: false,
            depth: 0,
        };
        let described = described(&facts, &params, &[]);
        let prompts: Vec<latentd_prompt> = rewriting.prompts.iter().map(told).collect();
        let args = latentd_rewrite {
            size: size_of::<latentd_rewrite>() as u32,
            reserved: 0,
            job: &raw const described,
            prompts: list(&prompts),
            seeds: list(rewriting.seeds),
        };
        self.call(job, &opened, &raw const args)
    }

    /// Asks it with what is lent until it returns.
    pub(super) fn call(
        &self,
        job: &dyn Job,
        opened: &RefCell<Opened>,
        args: *const latentd_rewrite,
    ) -> Result<Answer> {
        recorded(job, &self.plugin.manifest, || self.answer(job, opened, args))
    }

    fn answer(
        &self,
        job: &dyn Job,
        opened: &RefCell<Opened>,
        args: *const latentd_rewrite,
    ) -> Result<Answer> {
        let Some(run) = self.plugin.tables.request_rewrite.and_then(|table| table.run) else {
            return Ok(Answer::default());
        };
        let asked = self.asked();
        // SAFETY: what is lent lives until the function returns; the call is this one.
        let left = asked.answer(job, Some(opened), |call| unsafe { run(call, args) })?;
        let Some(state) = left else { return Ok(Answer::default()) };
        let gap = state.replies.keys().zip(0..).find(|(slot, number)| *slot != number);
        if let Some((_, number)) = gap {
            return Err(self.error(Class::Plugin, &format!("it gives no request {number}, but later ones")));
        }
        if state.replies.len() > MOST_REQUESTS {
            let text =
                format!("it makes {} requests of one, {MOST_REQUESTS} are allowed", state.replies.len());
            return Err(self.error(Class::Plugin, &text));
        }
        Ok(Answer { patches: state.replies.into_values().collect(), notices: state.notices })
    }
}

/// A prompt as it is lent.
pub(super) fn told(prompt: &PromptText) -> latentd_prompt {
    latentd_prompt {
        text: text(&prompt.text),
        field: text(&prompt.field),
        kind: if prompt.is_negative { LATENTD_NEGATIVE } else { LATENTD_PROMPT },
        image: prompt.image.and_then(|image| u32::try_from(image).ok()).unwrap_or(LATENTD_ANY),
    }
}

fn list<T>(items: &[T]) -> latentd_list {
    latentd_list { items: items.as_ptr().cast(), count: items.len() as u32, stride: size_of::<T>() as u32 }
}
