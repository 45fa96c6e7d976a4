//! One walk over the models folders: which files are there. None is opened.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use latentd_client::protocol::LibraryKind;

use super::judge::Candidate;
use super::places::{UNREAD, extension, folder_kind};
use super::snapshot::{Folder, Problem};
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

/// What was found.
#[derive(Default)]
pub(super) struct Walk {
    pub candidates: Vec<Candidate>,
    pub problems: Vec<Problem>,
    pub folders: Vec<Folder>,
    pub linked: Vec<PathBuf>,
    /// Device and inode of folders that were entered: links may lead in circles.
    visited: HashSet<(u64, u64)>,
    /// Links to folders, entered last: what they lead to may have a place of its own.
    links: Vec<ToEnter>,
}

/// A folder to look into.
struct ToEnter {
    path: PathBuf,
    /// The kind it stands for.
    kind: Option<LibraryKind>,
    depth: usize,
}

/// Walks the models folders.
pub(super) fn walk(folders: &[PathBuf]) -> Walk {
    let mut walk = Walk::default();
    for folder in folders {
        walk.enter(ToEnter { path: folder.clone(), kind: None, depth: DEPTH }, true);
    }
    // Links found behind links come behind them.
    while !walk.links.is_empty() {
        for link in std::mem::take(&mut walk.links) {
            walk.enter(link, false);
        }
    }
    walk
}

/// The one file as the walk would find it: nothing if it would be passed by.
pub(super) fn look_at(path: &Path, folder: Option<LibraryKind>) -> Option<Result<Candidate, Box<Problem>>> {
    let mut walk = Walk::default();
    walk.entry(path.to_owned(), folder, 0);
    walk.candidates.pop().map(Ok).or_else(|| walk.problems.pop().map(Box::new).map(Err))
}

impl Walk {
    fn enter(&mut self, folder: ToEnter, is_root: bool) {
        let ToEnter { path, kind, depth } = folder;
        let now = SystemTime::now();
        let read = fs::metadata(&path).and_then(|metadata| {
            let stamp = Stamp::of(&metadata);
            let is_new = self.visited.insert(stamp.place());
            if is_new || is_root {
                let rested = has_rested(&stamp, now);
                self.folders.push(Folder { path: path.clone(), stamp: Some(stamp), rested, is_root });
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
                    self.folders.push(Folder { path: path.clone(), stamp, rested: true, is_root });
                    self.problem(path, NO_FOLDER.to_owned());
                } else if !is_missing {
                    self.problem(path, format!("this folder cannot be read: {error}"));
                }
                return;
            }
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            self.entry(path, kind, depth);
        }
    }

    fn entry(&mut self, path: PathBuf, kind: Option<LibraryKind>, depth: usize) {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
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
            Ok(metadata) if metadata.is_dir() && depth > 0 => {
                let kind = kind.or_else(|| folder_kind(&path));
                let folder = ToEnter { path, kind, depth: depth - 1 };
                if is_link { self.links.push(folder) } else { self.enter(folder, false) }
            }
            Ok(metadata) if metadata.is_file() && is_weights(&path, kind) => {
                if is_link {
                    self.linked.extend(fs::canonicalize(&path));
                }
                self.file(path, &metadata, kind);
            }
            Ok(_) | Err(_) => (),
        }
    }

    fn file(&mut self, path: PathBuf, metadata: &Metadata, folder: Option<LibraryKind>) {
        let seen = Seen::of(metadata, &path);
        self.candidates.push(Candidate { path, seen, folder });
    }

    fn problem(&mut self, path: PathBuf, reason: String) {
        let seen = Seen::at(&path);
        self.problems.push(Problem { path, reason, class: Class::Model, seen });
    }
}

/// Whether a file of this name may hold weights. Outside A1111's folders only the form that is read is of interest; a .bin
/// may be anything.
fn is_weights(path: &Path, folder: Option<LibraryKind>) -> bool {
    let extension = extension(path);
    extension == "safetensors" || (folder.is_some() && UNREAD.contains(&extension.as_str()))
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
