//! What is installed, as lists have it.

use std::path::Path;

use latentd_client::protocol::{PluginEntry, PluginList, PluginMethod, PluginState};

use super::agreements::Agreements;
use super::engines::{Files, own_names};
use super::library::Libraries;
use super::method_rows::MethodRow;
use super::search::{Folder, Found, Search};
use super::settings::{Isolation, PluginConfigs, settled};
use crate::sandbox;
use crate::suggest::advice;

/// A method as lists have it.
fn told_method(row: MethodRow) -> PluginMethod {
    let MethodRow { kind, since, description, .. } = row;
    PluginMethod { kind: kind.told(), since, description }
}

/// What is installed in these folders, looked at by itself.
pub(crate) fn look(folders: &[Folder], configs: &PluginConfigs, agreements: &Agreements) -> PluginList {
    let found = Search::default().search(folders);
    let plugins =
        found.into_iter().map(|found| entry(found, (folders, configs), None, agreements, &|_| vec![]));
    PluginList { plugins: plugins.collect(), not_confined: sandbox::lacks() }
}

/// What the configuration says of plugins that are not there.
pub(crate) fn configured_in_vain(configs: &PluginConfigs, list: &PluginList) -> Vec<String> {
    let names: Vec<&str> = list.plugins.iter().filter_map(|plugin| plugin.name.as_deref()).collect();
    let others = configs.keys().filter(|name| !names.contains(&name.as_str()));
    let text = |name: &String| {
        let advice = advice(name, names.iter().copied());
        format!("[plugins.{name}] of the configuration file: no plugin of this name is there{advice}")
    };
    others.map(text).collect()
}

/// A library as it is listed; of none that is loaded if there are no `libraries`.
pub(super) fn entry(
    found: Found,
    (folders, configs): (&[Folder], &PluginConfigs),
    libraries: Option<&Libraries>,
    agreements: &Agreements,
    files: Files<'_>,
) -> PluginEntry {
    let path = found.path.to_string_lossy().into_owned();
    let Found { path: found_path, outcome, set_aside } = found;
    let (manifest, identity) = match outcome {
        Ok(read) => read,
        Err(reason) => {
            return PluginEntry {
                path,
                state: PluginState::Refused,
                reason: Some(reason),
                agreed: true,
                ..PluginEntry::default()
            };
        }
    };
    let failure = libraries.and_then(|libraries| libraries.failure(&identity.sha256));
    let disabled = disabled(&manifest.name, configs);
    let wrong = settled(&manifest.name, manifest.settings.as_ref(), configs).err();
    let state = match (&set_aside, &disabled, failure.as_ref().or(wrong.as_ref())) {
        (Some(_), _, _) => PluginState::SetAside,
        (None, Some(_), _) => PluginState::Disabled,
        (None, None, Some(_)) => PluginState::Refused,
        (None, None, None) if libraries.is_some_and(|all| all.is_loaded(&identity.sha256)) => {
            PluginState::Loaded
        }
        (None, None, None) => PluginState::Ready,
    };
    let (major, minor) = manifest.abi;
    let is_agreed =
        manifest.asks.is_nothing() || agreements.granted(&manifest.name, &identity.sha256) == manifest.asks;
    let is_apart = runs_apart(&manifest.name, &found_path, folders, configs);
    let kinds = manifest.engines.iter().map(|named| named.kind);
    let engines = kinds.map(|kind| (kind.name().to_owned(), own_names(kind, &manifest, files))).collect();
    PluginEntry {
        name: Some(manifest.name),
        version: Some(manifest.version),
        path,
        state,
        reason: set_aside.or(disabled).or(failure).or(wrong),
        abi: Some(format!("{major}.{minor}")),
        license: manifest.license,
        description: manifest.description,
        stages: manifest.stages.into_iter().map(|stage| stage.id).collect(),
        methods: manifest.methods.into_iter().map(|row| (row.name.clone(), told_method(row))).collect(),
        engines,
        uses: manifest.requires.into_iter().chain(manifest.uses).collect(),
        asks: manifest.asks.told(),
        agreed: is_agreed,
        isolation: Some(if is_apart { "process" } else { "inline" }.to_owned()),
        saves: manifest.saves.into_iter().map(|kind| kind.name().to_owned()).collect(),
    }
}

/// Whether a plugin runs in processes of its own: all but ours do, which lie in the program's folder, unless the configuration says
/// otherwise.
pub(super) fn runs_apart(name: &str, path: &Path, folders: &[Folder], configs: &PluginConfigs) -> bool {
    let is_ours = folders.iter().any(|folder| folder.is_programs && path.starts_with(&folder.path));
    let said = configs.get(name).and_then(|config| config.isolation);
    said.map_or(!is_ours, |isolation| isolation == Isolation::Process)
}

/// Why the configuration keeps a plugin from being used, if so.
pub(super) fn disabled(name: &str, configs: &PluginConfigs) -> Option<String> {
    let is_enabled = configs.get(name).is_none_or(|config| config.enabled);
    let text = || format!("the configuration file says so: [plugins.{name}] enabled = false");
    (!is_enabled).then(text)
}
