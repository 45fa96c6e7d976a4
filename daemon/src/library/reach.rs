//! What can be reached: folders that do not answer are left alone, and those elsewhere are asked on threads of their own,
//! so that neither who asks for a file nor who watches the folders hangs with one of them.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use latentd_client::protocol::LibraryKind;

use super::item::Item;
use super::lookup::names_in;
use super::pinned::{self, PinError, Pinned};
use super::places::{Root, places};
use super::snapshot::{Folder, Ground, Snapshot};
use super::stamp::Seen;
use super::walk::Progress;
use super::{Library, scan};
use crate::error::{Class, Error, Result};
use crate::schema::shorten;

impl Library {
    /// An error of what lies in a folder that does not answer.
    pub(super) fn check_answers(
        &self,
        snapshot: &Snapshot,
        kind: LibraryKind,
        name: &str,
        path: &Path,
    ) -> Result<()> {
        let ground = snapshot.ground_of(path);
        let is_silent = |ground: &&Ground| ground.silent || self.askers.is_silent(&ground.root.path);
        ground.filter(is_silent).map_or(Ok(()), |ground| Err(silent(kind, name, &ground.root)))
    }

    /// Opens what stands at an entry's path now, and says what it is.
    pub(super) fn open_file(&self, item: &Item, path: &Path) -> Result<(File, Seen), PinError> {
        let known = self.lock().snapshot.clone();
        let Some(known) = known else {
            return pinned::open(item, path);
        };
        self.check_answers(&known, item.kind, &item.name, path).map_err(PinError::Unusable)?;
        let Some(root) = known.elsewhere(path) else {
            return pinned::open(item, path);
        };
        let (item_of, path) = (item.clone(), path.to_owned());
        let opened = self.askers.ask(root, move |_| pinned::open(&item_of, &path));
        opened.unwrap_or_else(|| Err(PinError::Unusable(silent(item.kind, &item.name, root))))
    }

    /// Whether a file that is held is still what the entry says.
    pub(super) fn is_held(&self, pinned: &Pinned, item: &Item) -> bool {
        let known = self.lock().snapshot.clone();
        *pinned.item() == *item
            && known.map_or_else(|| item.is_unchanged(), |known| self.is_unchanged(&known, item))
    }

    /// Whether an entry's file is still the one that was looked at; not of one whose folder does not answer.
    pub(super) fn is_unchanged(&self, snapshot: &Snapshot, item: &Item) -> bool {
        let path = item.path();
        if path.is_some_and(|path| snapshot.is_silent(path)) {
            return false;
        }
        let Some(root) = path.and_then(|path| snapshot.elsewhere(path)) else {
            return item.is_unchanged();
        };
        let item = item.clone();
        self.askers.ask(root, move |_| item.is_unchanged()).unwrap_or(false)
    }

    /// What is known, with what is at these paths now; `None` if that is what is known.
    pub(super) fn refreshed(&self, before: &Arc<Snapshot>, paths: &[PathBuf]) -> Option<Arc<Snapshot>> {
        let paths = || paths.iter().filter(|path| !before.is_silent(path));
        let here: Vec<_> = paths().filter(|path| before.elsewhere(path).is_none()).cloned().collect();
        let mut after = scan::refreshed(before, &here, &self.index).map(Arc::new);
        for ground in &*before.grounds {
            let there: Vec<_> =
                paths().filter(|path| before.elsewhere(path) == Some(&ground.root)).cloned().collect();
            if !there.is_empty() {
                let known = Arc::clone(after.as_ref().unwrap_or(before));
                let index = Arc::clone(&self.index);
                let look = move |_: &Progress| scan::refreshed(&known, &there, &index);
                after = self.askers.ask(&ground.root, look).flatten().map(Arc::new).or(after);
            }
        }
        after
    }

    /// Where a file of this name has come to lie. What lies elsewhere is known from looks of its own; before the first of
    /// them nobody knows what does.
    pub(super) fn places(&self, snapshot: &Snapshot, kind: LibraryKind, wanted: &str) -> Vec<PathBuf> {
        if !snapshot.grounds.is_empty() {
            let is_here = |path: &Path| snapshot.is_here(path);
            return names_in(wanted).flat_map(|name| places(&snapshot.roots, kind, name, &is_here)).collect();
        }
        let found_in = |root: &Root| {
            let (root_of, wanted) = (root.clone(), wanted.to_owned());
            let look = move |_: &Progress| {
                let found = names_in(&wanted)
                    .flat_map(|name| places(std::slice::from_ref(&root_of), kind, name, &|_: &Path| true));
                found.collect::<Vec<_>>()
            };
            self.askers.ask(root, look).unwrap_or_default()
        };
        snapshot.roots.iter().flat_map(found_in).collect()
    }

    /// Whether the folders of another machine are others than is known; false of those that did not answer before.
    pub(super) fn is_other(&self, ground: &Ground, snapshot: &Snapshot) -> bool {
        let is_in = |folder: &&Folder| {
            folder.remote && snapshot.ground_of(&folder.path).is_some_and(|of| of.root == ground.root)
        };
        let folders: Vec<_> = snapshot.folders.iter().filter(is_in).cloned().collect();
        if folders.is_empty() || ground.silent {
            return false;
        }
        let is_other = move |progress: &Progress| {
            folders.iter().any(|folder| {
                progress.step();
                !folder.is_same()
            })
        };
        self.askers.ask(&ground.root, is_other).unwrap_or(true)
    }
}

/// What cannot be used while its folder does not answer.
fn silent(kind: LibraryKind, name: &str, root: &Root) -> Error {
    let text = format!(
        "{kind} '{}' cannot be used: the folder {} does not answer; see whether its disk or server is there",
        shorten(name),
        root.path.display()
    );
    Error::new(Class::Model, text)
}
