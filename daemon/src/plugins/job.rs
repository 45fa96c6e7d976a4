//! The plugins of one request: who takes part in what, with which parameters, in which order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use latentd_client::protocol::PluginParams;
use latentd_plugin_api::abi::{
    LATENTD_INFOTEXT_PARSE, LATENTD_PASS_BEGIN, LATENTD_PROMPT_TAGS, LATENTD_REQUEST_REWRITE, LATENTD_SKIP,
    latentd_job,
};

use super::call::{Answer, Job, Want};
use super::engine_calls::Needed;
use super::engines::{Engine, JobOf};
use super::given::{Decoded, Given, GivenPicture};
use super::host::{self, bytes, text};
use super::library::Plugin;
use super::manifest::Stage;
use super::opened::Opened;
use super::order;
use super::prompts::PromptLists;
use super::records::recorded;
use super::subjobs::SubPlan;
use super::tables::STAGES;
use crate::error::{Class, Error, Result};

/// What plugins are told of a request.
pub(crate) struct JobFacts<'a> {
    pub method: &'a str,
    /// The request as it was resolved, as MessagePack.
    pub request: &'a [u8],
    pub pictures: u32,
    pub batch: u32,
    /// What plugins want to be told is an error.
    pub strict: bool,
    /// How deep it lies within other jobs.
    pub depth: u32,
}

/// A plugin that takes part.
pub(super) struct Member {
    pub plugin: Arc<Plugin>,
    /// Valid, with defaults, and what they stand for.
    pub given: Given,
    /// The files that it knows.
    pub opened: Opened,
    pub answer: Answer,
}

impl Member {
    pub(super) fn name(&self) -> &str {
        &self.plugin.manifest.name
    }

    /// Its part in a stage, if it has one.
    pub(super) fn want(&self, stage: &str) -> Option<&Want> {
        self.answer.wants.iter().find(|want| want.stage == stage)
    }
}

/// The plugins of a request with their parameters settled, before they plan.
#[derive(Default)]
pub(crate) struct Settled(Vec<(Arc<Plugin>, Given)>);

impl Settled {
    /// Looks at the parameters of each.
    pub(super) fn of(asked: Vec<(Arc<Plugin>, &PluginParams)>, job: &dyn Job) -> Result<Self> {
        let settled = asked.into_iter().map(|(plugin, params)| Self::one(plugin, params, job));
        settled.collect::<Result<_>>().map(Self)
    }

    /// Those that were looked at.
    pub(super) fn all(settled: Vec<(Arc<Plugin>, Given)>) -> Self {
        Self(settled)
    }

    /// Looks at the parameters of one.
    pub(super) fn one(
        plugin: Arc<Plugin>,
        params: &PluginParams,
        job: &dyn Job,
    ) -> Result<(Arc<Plugin>, Given)> {
        let field = format!("plugins.{}", plugin.manifest.name);
        let schema = plugin.manifest.parameters.as_ref();
        let given = Given::settle(&field, schema, params, job.resources())?;
        Ok((plugin, given))
    }

    /// The same with the prompts in them that have a text for each of so many pictures.
    pub(crate) fn with_lists(mut self, lists: &PromptLists, pictures: usize) -> Result<Self> {
        for (plugin, given) in &mut self.0 {
            if let Some(lists) = lists.get(&plugin.manifest.name) {
                given.set_lists(&plugin.manifest, lists, pictures)?;
            }
        }
        Ok(self)
    }

    /// What pictures tell of their parameters, by name.
    pub(crate) fn told(&self) -> BTreeMap<String, PluginParams> {
        let told =
            |(plugin, given): &(Arc<Plugin>, Given)| (plugin.manifest.name.clone(), given.told.clone());
        self.0.iter().map(told).collect()
    }
}

/// The plugins of a request.
#[derive(Default)]
pub(crate) struct JobPlugins {
    pub(super) members: Vec<Member>,
    /// Engines of plugins, which need not take part themselves.
    pub(crate) engines: Vec<Engine>,
    /// How many of them, the first, the request itself names; plugins run the others.
    pub(crate) named: usize,
    /// For each stage whose turn it is, one after the other.
    pub(super) chains: BTreeMap<&'static str, Vec<usize>>,
    pub(super) method: String,
    pub(super) request: Vec<u8>,
    pub(super) pictures: u32,
    pub(super) batch: u32,
    pub(super) strict: bool,
    pub(super) depth: u32,
    /// What was said while they planned.
    pub(crate) notices: Vec<String>,
}

impl JobPlugins {
    /// Settles what each plugin does: it plans.
    pub(crate) fn resolve(settled: Settled, facts: &JobFacts<'_>, job: &dyn Job) -> Result<Self> {
        let (mut members, mut notices) = (vec![], vec![]);
        for (plugin, given) in settled.0 {
            if plugin.manifest.stages.iter().all(|stage| !is_of_jobs(&stage.id)) {
                continue;
            }
            let params = given.packed_for_plan();
            let described = described(facts, &params, &[]);
            let sizes = given.pictures.iter().map(GivenPicture::size).collect();
            let opened = RefCell::new(Opened::new(given.files.clone(), sizes));
            if let Some((answer, more)) = planned(&plugin, &described, job, &opened)? {
                let name = &plugin.manifest.name;
                notices.extend(more.into_iter().map(|notice| format!("plugin '{name}': {notice}")));
                let opened = opened.into_inner().for_instance();
                members.push(Member { plugin, given, opened, answer });
            }
        }
        let mut chains = BTreeMap::new();
        for stage in STAGES.iter().copied() {
            let part: Vec<&Member> = members.iter().filter(|member| member.want(stage).is_some()).collect();
            if part.is_empty() {
                continue;
            }
            let placed = part.iter().filter_map(|member| {
                let stages = &member.plugin.manifest.stages;
                let Stage { place, after, before, .. } = stages.iter().find(|each| each.id == stage)?;
                Some(order::Member { name: member.name(), place: *place, after, before })
            });
            let names = order::order(&placed.collect::<Vec<_>>())
                .map_err(|cycle| Error::new(Class::Plugin, format!("{stage}: {cycle}")))?;
            let place = |name: &str| members.iter().position(|member| member.name() == name);
            chains.insert(stage, names.into_iter().filter_map(place).collect());
        }
        Ok(Self {
            members,
            engines: vec![],
            named: 0,
            chains,
            method: facts.method.to_owned(),
            request: facts.request.to_vec(),
            pictures: facts.pictures,
            batch: facts.batch,
            strict: facts.strict,
            depth: facts.depth,
            notices,
        })
    }

    /// Engines that the plugins that take part will run: those of their plans, and those that parameters name.
    pub(crate) fn needed_engines(&self) -> Vec<Needed> {
        let of = |member: &Member| [&member.answer.engines[..], &member.given.engines].concat();
        self.members.iter().flat_map(of).collect()
    }

    /// Whether nobody takes part.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What pictures tell of their parameters, by name.
    pub(crate) fn told(&self) -> BTreeMap<String, PluginParams> {
        self.members.iter().map(|member| (member.name().to_owned(), member.given.told.clone())).collect()
    }

    /// The same of one picture, where pictures differ in it.
    pub(crate) fn told_of(&self, picture: usize) -> Option<BTreeMap<String, PluginParams>> {
        if self.members.iter().all(|member| member.given.lists.is_empty()) {
            return None;
        }
        let told = |member: &Member| (member.name().to_owned(), member.given.told_of(picture));
        Some(self.members.iter().map(told).collect())
    }

    /// Whether one of them may exchange what passes begin with.
    pub(crate) fn may_exchange(&self) -> bool {
        self.chains.contains_key(LATENTD_PASS_BEGIN)
    }

    /// Whether one of them would rewrite the request, were it not for what it says of that.
    pub(crate) fn may_rewrite(&self) -> bool {
        self.members.iter().any(|member| member.plugin.tables.request_rewrite.is_some())
    }

    /// Bytes that all of them take, with their networks.
    pub(crate) fn planned_bytes(&self) -> u64 {
        let of_members = self.members.iter().map(|member| member.answer.planned_bytes());
        let of_engines = self.engines.iter().map(|engine| engine.planned_bytes);
        of_members.chain(of_engines).fold(0, u64::saturating_add)
    }

    /// The jobs that they will draw within this one, with the names of those who planned them.
    pub(crate) fn subplans(&self) -> impl Iterator<Item = (&str, &SubPlan)> {
        self.members
            .iter()
            .flat_map(|member| member.answer.subjobs.iter().map(move |plan| (member.name(), plan)))
    }

    /// The request that they were told, as MessagePack.
    pub(crate) fn request(&self) -> &[u8] {
        &self.request
    }

    /// What a plugin was given here, if that is what these parameters say, with or without the schema's defaults.
    pub(super) fn settled(&self, name: &str, params: &PluginParams) -> Option<(Arc<Plugin>, Given)> {
        let member = self.members.iter().find(|member| member.name() == name)?;
        let Member { plugin, given, .. } = member;
        let is_same = given.lists.is_empty()
            && (given.told == *params || given.is_told_of(plugin.manifest.parameters.as_ref(), params));
        is_same.then(|| (Arc::clone(plugin), given.clone()))
    }

    /// Their versions, by name.
    pub(crate) fn versions(&self) -> BTreeMap<String, String> {
        let version = |member: &Member| (member.name().to_owned(), member.plugin.manifest.version.clone());
        self.members.iter().map(version).collect()
    }

    /// Decodes the pictures of all parameters; they stay so as long as what is given here is held. An error if a file that is
    /// named there was written to since.
    pub(crate) fn ready(&self, job: &dyn Job) -> Result<Vec<Arc<Decoded>>> {
        let mut files = self.members.iter().flat_map(|member| &member.given.files);
        files.try_for_each(|file| file.check())?;
        let pictures = self.members.iter().flat_map(|member| {
            member.given.pictures.iter().map(|picture| picture.decoded(job, member.name()))
        });
        pictures.collect()
    }

    /// What instances are told that are made for engines.
    pub(super) fn of_engines(&self) -> JobOf<'_> {
        let Self { method, request, pictures, batch, depth, engines, .. } = self;
        JobOf { method, request, pictures: *pictures, batch: *batch, engines, depth: *depth }
    }

    /// What a plugin is told as it makes an instance; `params` are its own, with the handles of the instance.
    pub(super) fn described(&self, member: &Member, params: &[u8]) -> latentd_job {
        let facts = JobFacts {
            method: &self.method,
            request: &self.request,
            pictures: self.pictures,
            batch: self.batch,
            strict: self.strict,
            depth: self.depth,
        };
        described(&facts, params, &member.answer.note)
    }
}

/// Whether a stage is one of a drawing: others have no instance.
pub(super) fn is_of_jobs(stage: &str) -> bool {
    ![LATENTD_REQUEST_REWRITE, LATENTD_PROMPT_TAGS, LATENTD_INFOTEXT_PARSE].contains(&stage)
}

/// What is lent to a plugin of a job.
pub(super) fn described(facts: &JobFacts<'_>, params: &[u8], note: &[u8]) -> latentd_job {
    latentd_job {
        size: size_of::<latentd_job>() as u32,
        depth: facts.depth,
        method: text(facts.method),
        request: bytes(facts.request),
        params: bytes(params),
        note: bytes(note),
        pictures: facts.pictures,
        batch: facts.batch,
    }
}

/// What a plugin answers to a plan, and what it wants to be told; `None` if the job is not for it.
fn planned(
    plugin: &Plugin,
    told: &latentd_job,
    job: &dyn Job,
    opened: &RefCell<Opened>,
) -> Result<Option<(Answer, Vec<String>)>> {
    let manifest = &plugin.manifest;
    let stages = manifest.stages.iter().filter(|stage| is_of_jobs(&stage.id));
    let all = || Answer { wants: stages.map(|stage| Want::all(&stage.id)).collect(), ..Answer::default() };
    let Some(plan) = plugin.tables.plan.and_then(|table| table.plan) else {
        return Ok(Some((all(), vec![])));
    };
    let (state, status) = recorded(job, manifest, || {
        let call = plugin.call(job, None, Some(Answer::default())).with_opened(opened);
        // SAFETY: `told` and the table live until the function returns; the call is this one.
        let status = unsafe { plan(call.pointer(), told, &raw const host::PLAN) };
        Ok((call.end(status, "job.plan")?, status))
    })?;
    let mut answer = state.plan.unwrap_or_default();
    answer.wants.retain(|want| is_of_jobs(&want.stage));
    if status == LATENTD_SKIP || answer.wants.is_empty() {
        return Ok(None);
    }
    for want in &answer.wants {
        if !manifest.stages.iter().any(|stage| stage.id == want.stage) {
            return Err(Error::new(
                Class::Plugin,
                format!(
                    "plugin '{}', job.plan: it wants '{}', which its manifest does not name",
                    manifest.name, want.stage
                ),
            ));
        }
    }
    Ok(Some((answer, state.notices)))
}
