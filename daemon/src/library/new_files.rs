//! Files that the daemon itself puts into models folders: where they belong, and that they are there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use latentd_client::protocol::LibraryKind;

use super::item::Item;
use super::judge::{Verdict, judge};
use super::layout::parts;
use super::places::{Root, folder_kind, folder_of, outermost_kind, root_of};
use super::{Library, NO_FOLDER};
use crate::contain::contain;
use crate::error::{Class, Error, Result};

impl Library {
    /// Where a new file of a kind belongs: the folder for it in the first models folder, be it there or not.
    pub(crate) fn folder_for(&self, kind: LibraryKind) -> Result<PathBuf> {
        let holds = |root: &&Root| root.kind.is_none_or(|of| of == kind);
        let Some(root) = self.roots.iter().find(holds).cloned() else {
            let text = "dir: there is no models folder; give one, or start the daemon with --models-dir";
            return Err(Error::invalid(text));
        };
        let (path, asked) = (root.path.clone(), root.clone());
        self.askers.ask(&root, move |_| folder_in(&asked, kind)).unwrap_or_else(|| {
            let text = format!("dir: {} does not answer; give another folder", path.display());
            Err(Error::new(Class::Busy, text))
        })
    }

    /// The file that is known at this path.
    pub(crate) fn at(&self, path: &Path) -> Option<Item> {
        self.known_by_now().entries.iter().find(|item| item.path() == Some(path)).cloned()
    }

    /// What a file will be that is to lie at this path, by what is in it and where that is; `None` if nothing.
    pub(crate) fn would_be(&self, file: &File, path: &Path) -> Option<LibraryKind> {
        let folder = outermost_kind(&self.roots, path);
        let Verdict::Sound(kind, _) = judge(file, path, folder).0 else { return None };
        let has_marks = |kind: &LibraryKind| {
            [LibraryKind::Checkpoint, LibraryKind::Vae, LibraryKind::Lora].contains(kind)
        };
        kind.or(folder.filter(|folder| !has_marks(folder)))
    }

    /// A file was written there; what it is, if it lies in a models folder. Nobody has to wait until that is noticed.
    pub(crate) fn wrote(&self, path: &Path) -> Option<Item> {
        root_of(&self.roots, path)?;
        // As with a scan that fails.
        drop(contain(|| Ok(self.refresh(&[path.to_owned()]))));
        self.at(path)
    }
}

fn folder_in(root: &Root, kind: LibraryKind) -> Result<PathBuf> {
    if !root.path.is_dir() {
        return Err(Error::invalid(format!("dir: {} {NO_FOLDER}", root.path.display())));
    }
    if root.kind.is_some() {
        return Ok(root.path.clone());
    }
    let part = parts(root).into_iter().find(|part| part.kind.is_none());
    let folder = part.map_or_else(|| root.path.clone(), |part| part.path);
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_of_kind = |path: &PathBuf| folder_kind(path) == Some(kind) && path.is_dir();
    Ok(entries.filter(is_of_kind).min().unwrap_or_else(|| folder.join(folder_of(kind))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_checkpoint_belongs_where_others_are() {
        for (folders, expected) in [
            (&["Lora"][..], "Stable-diffusion"),
            (&["stable-DIFFUSION", "Lora"], "stable-DIFFUSION"),
            (&["models/Lora", "embeddings"], "models/Stable-diffusion"),
            (&["models/Stable-diffusion", "embeddings"], "models/Stable-diffusion"),
        ] {
            let root = tempfile::tempdir().expect("a folder");
            for folder in folders {
                fs::create_dir_all(root.path().join(folder)).expect("made");
            }
            let found = folder_in(&Root::of_models(root.path().to_owned()), LibraryKind::Checkpoint)
                .expect("a folder");
            assert_eq!(found, root.path().join(expected), "{folders:?}");
        }
        let root = tempfile::tempdir().expect("a folder");
        let of_kind = Root { path: root.path().to_owned(), kind: Some(LibraryKind::Checkpoint) };
        assert_eq!(folder_in(&of_kind, LibraryKind::Checkpoint).expect("a folder"), root.path());
        let none = folder_in(&Root::of_models(root.path().join("none")), LibraryKind::Checkpoint);
        assert!(none.is_err_and(|error| error.class == Class::InvalidParams));
    }
}
