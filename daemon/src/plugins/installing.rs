//! Puts a plugin's file into the folder where it is found, and takes it away.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use latentd_models::files::open_without_waiting;

use super::asks::Asks;
use super::manifest::{self, Manifest};
use super::search::{self, Folder, LARGEST, Search, is_library};
use crate::state_dir::make_private;
use crate::whole_file;

/// What a plugin is and does, as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    pub description: Option<String>,
    pub stages: Vec<String>,
    /// Its methods, as clients call them.
    pub methods: Vec<String>,
    /// Kinds of its engines.
    pub engines: Vec<&'static str>,
    /// Kinds of library files that it may write.
    pub saves: Vec<&'static str>,
    pub asks: Asks,
}

impl About {
    fn of(manifest: Manifest) -> Self {
        let Manifest { name, version, license, description, asks, .. } = manifest;
        Self {
            methods: manifest.methods.iter().map(|row| format!("{name}.{}", row.name)).collect(),
            name,
            version,
            license,
            description,
            stages: manifest.stages.into_iter().map(|stage| stage.id).collect(),
            engines: manifest.engines.iter().map(|named| named.kind.name()).collect(),
            saves: manifest.saves.iter().map(|kind| kind.name()).collect(),
            asks,
        }
    }
}

/// A plugin's file that was looked at, and its bytes, which are what is installed.
pub(crate) struct Package {
    pub about: About,
    /// SHA-256 of the bytes, in hex.
    pub sha256: String,
    bytes: Vec<u8>,
}

impl Package {
    /// Reads a file, wherever it lies and whoever may write to it: what is looked at is what is installed.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        if !is_library(path) {
            let suffix = std::env::consts::DLL_SUFFIX;
            return Err(format!("its name does not end in {suffix}: it is no plugin's library"));
        }
        let read = |file: File| -> std::io::Result<Vec<u8>> {
            let mut bytes = vec![];
            file.take(LARGEST + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let file = open_without_waiting(path).map_err(|error| error.to_string())?;
        if !file.metadata().is_ok_and(|told| told.is_file()) {
            return Err("is no regular file".to_owned());
        }
        let bytes = read(file).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > LARGEST {
            return Err(format!("is larger than {LARGEST} bytes"));
        }
        let manifest = manifest::read(&bytes).map_err(|unread| unread.to_string())?;
        Ok(Self { about: About::of(manifest), sha256: search::sha256(&[&bytes]), bytes })
    }

    /// Writes it into a folder, which is made if it is not there, in place of what there is of that name. Where it is now,
    /// and what was there of it.
    pub(crate) fn install(&self, folder: &Path) -> Result<(PathBuf, Vec<PathBuf>), String> {
        let name = &self.about.name;
        let failed = |error: std::io::Error| format!("cannot write to {}: {error}", folder.display());
        make_private(folder).map_err(failed)?;
        let before = installed(folder, name);
        let path = folder.join(format!("{name}{}", std::env::consts::DLL_SUFFIX));
        whole_file::write(&path, &self.bytes).map_err(failed)?;
        for other in before.iter().filter(|other| **other != path) {
            std::fs::remove_file(other).map_err(failed)?;
        }
        Ok((path, before))
    }
}

/// The files in a folder that are plugins of this name.
fn installed(folder: &Path, name: &str) -> Vec<PathBuf> {
    let folder = Folder { path: folder.to_owned(), is_programs: false, is_named: false };
    let found = Search::default().search(&[folder]);
    let is_it = |found: &search::Found| found.outcome.as_ref().is_ok_and(|(of, _)| of.name == name);
    found.into_iter().filter(is_it).map(|found| found.path).collect()
}

/// Removes the plugin of this name from a folder; the files that are gone.
pub(crate) fn remove(folder: &Path, name: &str) -> Result<Vec<PathBuf>, String> {
    let files = installed(folder, name);
    for file in &files {
        std::fs::remove_file(file).map_err(|error| format!("cannot remove {}: {error}", file.display()))?;
    }
    Ok(files)
}

/// The plugin of this name that is used of those in the folders, with the SHA-256 of its file; or the names there are.
pub(crate) fn find(folders: &[Folder], name: &str) -> Result<(About, String, PathBuf), Vec<String>> {
    let found = Search::default().search(folders);
    let used = found.into_iter().filter(|found| found.set_aside.is_none());
    let mut names = vec![];
    for found in used {
        let Ok((manifest, identity)) = found.outcome else { continue };
        if manifest.name == name {
            return Ok((About::of(manifest), identity.sha256, found.path));
        }
        names.push(manifest.name);
    }
    Err(names)
}
