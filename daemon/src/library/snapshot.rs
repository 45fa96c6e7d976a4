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
    /// Those folders of the settings that did not answer; what was known of them before stays.
    pub(super) silent: Vec<PathBuf>,
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

    /// Whether this lies in a folder that did not answer.
    pub(super) fn is_silent(&self, path: &Path) -> bool {
        self.silent.iter().any(|folder| path.starts_with(folder))
    }

    /// Whether something is in it that may be whole soon.
    pub(super) fn has_young(&self) -> bool {
        self.problems.iter().any(|problem| problem.young)
    }

    /// Whether the same files are there, whatever is in them. Asks for the state of folders, not of all files.
    pub(super) fn has_its_files(&self) -> bool {
        let is_same = |folder: &Folder| folder.rested && folder.is_same();
        self.folders.iter().filter(|folder| !self.is_silent(&folder.path)).all(is_same)
    }

    /// The same, and whether what cannot be used is still as it was.
    pub(super) fn is_current(&self) -> bool {
        self.has_its_files() && self.problems.iter().all(|problem| problem.seen == Seen::at(&problem.path))
    }

    /// Whether the models folders themselves are those that were scanned.
    pub(super) fn has_its_roots(&self) -> bool {
        // Those elsewhere are asked on other threads.
        let mut roots = self.folders.iter().filter(|folder| folder.role != Role::Inside && !folder.remote);
        roots.all(Folder::is_in_place)
    }

    /// Whether links in it lead nowhere, to what may come.
    pub(super) fn has_loose_ends(&self) -> bool {
        self.problems.iter().any(|problem| problem.seen.is_none() && problem.path.is_symlink())
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
