//! Plugins: found in their folders, read without loading, loaded once a request names them, called at the stages of a drawing.
//!
//! [`search`], [`section`] and [`manifest`] look, [`parameters`] checks what requests say, [`given`] finds the pictures and files
//! that they name, [`library`] loads, [`rewrite`] has a request made anew, [`job`] settles what the plugins of a request do,
//! [`stages`] calls them, [`methods`] calls methods of their own, [`engines`] runs what requests name of others. What they may call is in [`host`]; [`call`] and
//! [`objects`] are what that works on. [`validate`] tries for its author whether a plugin keeps to all of it. Nothing here
//! knows the wire; where pictures and files come from is behind [`resources`].

mod artifact;
mod call;
mod engine_kinds;
mod engines;
mod given;
mod host;
mod job;
mod keywords;
mod known_methods;
mod lending;
mod library;
mod manifest;
mod method_rows;
mod methods;
mod objects;
mod opened;
mod order;
mod parameters;
mod prompts;
mod resources;
mod rewrite;
mod search;
mod section;
mod stages;
mod status;
mod texts;
mod validate;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use latentd_client::protocol::{
    PluginEntry, PluginList, PluginMethod, PluginMethodSchema, PluginParams, PluginSchema, PluginState,
};
use tracing::info;

use crate::error::{Class, Error, Result};
use crate::state_dir::make_private;
use crate::suggest::nearest;
pub(crate) use artifact::{ARTIFACT_BYTES, Artifact, MOST_ARTIFACTS};
pub(crate) use call::Job;
pub(crate) use engine_kinds::Kind;
pub(crate) use engines::Engine;
use engines::Unknown;
pub(crate) use job::{JobFacts, JobPlugins, Settled};
use known_methods::Known;
use library::{Libraries, Plugin};
use manifest::Manifest;
pub(crate) use manifest::check_name;
pub(crate) use method_rows::MethodKind;
use method_rows::MethodRow;
pub(crate) use methods::{Listed, Method, Returned, WITHIN, may_be};
pub(crate) use objects::Image;
pub(crate) use prompts::PromptLists;
pub(crate) use resources::{HeldPicture, Resources};
pub(crate) use rewrite::{MOST_REQUESTS, PromptText, Rewriter, Rewriting};
pub(crate) use search::Folder;
use search::{Found, Search};
pub(crate) use stages::{JobStages, Whole};
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
}

impl Plugins {
    /// Those in these folders, in the order of their precedence. Copies of what is loaded lie in `copies`, and in `own` each has
    /// a folder that it may write to.
    pub(crate) fn new(folders: Vec<Folder>, copies: PathBuf, own: PathBuf) -> Self {
        Self {
            folders,
            search: Mutex::default(),
            libraries: Libraries::new(copies),
            known: Known::default(),
            own,
        }
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
        self.known.note(usable(&found).map(|(_, (manifest, _))| manifest));
        found
    }

    /// What is installed. Loads nothing.
    pub(crate) fn list(&self) -> PluginList {
        let plugins = self.found().into_iter().map(|found| self.entry(found)).collect();
        PluginList { plugins }
    }

    fn entry(&self, found: Found) -> PluginEntry {
        let path = found.path.to_string_lossy().into_owned();
        let Found { outcome, set_aside, .. } = found;
        let (manifest, identity) = match outcome {
            Ok(read) => read,
            Err(reason) => {
                return PluginEntry {
                    path,
                    state: PluginState::Refused,
                    reason: Some(reason),
                    ..PluginEntry::default()
                };
            }
        };
        let failure = self.libraries.failure(&identity.sha256);
        let state = match (&set_aside, &failure) {
            (Some(_), _) => PluginState::SetAside,
            (None, Some(_)) => PluginState::Refused,
            (None, None) if self.libraries.is_loaded(&identity.sha256) => PluginState::Loaded,
            (None, None) => PluginState::Ready,
        };
        let (major, minor) = manifest.abi;
        PluginEntry {
            name: Some(manifest.name),
            version: Some(manifest.version),
            path,
            state,
            reason: set_aside.or(failure),
            abi: Some(format!("{major}.{minor}")),
            license: manifest.license,
            description: manifest.description,
            stages: manifest.stages.into_iter().map(|stage| stage.id).collect(),
            methods: manifest.methods.into_iter().map(|row| (row.name.clone(), told_method(row))).collect(),
            engines: manifest
                .engines
                .into_iter()
                .map(|named| (named.kind.name().to_owned(), named.entries))
                .collect(),
        }
    }

    /// What a plugin's parameters may be.
    pub(crate) fn schema(&self, name: &str) -> Result<PluginSchema> {
        let (_, (manifest, _)) = named(name, &self.found())?;
        let nothing =
            || serde_json::json!({"type": "object", "properties": {}, "additionalProperties": false});
        let methods = manifest.methods.iter().map(|row| {
            let params = row.params.clone().unwrap_or_else(nothing);
            (row.name.clone(), PluginMethodSchema { params, result: row.result.clone() })
        });
        let methods = methods.collect();
        Ok(PluginSchema {
            name: manifest.name,
            version: manifest.version,
            parameters: manifest.parameters.unwrap_or_else(nothing),
            methods,
        })
    }

    /// Settles the parameters of a request's plugins; loads those that are not in memory.
    pub(crate) fn settle(&self, asked: &BTreeMap<String, PluginParams>, job: &dyn Job) -> Result<Settled> {
        let found = self.found();
        let loaded = asked.iter().map(|(name, params)| Ok((self.load(name, &found)?, params)));
        Settled::of(loaded.collect::<Result<_>>()?, job)
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
        let manifests = usable(&found).map(|(_, (manifest, _))| manifest);
        let manifest = engines::find(kind, name, manifests, &Unknown { field, beside })?;
        Engine::describe(self.load(&manifest.name, &found)?, kind, name, job)
    }

    fn load(&self, name: &str, found: &[Found]) -> Result<Arc<Plugin>> {
        let (path, (manifest, identity)) = named(name, found)?;
        if !self.libraries.is_loaded(&identity.sha256) {
            info!(plugin = name, version = manifest.version, path = %path.display(), "loading a plugin");
        }
        self.libraries.load(&path, &identity.sha256, &manifest)
    }
}

/// A method as lists have it.
fn told_method(row: MethodRow) -> PluginMethod {
    let MethodRow { kind, since, description, .. } = row;
    PluginMethod { kind: kind.told(), since, description }
}

/// Those that are used, with their files.
fn usable(found: &[Found]) -> impl Iterator<Item = (&PathBuf, &(Manifest, search::Identity))> + Clone {
    let used = found.iter().filter(|found| found.set_aside.is_none());
    used.filter_map(|found| Some((&found.path, found.outcome.as_ref().ok()?)))
}

/// The plugin of this name that is used.
fn named(name: &str, found: &[Found]) -> Result<(PathBuf, (Manifest, search::Identity))> {
    let usable: Vec<_> = usable(found).collect();
    if let Some((path, read)) = usable.iter().find(|(_, (manifest, _))| manifest.name == name) {
        return Ok(((*path).clone(), (*read).clone()));
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
