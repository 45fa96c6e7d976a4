//! Puts a plugin's file into the folder where it is found, and takes it away.

use std::env::consts::DLL_SUFFIX;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use latentd_models::files::open_without_waiting;

use super::asks::Asks;
use super::manifest::{self, Manifest};
use super::search::{self, Folder, LARGEST, Search, is_library, manifest_beside};
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

/// A plugin's files that were looked at, and their bytes, which are what is installed.
pub(crate) struct Package {
    pub about: About,
    /// SHA-256 of the bytes, one file after the other, in hex.
    pub sha256: String,
    /// What its file is called behind the name.
    suffix: String,
    bytes: Vec<u8>,
    /// The file beside an executable.
    manifest: Option<Vec<u8>>,
}

impl Package {
    /// Reads a library, or an executable and the manifest beside it, wherever they lie and whoever may write to them: what is
    /// looked at is what is installed.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let beside = manifest_beside(path);
        if !is_library(path) && (beside == path || !beside.exists()) {
            let (suffix, name) = (DLL_SUFFIX, beside.file_name().unwrap_or_default().to_string_lossy());
            return Err(format!(
                "its name does not end in {suffix}, and there is no {name} beside it: it is no plugin"
            ));
        }
        let bytes = read_whole(path)?;
        if is_library(path) {
            let manifest = manifest::read(&bytes).map_err(|unread| unread.to_string())?;
            let (about, sha256) = (About::of(manifest), search::sha256(&[&bytes]));
            return Ok(Self { about, sha256, suffix: DLL_SUFFIX.to_owned(), bytes, manifest: None });
        }
        let of_manifest = |why: String| format!("its manifest {}: {why}", beside.display());
        let written = read_whole(&beside).map_err(of_manifest)?;
        let about = About::of(manifest::parse(&written).map_err(of_manifest)?);
        let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
        let (suffix, sha256) = (extension.unwrap_or_default(), search::sha256(&[&bytes, &written]));
        Ok(Self { about, sha256, suffix, bytes, manifest: Some(written) })
    }

    /// Writes it into a folder, which is made if it is not there, in place of what there is of that name. Where it is now,
    /// and what was there of it.
    pub(crate) fn install(&self, folder: &Path) -> Result<(PathBuf, Vec<PathBuf>), String> {
        let name = &self.about.name;
        let failed = |error: std::io::Error| format!("cannot write to {}: {error}", folder.display());
        make_private(folder).map_err(failed)?;
        let before = installed(folder, name);
        let path = folder.join(format!("{name}{}", self.suffix));
        if let Some(manifest) = &self.manifest {
            whole_file::write(&folder.join(format!("{name}.toml")), manifest).map_err(failed)?;
        }
        whole_file::write(&path, &self.bytes).map_err(failed)?;
        if self.manifest.is_some() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        for other in before.iter().filter(|other| **other != path) {
            remove_file(other, self.manifest.is_none()).map_err(failed)?;
        }
        Ok((path, before))
    }
}

/// All bytes of a file, which are not too many.
fn read_whole(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let file = open_without_waiting(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("is no regular file"));
        }
        let mut bytes = vec![];
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > LARGEST => Err(format!("is larger than {LARGEST} bytes")),
        read => read.map_err(|error| error.to_string()),
    }
}

/// Removes a plugin's file, and of an executable the manifest beside it, if that is no other's.
fn remove_file(path: &Path, with_manifest: bool) -> std::io::Result<()> {
    fs::remove_file(path)?;
    if with_manifest && !is_library(path) { fs::remove_file(manifest_beside(path)) } else { Ok(()) }
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
        remove_file(file, true).map_err(|error| format!("cannot remove {}: {error}", file.display()))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_installed_with_the_manifest_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("x.py"), "#!/usr/bin/python3\n").expect("written");
        let refused = |expected: &str| {
            let why = Package::read(&at("x.py")).err().expect(expected);
            assert!(why.contains(expected), "{why}");
        };
        refused("there is no x.toml beside it");
        fs::write(at("x.toml"), "name = 'a'").expect("written");
        refused("x.toml: missing field");
        let manifest = "name = 'solar'\nversion = '1'\nabi = '0.1'\n";
        fs::write(at("x.toml"), manifest).expect("written");
        let package = Package::read(&at("x.py")).expect("read");
        let (path, before) = package.install(&at("plugins")).expect("installed");
        assert_eq!((path.clone(), before), (at("plugins/solar.py"), vec![]));
        assert_eq!(fs::read(&path).expect("there"), fs::read(at("x.py")).expect("there"));
        assert_eq!(fs::read_to_string(at("plugins/solar.toml")).expect("there"), manifest);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        remove_file(&path, true).expect("removed");
        assert_eq!(fs::read_dir(at("plugins")).expect("a folder").count(), 0);
    }
}
