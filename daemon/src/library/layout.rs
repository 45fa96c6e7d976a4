//! A1111's own folders among those of the settings: of its root only what holds models is looked at, and what it keeps
//! beside its models folder is found.

use std::fs;
use std::path::{Path, PathBuf};

use latentd_client::protocol::LibraryKind;

use super::places::{Root, folder_kind};

const MODELS: &str = "models";
const EMBEDDINGS: &str = "embeddings";
const EXTENSIONS: &str = "extensions";

/// What to walk for a folder of the settings: itself, and in A1111's layout what belongs to it.
pub(super) fn parts(root: &Root) -> Vec<Root> {
    let path = &root.path;
    if root.kind.is_some() {
        return vec![root.clone()];
    }
    let models = path.join(MODELS);
    let embeddings = path.join(EMBEDDINGS);
    let is_own_root = models.is_dir()
        && (embeddings.is_dir() || has_kinds(&models))
        // Whoever has models beside a folder of that name means those too.
        && kinds_in(path).all(|kind| kind == LibraryKind::Embedding);
    if is_own_root {
        let extensions = folders_in(&path.join(EXTENSIONS)).filter_map(|extension| {
            let path = extension.join(MODELS);
            path.is_dir().then(|| Root { path, kind: folder_kind(&extension) })
        });
        let mut parts = vec![Root::of_models(models)];
        parts.extend(embeddings_at(embeddings));
        parts.extend(extensions);
        return parts;
    }
    let is_models = path.file_name().is_some_and(|name| name == MODELS) && has_kinds(path);
    let beside =
        path.parent().filter(|_| is_models).and_then(|parent| embeddings_at(parent.join(EMBEDDINGS)));
    [root.clone()].into_iter().chain(beside).collect()
}

fn embeddings_at(path: PathBuf) -> Option<Root> {
    path.is_dir().then_some(Root { path, kind: Some(LibraryKind::Embedding) })
}

fn has_kinds(folder: &Path) -> bool {
    kinds_in(folder).next().is_some()
}

/// The kinds that folders in a folder stand for.
fn kinds_in(folder: &Path) -> impl Iterator<Item = LibraryKind> {
    folders_in(folder).filter_map(|folder| folder_kind(&folder))
}

/// The folders in a folder, sorted.
fn folders_in(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a1111s_own_root_is_told_from_other_folders() {
        type Part<'a> = (&'a str, Option<LibraryKind>);
        let rows: [(&[&str], &str, &[Part<'_>]); 7] = [
            (&["Lora"], "", &[("", None)]),
            (&["models/Lora", "outputs", "venv/models"], "", &[("models", None)]),
            (
                &[
                    "models/VAE",
                    "embeddings",
                    "extensions/sd-webui-controlnet/models",
                    "extensions/other/models",
                ],
                "",
                &[
                    ("models", None),
                    ("embeddings", Some(LibraryKind::Embedding)),
                    ("extensions/other/models", None),
                    ("extensions/sd-webui-controlnet/models", Some(LibraryKind::Controlnet)),
                ],
            ),
            (&["models/x", "Lora"], "", &[("", None)]),
            (&["models/Lora", "Lora"], "", &[("", None)]),
            (
                &["models/Lora", "embeddings"],
                "models",
                &[("models", None), ("embeddings", Some(LibraryKind::Embedding))],
            ),
            (&["models/x", "embeddings"], "models", &[("models", None)]),
        ];
        for (folders, given, expected) in rows {
            let folder = tempfile::tempdir().expect("a folder");
            for path in folders {
                fs::create_dir_all(folder.path().join(path)).expect("made");
            }
            let at = |path: &str| {
                if path.is_empty() { folder.path().to_owned() } else { folder.path().join(path) }
            };
            let found = parts(&Root::of_models(at(given)));
            let expected: Vec<_> =
                expected.iter().map(|(path, kind)| Root { path: at(path), kind: *kind }).collect();
            assert_eq!(found, expected, "{folders:?} {given}");
        }
        let kind = Some(LibraryKind::Lora);
        let one = Root { path: "/none".into(), kind };
        assert_eq!(parts(&one), [one]);
    }
}
