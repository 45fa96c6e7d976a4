//! A folder that is one model, held open: what is in it, whatever stands at its path by now.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use latentd_models::files::open_without_waiting;

/// Folders in it that belong to it, one in the other.
pub(super) const DEPTH: usize = 3;

/// Files that are looked at. One that diffusers saved has some twenty, sharded ones a few more.
const MOST_FILES: usize = 1024;

/// What makes a folder a model in diffusers' layout.
const MODEL_INDEX: &str = "model_index.json";

/// Whether a folder is one model.
pub(super) fn is_model(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(MODEL_INDEX)).is_ok()
}

/// Where the open folder is reached.
pub(super) fn path_of(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

/// The folder at `model` and those in it that belong to it, as far as one looks for files.
pub(super) fn folders(model: &Path) -> Vec<PathBuf> {
    let mut folders = vec![model.to_owned()];
    let mut level = 0..1;
    for _ in 0..DEPTH {
        let inner: Vec<_> =
            folders.get(level).into_iter().flatten().flat_map(|folder| folders_in(folder)).collect();
        level = folders.len()..folders.len() + inner.len();
        folders.extend(inner);
        if folders.len() > MOST_FILES {
            break;
        }
    }
    folders.truncate(MOST_FILES);
    folders
}

fn folders_in(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let shown = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    shown.map(|entry| entry.path()).filter(|path| path.is_dir())
}

/// Its files by the paths that they have in it, sorted. What begins with a dot is nobody's model.
pub(super) fn files(folder: &File) -> io::Result<Vec<(PathBuf, File)>> {
    let root = path_of(folder);
    let mut paths = Vec::new();
    collect(&root, DEPTH, &mut paths)?;
    paths.sort();
    let open = |path: PathBuf| {
        let file = open_without_waiting(&path)?;
        let inside = path.strip_prefix(&root).unwrap_or(&path).to_owned();
        Ok((inside, file))
    };
    paths.into_iter().map(open).collect()
}

fn collect(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // Through links, as those have who keep one copy of what several models share.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() && depth > 0 {
            collect(&path, depth - 1, paths)?;
        } else if metadata.is_file() {
            paths.push(path);
        }
        if paths.len() > MOST_FILES {
            return Err(io::Error::other(format!("holds more than {MOST_FILES} files")));
        }
    }
    Ok(())
}
