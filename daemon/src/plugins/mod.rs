//! Plugins: found in their folders, read without loading, loaded once a request names them, called at the stages of a drawing.
//!
//! [`search`], [`section`] and [`manifest`] look, [`parameters`] checks what requests say, [`given`] finds the pictures and files
//! that they name, [`library`] loads, [`rewrite`] has a request made anew, [`job`] settles what the plugins of a request do,
//! [`stages`] calls them, [`methods`] calls methods of their own, [`engines`] runs what requests name of others. What they may call is in [`host`]; [`call`] and
//! [`objects`] are what that works on. [`validate`] tries for its author whether a plugin keeps to all of it. Nothing here
//! knows the wire; where pictures and files come from is behind [`resources`].

mod agreements;
mod artifact;
mod asked;
mod asks;
mod call;
mod choices;
mod engine_calls;
mod engine_kinds;
mod engine_plans;
mod engines;
mod given;
mod host;
mod infotext;
mod installing;
mod isolated;
mod job;
mod keywords;
mod known_methods;
mod lending;
mod library;
mod listing;
mod manifest;
mod method_rows;
mod methods;
mod notices;
mod objects;
mod opened;
mod order;
mod parameters;
mod prompts;
mod records;
mod resources;
mod rewrite;
mod search;
mod section;
mod settings;
mod stages;
mod status;
mod subjobs;
mod tables;
mod tags;
mod texts;
mod validate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use latentd_client::protocol::{PluginEntry, PluginList, PluginMethodSchema, PluginParams, PluginSchema};
use tracing::info;

use crate::error::{Class, Error, Result};
use crate::live::Live;
use crate::sandbox;
use crate::schema::shorten;
use crate::state_dir::make_private;
use crate::suggest::nearest;
pub(crate) use agreements::{Agreement, Agreements};
pub(crate) use artifact::{ARTIFACT_BYTES, Artifact, MOST_ARTIFACTS, left_out};
pub(crate) use asks::Asks;
pub(crate) use call::{Job, Recorded};
use choices::with_choices;
pub(crate) use engine_kinds::Kind;
pub(crate) use engines::{Alone, Engine};
use engines::{Files, Unknown};
pub(crate) use infotext::{ForeignText, Pair};
pub(crate) use installing::{About, Package, find, remove};
pub(crate) use isolated::run_guest;
pub(crate) use job::{JobFacts, JobPlugins, Settled};
use known_methods::Known;
use library::{Libraries, Plugin};
pub(crate) use listing::{configured_in_vain, look};
use listing::{disabled, entry, runs_apart};
use manifest::Manifest;
pub(crate) use manifest::check_name;
pub(crate) use method_rows::MethodKind;
pub(crate) use methods::{Listed, Method, Returned, WITHIN, may_be};
pub(crate) use objects::Image;
pub(crate) use prompts::PromptLists;
pub(crate) use records::{Records, line};
pub(crate) use resources::{FileToSave, HeldPicture, Resources};
pub(crate) use rewrite::{MOST_REQUESTS, PromptText, Rewriter, Rewriting};
pub(crate) use search::Folder;
use search::{Found, Search};
use settings::Limits;
pub(crate) use settings::PluginConfigs;
pub(crate) use stages::{JobStages, PassSources, Whole};
pub(crate) use subjobs::{MOST_DEPTH, SubImage, SubJob, SubJobs, SubPicture, SubPictures, SubPlan};
pub(crate) use tags::Tag;
pub(crate) use validate::{Checked, Options, Outcome, Program, run_child, validate};

/// All plugins that are installed.
pub(crate) struct Plugins {
    folders: Vec<Folder>,
    search: Mutex<Search>,
    libraries: Libraries,
    /// The methods that were there as it was searched last.
    known: Known,
    /// Where each has a folder of its own.
    own: PathBuf,
    /// What users agreed that each may.
    agreements: Agreements,
    /// What the configuration says of each.
    configs: Live<PluginConfigs>,
    /// What they did.
    pub(crate) records: Records,
}

impl Plugins {
    /// Those in these folders, in the order of their precedence. Copies of what is loaded lie in `copies`, and in `own` each has
    /// a folder that it may write to.
    pub(crate) fn new(folders: Vec<Folder>, copies: PathBuf, own: PathBuf, agreements: Agreements) -> Self {
        Self {
            folders,
            search: Mutex::default(),
            libraries: Libraries::new(copies),
            known: Known::default(),
            own,
            agreements,
            configs: Live::new(PluginConfigs::new()),
            records: Records::default(),
        }
    }

    /// Takes what the configuration says of them from now on.
    pub(crate) fn configure(&self, configs: PluginConfigs) {
        self.configs.set(configs);
    }

    /// What the configuration says of them.
    pub(crate) fn configs(&self) -> Arc<PluginConfigs> {
        self.configs.get()
    }

    /// A plugin's own folder, which only we can look into; made if it is not there.
    pub(crate) fn own_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.own.join(name);
        let made = make_private(&self.own).and_then(|()| make_private(&folder));
        made.map_err(|error| Error::internal(format!("cannot make {}: {error}", folder.display())))?;
        Ok(folder)
    }

    fn found(&self) -> Vec<Found> {
        let found = self.search.lock().unwrap_or_else(PoisonError::into_inner).search(&self.folders);
        self.known.note(usable(&found, &HIGHEST).map(|(_, (manifest, _))| manifest));
        found
    }

    /// What is installed. Loads nothing.
    pub(crate) fn list(&self, files: Files<'_>) -> PluginList {
        let (found, configs) = (self.found(), self.configs());
        let (libraries, agreements) = (Some(&self.libraries), &self.agreements);
        let plugins = found
            .into_iter()
            .map(|found| entry(found, (&self.folders, &configs), libraries, agreements, files));
        PluginList { plugins: plugins.collect(), not_confined: sandbox::lacks() }
    }

    /// A plugin that could not be loaded, or was set aside, may be used again; what is said of it then.
    pub(crate) fn enable(&self, name: &str, files: Files<'_>) -> Result<PluginEntry> {
        let (path, (_, identity)) = named(name, &HIGHEST, &self.found())?;
        self.libraries.try_again(&identity.sha256);
        let mut entries = self.list(files).plugins.into_iter();
        let entry = entries.find(|entry| Path::new(&entry.path) == path);
        entry.ok_or_else(|| Error::not_found(format!("plugin '{name}' was removed meanwhile")))
    }

    /// Of plugins with their versions those that are there still, but are not used unless they are asked for by version.
    pub(crate) fn still_there(&self, mut versions: BTreeMap<String, String>) -> BTreeMap<String, String> {
        if versions.is_empty() {
            return versions;
        }
        let found = self.found();
        let is_set_aside = |(name, version): (&String, &mut String)| {
            let mut there = found.iter().filter_map(|found| Some((found, &found.outcome.as_ref().ok()?.0)));
            let is_it = |of: &Manifest| of.name == *name && of.version == *version;
            there.clone().any(|(_, of)| is_it(of))
                && there.all(|(found, of)| !is_it(of) || found.set_aside.is_some())
        };
        versions.retain(|name, version| is_set_aside((name, version)));
        versions
    }

    /// What a plugin's parameters may be.
    pub(crate) fn schema(&self, name: &str, files: Files<'_>) -> Result<PluginSchema> {
        let found = self.found();
        let (_, (manifest, _)) = named(name, &HIGHEST, &found)?;
        let manifests = self.enabled(&found, &HIGHEST);
        let names = |kind| engines::names(kind, manifests.iter().copied(), files);
        let shown = |mut schema| {
            with_choices(&mut schema, &names);
            schema
        };
        let nothing =
            || serde_json::json!({"type": "object", "properties": {}, "additionalProperties": false});
        let methods = manifest.methods.iter().map(|row| {
            let params = shown(row.params.clone().unwrap_or_else(nothing));
            (row.name.clone(), PluginMethodSchema { params, result: row.result.clone() })
        });
        let methods = methods.collect();
        Ok(PluginSchema {
            name: manifest.name,
            version: manifest.version,
            parameters: shown(manifest.parameters.unwrap_or_else(nothing)),
            methods,
            settings: manifest.settings,
        })
    }

    /// Settles the parameters of a request's plugins; loads those that are not in memory. What was settled `before` stays so.
    pub(crate) fn settle(
        &self,
        asked: &BTreeMap<String, PluginParams>,
        before: Option<&JobPlugins>,
        job: &dyn Job,
    ) -> Result<Settled> {
        let found = self.found();
        let settled =
            asked.iter().map(|(name, params)| match before.and_then(|before| before.settled(name, params)) {
                Some((plugin, given))
                    if job.versions().get(name).is_none_or(|version| *version == plugin.manifest.version) =>
                {
                    Ok((plugin, given))
                }
                _ => Settled::one(self.load(name, job.versions(), &found)?, params, job),
            });
        settled.collect::<Result<_>>().map(Settled::all)
    }

    /// The engine of this name that a request's `field` names, described; its plugin is loaded if it is not in memory. `beside`
    /// are names that need no plugin, for whoever mistypes one.
    pub(crate) fn engine(
        &self,
        kind: Kind,
        name: &str,
        (field, beside): (&str, &[&str]),
        job: &dyn Job,
    ) -> Result<Engine> {
        let found = self.found();
        let manifests = self.enabled(&found, job.versions()).into_iter();
        let resources = job.resources();
        let files = |kind| resources.names(kind);
        let (manifest, of_library) =
            engines::find(kind, name, manifests, &files, &Unknown { field, beside })?;
        let file = of_library.map(|(kind, own)| resources.file(kind, &own)).transpose()?;
        Engine::describe(self.load(&manifest.name, job.versions(), &found)?, kind, (name, file), job)
    }

    /// That there is an engine of this name, which stands in a `field`.
    pub(crate) fn check_engine(&self, kind: Kind, name: &str, field: &str, files: Files<'_>) -> Result<()> {
        let found = self.found();
        let manifests = self.enabled(&found, &HIGHEST).into_iter();
        engines::find(kind, name, manifests, files, &Unknown { field, beside: &[] }).map(drop)
    }

    /// The names of a kind of engines, sorted.
    pub(crate) fn engine_names(&self, kind: Kind, files: Files<'_>) -> Vec<String> {
        engines::names(kind, self.enabled(&self.found(), &HIGHEST).into_iter(), files)
    }

    /// Those of them that the configuration lets be used.
    fn enabled<'a>(&self, found: &'a [Found], versions: &'a Versions) -> Vec<&'a Manifest> {
        let configs = self.configs();
        let manifests = usable(found, versions).map(|(_, (manifest, _))| manifest);
        manifests.filter(|manifest| disabled(&manifest.name, &configs).is_none()).collect()
    }

    fn load(&self, name: &str, versions: &Versions, found: &[Found]) -> Result<Arc<Plugin>> {
        let (path, (manifest, identity)) = named(name, versions, found)?;
        let configs = self.configs();
        let wrong = disabled(name, &configs)
            .or_else(|| settings::settled(name, manifest.settings.as_ref(), &configs).err());
        if let Some(why) = wrong {
            return Err(Error::new(Class::Plugin, format!("plugin '{name}': {why}")));
        }
        if !self.libraries.is_loaded(&identity.sha256) {
            info!(plugin = name, version = manifest.version, path = %path.display(), "loading a plugin");
        }
        let limits = if runs_apart(name, &path, &self.folders, &configs) {
            let asked = self.agreements.granted(name, &identity.sha256);
            let limits = configs.get(name).cloned().unwrap_or_default().limits(&asked);
            let writes = [self.own_folder(name)?].into_iter().chain(limits.writes).collect();
            Some(Limits { writes, ..limits })
        } else {
            None
        };
        self.libraries.load(&path, &identity.sha256, &manifest, limits)
    }
}

/// Versions that are wanted, by the plugins' names.
type Versions = BTreeMap<String, String>;

/// Where none is wanted but the highest.
static HIGHEST: Versions = BTreeMap::new();

/// Those that are used, with their files: of those whose version is wanted that one, of others the highest.
fn usable<'a>(
    found: &'a [Found],
    versions: &'a Versions,
) -> impl Iterator<Item = (&'a PathBuf, &'a (Manifest, search::Identity))> + Clone {
    let read = found.iter().filter_map(|found| Some((found, found.outcome.as_ref().ok()?)));
    let used = read.filter(|(found, (manifest, _))| match versions.get(&manifest.name) {
        Some(version) => manifest.version == *version,
        None => found.set_aside.is_none(),
    });
    used.map(|(found, read)| (&found.path, read))
}

/// Why a version that is wanted cannot be had.
fn no_version(name: &str, version: &str, found: &[Found]) -> Error {
    let manifests = found.iter().filter_map(|found| Some(&found.outcome.as_ref().ok()?.0));
    let there: Vec<&str> = manifests.filter(|of| of.name == name).map(|of| of.version.as_str()).collect();
    let there = there.join(", ");
    let shown = shorten(version);
    Error::not_found(format!("plugin_versions.{name}: there is no version '{shown}'; there is {there}"))
}

/// The plugin of this name that is used.
fn named(
    name: &str,
    versions: &Versions,
    found: &[Found],
) -> Result<(PathBuf, (Manifest, search::Identity))> {
    let usable: Vec<_> = usable(found, versions).collect();
    if let Some((path, read)) = usable.iter().find(|(_, (manifest, _))| manifest.name == name) {
        return Ok(((*path).clone(), (*read).clone()));
    }
    let is_there = |found: &Found| found.outcome.as_ref().is_ok_and(|(manifest, _)| manifest.name == name);
    if let Some(version) = versions.get(name)
        && found.iter().any(is_there)
    {
        return Err(no_version(name, version, found));
    }
    // Somebody may have put it there, and it is not taken.
    let mut refused = found.iter().filter(|found| {
        let stem = found.path.file_stem().unwrap_or_default().to_string_lossy();
        stem == name || stem == format!("lib{}", name.replace('-', "_"))
    });
    let refused = refused.find_map(|found| Some((&found.path, found.outcome.as_ref().err()?)));
    if let Some((path, reason)) = refused {
        let text = format!("plugin '{name}' is not used: {}: {reason}", path.display());
        return Err(Error::new(Class::Plugin, text));
    }
    let names: Vec<&str> = usable.iter().map(|(_, (manifest, _))| manifest.name.as_str()).collect();
    let there = match nearest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean '{meant}'?"),
        None if names.is_empty() => "none is installed; see `latentd plugins list`".to_owned(),
        None => format!("there are {}", names.join(", ")),
    };
    Err(Error::not_found(format!("no plugin is called '{name}'; {there}")))
}
