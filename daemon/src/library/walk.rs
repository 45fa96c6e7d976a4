//! One walk over a models folder: which files are there. None is opened.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use latentd_client::protocol::LibraryKind;

use super::beside::{Beside, Names};
use super::judge::Candidate;
use super::model_folder::{self, is_model};
use super::places::{OTHER_FORMS, Root, extension, inner_kind, may_carry};
use super::remote::is_remote;
use super::snapshot::{Folder, Problem, Role};
use super::stamp::{Seen, Stamp};
use crate::error::Class;

/// Folders inside folders that are looked into: enough for any collection, an end for anything odd.
const DEPTH: usize = 16;

/// Times of files advance in steps of a few milliseconds: a folder that changed within this may look the same after another
/// change.
const REST: Duration = Duration::from_millis(50);

/// What is said of a models folder that is not there.
pub(crate) const NO_FOLDER: &str =
    "this models folder is not there; make it, or correct its path in the settings";

/// Device and inode of folders that were entered: links may lead in circles.
pub(super) type Visited = HashSet<(u64, u64)>;

/// Grows while something goes on.
#[derive(Default)]
pub(super) struct Progress(AtomicU64);

impl Progress {
    pub(super) fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was found.
#[derive(Default)]
pub(super) struct Walk<'a> {
    pub candidates: Vec<Candidate>,
    pub problems: Vec<Problem>,
    pub folders: Vec<Folder>,
    pub linked: Vec<PathBuf>,
    pub visited: Visited,
    /// Links to folders, entered last: what they lead to may have a place of its own.
    links: Vec<ToEnter>,
    /// Whether the devices that were met are on other machines.
    remote: HashMap<u64, bool>,
    progress: Option<&'a Progress>,
}

/// A folder to look into.
struct ToEnter {
    path: PathBuf,
    /// The kind it stands for.
    kind: Option<LibraryKind>,
    depth: usize,
}

/// Walks a folder of the settings, which is looked at for `parts`: itself, or what holds models in it. What lies in `others`
/// has its place there.
pub(super) fn walk<'a>(
    root: &Root,
    parts: &[Root],
    others: &[Root],
    visited: Visited,
    progress: &'a Progress,
) -> Walk<'a> {
    let mut walk = Walk { visited, progress: Some(progress), ..Walk::default() };
    if !parts.contains(root) {
        walk.stand_at(root);
    }
    for part in parts {
        let folder = ToEnter { path: part.path.clone(), kind: part.kind, depth: DEPTH };
        walk.enter(folder, part == root);
    }
    // Links found behind links come behind them.
    while !walk.links.is_empty() {
        for link in std::mem::take(&mut walk.links) {
            let target = fs::canonicalize(&link.path).unwrap_or_default();
            if !others.iter().any(|other| target.starts_with(&other.path)) {
                walk.enter(link, false);
            }
        }
    }
    walk
}

/// The one file as the walk would find it: nothing if it would be passed by.
pub(super) fn look_at(path: &Path, folder: Option<LibraryKind>) -> Option<Result<Candidate, Box<Problem>>> {
    let mut walk = Walk::default();
    walk.entry(path.to_owned(), folder, 0, None);
    walk.candidates.pop().map(Ok).or_else(|| walk.problems.pop().map(Box::new).map(Err))
}

impl Walk<'_> {
    /// Notes a folder of the settings that is not read itself.
    fn stand_at(&mut self, root: &Root) {
        let (stamp, role) = (Stamp::at(&root.path), Role::Around);
        let remote = stamp.is_some_and(|stamp| self.is_remote(&root.path, stamp));
        let path = root.path.clone();
        self.folders.push(Folder { path, stamp, rested: true, role, remote });
    }

    fn is_remote(&mut self, path: &Path, stamp: Stamp) -> bool {
        *self.remote.entry(stamp.device).or_insert_with(|| is_remote(path))
    }

    fn enter(&mut self, folder: ToEnter, is_root: bool) {
        let ToEnter { path, kind, depth } = folder;
        let now = SystemTime::now();
        let role = if is_root { Role::Root } else { Role::Inside };
        let read = fs::metadata(&path).and_then(|metadata| {
            let stamp = Stamp::of(&metadata);
            let is_new = self.visited.insert(stamp.place());
            if is_new || is_root {
                let (rested, remote) = (has_rested(&stamp, now), self.is_remote(&path, stamp));
                let path = path.clone();
                let stamp = Some(stamp);
                self.folders.push(Folder { path, stamp, rested, role, remote });
            }
            if !is_new {
                return Ok(None);
            }
            fs::read_dir(&path).map(Some)
        });
        let entries = match read {
            Ok(None) => return,
            Ok(Some(entries)) => entries,
            Err(error) => {
                let is_missing =
                    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
                if is_root && is_missing {
                    let stamp = Stamp::at(&path);
                    let path_of = path.clone();
                    self.folders.push(Folder { path: path_of, stamp, rested: true, role, remote: false });
                    self.problem(path, NO_FOLDER.to_owned());
                } else if !is_missing {
                    self.problem(path, format!("this folder cannot be read: {error}"));
                }
                return;
            }
        };
        let names = Names::new(entries.flatten().map(|entry| entry.file_name()).collect());
        for name in names.iter() {
            self.entry(path.join(name), kind, depth, Some(&names));
        }
    }

    /// Notes the folders of a model that is one: what comes into them changes it.
    fn enter_model(&mut self, model: &Path) {
        for path in model_folder::folders(model) {
            if let Some(progress) = self.progress {
                progress.step();
            }
            if let Some(stamp) = Stamp::at(&path) {
                let (rested, remote) = (has_rested(&stamp, SystemTime::now()), self.is_remote(&path, stamp));
                self.folders.push(Folder { path, stamp: Some(stamp), rested, role: Role::Model, remote });
            }
        }
    }

    fn entry(&mut self, path: PathBuf, kind: Option<LibraryKind>, depth: usize, names: Option<&Names>) {
        if let Some(progress) = self.progress {
            progress.step();
        }
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // Most of what is no weights is beside some, and need not be asked for.
        let may_hold = is_weights(&path, kind) || may_carry(&path, kind);
        if hidden || (!may_hold && is_about_weights(&path)) {
            return;
        }
        let Ok(own) = fs::symlink_metadata(&path) else {
            return;
        };
        let is_link = own.is_symlink();
        // Through links: a collection is often a folder of links.
        let metadata = if is_link { fs::metadata(&path) } else { Ok(own) };
        match metadata {
            Err(error) if is_weights(&path, kind) || path.extension().is_none() => {
                self.problem(path.clone(), broken_link(&path, &error));
            }
            Ok(metadata) if metadata.is_dir() && is_model(&path) => {
                // First: what comes meanwhile is seen by the next scan.
                self.enter_model(&path);
                let seen = Seen::of(&metadata, &path);
                let beside = Beside::default();
                self.candidates.push(Candidate { path, seen, beside, is_folder: true, folder: kind });
            }
            Ok(metadata) if metadata.is_dir() && depth > 0 => {
                let folder = ToEnter { kind: inner_kind(kind, &path), path, depth: depth - 1 };
                if is_link { self.links.push(folder) } else { self.enter(folder, false) }
            }
            Ok(metadata) if metadata.is_file() && may_hold => {
                if is_link {
                    self.linked.extend(fs::canonicalize(&path));
                }
                self.file(path, &metadata, kind, names);
            }
            Ok(_) | Err(_) => (),
        }
    }

    fn file(
        &mut self,
        path: PathBuf,
        metadata: &Metadata,
        folder: Option<LibraryKind>,
        names: Option<&Names>,
    ) {
        let (seen, beside) = match names.map(|names| names.beside(&path)) {
            Some((has_config, beside)) => (Seen::listed(metadata, &path, has_config), beside),
            None => (Seen::of(metadata, &path), Beside::at(&path)),
        };
        self.candidates.push(Candidate { path, seen, beside, is_folder: false, folder });
    }

    fn problem(&mut self, path: PathBuf, reason: String) {
        let seen = Seen::at(&path);
        let loose = seen.is_none() && path.is_symlink();
        self.problems.push(Problem { path, reason, class: Class::Model, seen, young: false, loose });
    }
}

/// Whether a file of this name may hold weights. Outside A1111's folders only the form that holds nothing else is of
/// interest; a .bin may be anything.
fn is_weights(path: &Path, folder: Option<LibraryKind>) -> bool {
    let extension = extension(path);
    extension == "safetensors" || (folder.is_some() && OTHER_FORMS.contains(&extension.as_str()))
}

/// Whether this is surely a file, and none of weights.
fn is_about_weights(path: &Path) -> bool {
    matches!(extension(path).as_str(), "json" | "info" | "png" | "jpg" | "jpeg" | "webp" | "yaml" | "txt")
}

fn broken_link(path: &Path, error: &io::Error) -> String {
    let target = fs::read_link(path).unwrap_or_default();
    let target = target.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("is a link to {target}, which is not there; put the file there, or remove the link")
        }
        _ => format!("is a link to {target}, which cannot be followed: {error}"),
    }
}

fn has_rested(folder: &Stamp, now: SystemTime) -> bool {
    let now_ns = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let changed_ns = u128::try_from(folder.modified_ns.max(folder.changed_ns)).unwrap_or_default();
    changed_ns + REST.as_nanos() < now_ns
}
