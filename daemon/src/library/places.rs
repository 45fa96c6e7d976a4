//! A1111's folders: which kinds they stand for, and where a file of a kind would lie.

use std::fs;
use std::path::{Path, PathBuf};

use latentd_client::protocol::LibraryKind;

/// A1111's folders, for files whose content does not tell their kind.
const FOLDERS: [(&str, LibraryKind); 16] = [
    ("stable-diffusion", LibraryKind::Checkpoint),
    ("vae", LibraryKind::Vae),
    ("vae-approx", LibraryKind::Taesd),
    ("lora", LibraryKind::Lora),
    ("lycoris", LibraryKind::Lora),
    ("embeddings", LibraryKind::Embedding),
    ("hypernetworks", LibraryKind::Hypernetwork),
    ("controlnet", LibraryKind::Controlnet),
    ("esrgan", LibraryKind::Upscaler),
    ("realesrgan", LibraryKind::Upscaler),
    ("swinir", LibraryKind::Upscaler),
    ("dat", LibraryKind::Upscaler),
    ("hat", LibraryKind::Upscaler),
    ("ldsr", LibraryKind::Upscaler),
    ("adetailer", LibraryKind::Detector),
    ("faces", LibraryKind::Face),
];

/// Weights in forms that are not read yet.
pub(super) const UNREAD: [&str; 6] = ["ckpt", "pt", "pth", "bin", "gguf", "onnx"];

/// The kind that a folder of this name stands for.
pub(super) fn folder_kind(folder: &Path) -> Option<LibraryKind> {
    let name = folder.file_name()?.to_str()?.to_lowercase();
    FOLDERS.iter().find(|(each, _)| *each == name).map(|(_, kind)| *kind)
}

/// The extension of a file's name, in lower case.
pub(super) fn extension(path: &Path) -> String {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase()
}

/// Whether a file that cannot be read might be meant for this kind: it lies in no folder for anything else.
pub(super) fn may_be(kind: LibraryKind, folders: &[PathBuf], path: &Path) -> bool {
    outermost_kind(folders, path).is_none_or(|folder| folder == kind)
}

/// The kind of the outermost of A1111's folders that the file lies in: as in the walk, that one decides.
pub(super) fn outermost_kind(folders: &[PathBuf], path: &Path) -> Option<LibraryKind> {
    outermost_folder(folders, path).and_then(folder_kind)
}

/// That folder.
pub(super) fn outermost_folder<'a>(folders: &[PathBuf], path: &'a Path) -> Option<&'a Path> {
    let root = folders.iter().find(|folder| path.starts_with(folder));
    let inside =
        path.ancestors().skip(1).take_while(|folder| root.is_none_or(|root| *folder != root.as_path()));
    inside.filter(|folder| folder_kind(folder).is_some()).last()
}

/// Where a file of this kind and name would lie: in the models folders themselves, or in those of its kind in them. A
/// name may be a path inside a models folder. Only folders are read here, one each, however many files there are.
pub(super) fn places(folders: &[PathBuf], kind: LibraryKind, wanted: &str) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let mut add = |base: &Path| {
        let base = base.join(wanted);
        let with = |extension: &str| {
            let mut path = base.clone().into_os_string();
            path.push(".");
            path.push(extension);
            PathBuf::from(path)
        };
        let extensions = ["safetensors"].iter().chain(&UNREAD);
        places.extend(extensions.map(|extension| with(extension)).chain([base.clone()]));
    };
    for folder in folders {
        add(folder);
        let children = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        children.filter(|child| folder_kind(child) == Some(kind)).for_each(|child| add(&child));
    }
    places.retain(|path| fs::metadata(path).is_ok_and(|found| found.is_file()));
    places
}
