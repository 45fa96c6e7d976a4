//! A plugin's library in memory: loaded once, asked for its tables, never let go of.
//!
//! What runs is a copy in the state folder, by its content's hash: the file that the user has may be replaced while jobs go on
//! with what they began with. A library is not unloaded: threads, thread-local data and texts of it may be anywhere.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::call::{Answer, Call, Job};
use super::host;
use super::isolated::{self, Remote};
use super::manifest::Manifest;
use super::objects::Objects;
use super::search::{self, is_library, manifest_beside};
use super::settings::Limits;
use super::tables::{self, Tables};
use crate::error::{Class, Error, Result};
use crate::state_dir::make_private;

/// A plugin that may be called.
pub(super) struct Plugin {
    pub manifest: Manifest,
    pub tables: Tables,
    /// Where its processes are, if it runs in some of its own.
    pub remote: Option<Arc<Remote>>,
}

impl Plugin {
    /// A call of one of its functions.
    pub(super) fn call<'a>(
        &'a self,
        job: &'a dyn Job,
        objects: Option<&'a RefCell<Objects>>,
        plan: Option<Answer>,
    ) -> Call<'a> {
        let remote = self.remote.as_ref().map(|remote| -> &(dyn Any + Send + Sync) { remote });
        Call::new(&self.manifest, job, objects, plan).with_remote(remote)
    }
}

/// What was tried, by the hash of the library and whether it runs in processes of its own.
type Tried = HashMap<(String, bool), Result<Arc<Plugin>>>;

/// Held by whoever loads a library.
type Alone = Arc<Mutex<()>>;

/// Libraries that were loaded.
pub(super) struct Libraries {
    /// Where copies lie.
    folder: PathBuf,
    loaded: Mutex<Tried>,
    /// Those that are being loaded: who wants the same one waits, and nobody else.
    loading: Mutex<HashMap<(String, bool), Alone>>,
}

impl Libraries {
    /// What copies are there already is of a daemon that ended.
    pub(super) fn new(folder: PathBuf) -> Self {
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!(folder = %folder.display(), %error, "old copies of plugins stay");
            }
            _ => (),
        }
        Self { folder, loaded: Mutex::default(), loading: Mutex::default() }
    }

    fn loaded(&self) -> MutexGuard<'_, Tried> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of a library that were tried.
    fn tried(&self, sha256: &str) -> Vec<Result<Arc<Plugin>>> {
        let loaded = self.loaded();
        [false, true]
            .into_iter()
            .filter_map(|apart| loaded.get(&(sha256.to_owned(), apart)).cloned())
            .collect()
    }

    pub(super) fn is_loaded(&self, sha256: &str) -> bool {
        self.tried(sha256).iter().any(Result::is_ok)
    }

    /// Why a library that was tried could not be loaded, or is not used any more.
    pub(super) fn failure(&self, sha256: &str) -> Option<String> {
        let tried = self.tried(sha256);
        let set_aside = tried.iter().flatten().find_map(|plugin| plugin.remote.as_ref()?.set_aside());
        set_aside.or_else(|| tried.into_iter().find_map(Result::err).map(|error| error.text))
    }

    /// A library that could not be loaded, or was set aside, is tried once more.
    pub(super) fn try_again(&self, sha256: &str) {
        let mut loaded = self.loaded();
        loaded.retain(|(of, _), tried| of != sha256 || tried.is_ok());
        let plugins =
            loaded.iter().filter(|((of, _), _)| of == sha256).filter_map(|(_, tried)| tried.as_ref().ok());
        plugins.filter_map(|plugin| plugin.remote.as_ref()).for_each(|remote| remote.enable());
    }

    /// The plugin in the file at `path`, whose content has this hash; in processes of its own if there are limits for them.
    pub(super) fn load(
        &self,
        path: &Path,
        sha256: &str,
        manifest: &Manifest,
        limits: Option<Limits>,
    ) -> Result<Arc<Plugin>> {
        let is_apart = limits.is_some();
        let key = (sha256.to_owned(), is_apart);
        let loading = self
            .loading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key.clone())
            .or_default()
            .clone();
        let _alone = loading.lock().unwrap_or_else(PoisonError::into_inner);
        let tried = self.loaded().get(&key).cloned();
        // What the configuration says now.
        let now = tried.as_ref().and_then(|tried| tried.as_ref().ok()?.remote.clone()).zip(limits.clone());
        if let Some((remote, limits)) = now {
            remote.limit(limits);
        }
        match tried {
            // A process may start another time.
            Some(Err(_)) if is_apart => (),
            Some(tried) => return tried,
            None => (),
        }
        let failed = |reason| {
            Error::new(Class::Plugin, format!("plugin '{}' cannot be loaded: {reason}", manifest.name))
        };
        tables::check(manifest).map_err(failed)?;
        let copy = self.copy(path, sha256, &manifest.name)?;
        if !is_library(path) && !is_apart {
            return Err(failed(
                "an executable does not run within the daemon: say isolation = \"process\"".to_owned(),
            ));
        }
        let made = if let Some(limits) = limits {
            let begun = Remote::begin(&manifest.name, copy, limits).and_then(|(remote, has)| match manifest
                .tables()
                .find(|id| !has.tables.iter().any(|table| table == id))
            {
                Some(id) => Err(format!("its manifest names {id}, but it has no such table")),
                None => Ok((isolated::tables(&has), Some(remote))),
            });
            begun.map_err(failed)
        } else {
            // What the system cannot load may lack another library, which somebody installs.
            let library = tables::opened(&copy).map_err(failed)?;
            tables::begun(library, manifest, &host::TABLE).map(|tables| (tables, None)).map_err(failed)
        };
        let made =
            made.map(|(tables, remote)| Arc::new(Plugin { manifest: manifest.clone(), tables, remote }));
        self.loaded().insert(key, made.clone());
        made
    }

    /// A copy that nobody but us changes, checked to be what was looked at.
    fn copy(&self, path: &Path, sha256: &str, name: &str) -> Result<PathBuf> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Error::internal(format!("plugin '{name}': {what} {}: {error}", self.folder.display()))
        };
        let folder = self.folder.join(sha256.get(..32).unwrap_or(sha256));
        make_private(&self.folder).map_err(|error| failed("cannot make", &error))?;
        make_private(&folder).map_err(|error| failed("cannot make a folder in", &error))?;
        let read = |path: &Path| {
            let wrong =
                |error| Error::new(Class::Plugin, format!("plugin '{name}': {}: {error}", path.display()));
            std::fs::read(path).map_err(wrong)
        };
        let bytes = read(path)?;
        let is_same = if is_library(path) {
            search::sha256(&[&bytes]) == sha256
        } else {
            search::sha256(&[&bytes, &read(&manifest_beside(path))?]) == sha256
        };
        if !is_same {
            let text = format!("plugin '{name}': {} is being changed; ask again", path.display());
            return Err(Error::new(Class::Plugin, text));
        }
        let suffix = if is_library(path) { std::env::consts::DLL_SUFFIX } else { "" };
        let copy = folder.join(format!("{name}{suffix}"));
        crate::whole_file::write(&copy, &bytes).map_err(|error| failed("cannot write to", &error))?;
        if !is_library(path) {
            let ours = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(&copy, ours)
                .map_err(|error| failed("cannot make executable what is in", &error))?;
        }
        Ok(copy)
    }
}
