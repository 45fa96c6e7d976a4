//! What a scan found, whether it is still so, and what changed from one to the next.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use latentd_client::protocol::{LibraryEvent, LibraryEventKind, LibraryProblem};

use super::item::{Item, Source};
use super::places::Root;
use super::stamp::{Seen, Stamp};
use crate::error::Class;

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// What can be used, by kind and name, then path.
    pub entries: Vec<Item>,
    /// Files and folders that cannot be used, by path.
    pub problems: Vec<Problem>,
    /// The folders that were read, and models folders that are not there.
    pub(super) folders: Vec<Folder>,
    /// Files that links lead to.
    pub(super) linked: Vec<PathBuf>,
    /// The folders of the settings, and where one is A1111's own those in it that hold models.
    pub(super) roots: Arc<[Root]>,
    /// The folders of the settings, each with what belongs to it; none before the first scan.
    pub(super) grounds: Arc<[Ground]>,
}

/// A folder of the settings, and what was looked at for it.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub root: Root,
    /// It, or folders in it, and one beside it.
    pub parts: Vec<Root>,
    /// Whether it did not answer; what was known of it before stays.
    pub silent: bool,
}

/// Something in the models folders that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub path: PathBuf,
    pub reason: String,
    /// Whether it is broken, or nothing that this version can do.
    pub class: Class,
    /// As it was looked at; `None` for what is not there.
    pub(super) seen: Option<Seen>,
    /// Whether it was written to a moment before, and may be whole soon.
    pub(super) young: bool,
    /// Whether it is a link that leads nowhere, to what may come.
    pub(super) loose: bool,
}

/// What a folder is among those of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// One of them.
    Root,
    /// One of them that is A1111's own root, of which only some folders are read.
    Around,
    /// In one of them, or what a link there leads to.
    Inside,
    /// A folder that is one model, or one in it: what is in it is no entry of its own.
    Model,
}

/// A folder that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    pub path: PathBuf,
    /// Before it was read; `None` if it is not there.
    pub stamp: Option<Stamp>,
    /// Whether it had rested: one that changed a moment before may change again and look the same.
    pub rested: bool,
    pub role: Role,
    /// Whether it is on another machine, or otherwise where changes are not told of.
    pub remote: bool,
}

impl Folder {
    /// Whether all that is in it counts.
    pub(super) fn is_read(&self) -> bool {
        self.role != Role::Around
    }

    /// Whether it is of a model's, and this lies in it.
    pub(super) fn is_models_and_holds(&self, path: &Path) -> bool {
        self.role == Role::Model && Some(self.path.as_path()) == path.parent()
    }

    /// Whether it is as it was when it was read.
    pub(super) fn is_same(&self) -> bool {
        if self.is_read() { Stamp::at(&self.path) == self.stamp } else { self.is_in_place() }
    }

    /// Whether it is the same one, whatever is in it.
    fn is_in_place(&self) -> bool {
        let place = |stamp: Option<Stamp>| stamp.map(|stamp| stamp.place());
        place(Stamp::at(&self.path)) == place(self.stamp)
    }
}

impl Problem {
    /// As it goes over the wire.
    pub(crate) fn to_wire(&self) -> LibraryProblem {
        LibraryProblem { path: self.path.display().to_string(), reason: self.reason.clone() }
    }
}

impl Snapshot {
    /// The entry of this very file.
    pub(super) fn entry_of(&self, path: &Path, seen: &Seen) -> Option<&Item> {
        let is = |source: &Source| {
            matches!(source, Source::File { path: at, seen: of }
                if of == seen && at.as_os_str() == path.as_os_str())
        };
        self.entries.iter().find(|item| is(&item.source))
    }

    /// The folder of the settings for which this was looked at; of several the innermost.
    pub(super) fn ground_of(&self, path: &Path) -> Option<&Ground> {
        let length = |ground: &Ground| {
            let folders =
                ground.parts.iter().chain([&ground.root]).filter(|folder| path.starts_with(&folder.path));
            folders.map(|folder| folder.path.as_os_str().len()).max()
        };
        let found = self.grounds.iter().filter_map(|ground| Some((length(ground)?, ground)));
        found.max_by_key(|(length, _)| *length).map(|(_, ground)| ground)
    }

    /// Whether this lies in a folder that did not answer.
    pub(super) fn is_silent(&self, path: &Path) -> bool {
        self.ground_of(path).is_some_and(|ground| ground.silent)
    }

    /// Whether any folder of the settings did not answer.
    pub(super) fn has_silent(&self) -> bool {
        self.grounds.iter().any(|ground| ground.silent)
    }

    /// The folder of the settings for which this was looked at, if it lies on another machine.
    pub(super) fn elsewhere(&self, path: &Path) -> Option<&Root> {
        let mut remote = self.folders.iter().filter(|folder| folder.remote);
        let is_there = remote.any(|folder| path.starts_with(&folder.path));
        if is_there { self.ground_of(path).map(|ground| &ground.root) } else { None }
    }

    /// Whether this can be looked at by anybody, who will not wait for another machine.
    pub(super) fn is_here(&self, path: &Path) -> bool {
        !self.is_silent(path) && self.elsewhere(path).is_none()
    }

    /// What may be whole soon, where it can be looked at.
    pub(super) fn young(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.young && !self.is_silent(&problem.path))
    }

    /// Whether the same files are there, whatever is in them. Asks for the state of folders, not of all files, and not for
    /// that of folders elsewhere.
    pub(super) fn has_its_files(&self) -> bool {
        let is_same = |folder: &Folder| folder.rested && folder.is_same();
        let is_here = |folder: &&Folder| !folder.remote && !self.is_silent(&folder.path);
        self.folders.iter().filter(is_here).all(is_same)
    }

    /// The same, and whether what cannot be used is still as it was.
    pub(super) fn is_current(&self) -> bool {
        let mut problems = self.problems.iter().filter(|problem| self.is_here(&problem.path));
        self.has_its_files() && problems.all(|problem| problem.seen == Seen::at(&problem.path))
    }

    /// Whether the models folders themselves are those that were scanned.
    pub(super) fn has_its_roots(&self) -> bool {
        // Those elsewhere are asked on other threads, and those that do not answer by whoever waits for them.
        let is_root = |folder: &&Folder| {
            matches!(folder.role, Role::Root | Role::Around)
                && !folder.remote
                && !self.is_silent(&folder.path)
        };
        self.folders.iter().filter(is_root).all(Folder::is_in_place)
    }

    /// Whether links in it lead nowhere, to what may come.
    pub(super) fn has_loose_ends(&self) -> bool {
        self.problems.iter().any(|problem| problem.loose && !self.is_silent(&problem.path))
    }
}

/// What changed from one scan to the next, if anything did.
pub(super) fn difference(before: &Snapshot, after: &Snapshot) -> Option<LibraryEvent> {
    let shown = |item: &Item| format!("{}/{}", item.kind, item.name);
    let (old, new) = (by_place(before), by_place(after));
    let mut event = LibraryEvent {
        kind: LibraryEventKind::Changed,
        added: Vec::new(),
        changed: Vec::new(),
        removed: Vec::new(),
    };
    for item in &after.entries {
        match old.get(&place(item)) {
            None => event.added.push(shown(item)),
            Some(old) if *old != item => event.changed.push(shown(item)),
            Some(_) => (),
        }
    }
    event.removed = before.entries.iter().filter(|item| !new.contains_key(&place(item))).map(shown).collect();
    let nothing = event.added.is_empty() && event.changed.is_empty() && event.removed.is_empty();
    (!nothing).then_some(event)
}

/// Where an entry is; what is built in is nowhere.
fn place(item: &Item) -> Option<&OsStr> {
    item.path().map(Path::as_os_str)
}

fn by_place(snapshot: &Snapshot) -> HashMap<Option<&OsStr>, &Item> {
    snapshot.entries.iter().map(|item| (place(item), item)).collect()
}
