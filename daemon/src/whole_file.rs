//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const PREFIX: &str = ".latentd-";
const SUFFIX: &str = ".part";

/// Writes a file under a temporary name beside `path`, flushes it to the disk, and renames it. What was at `path`
/// before stays until then, and stays if anything fails.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_parts(path, &[bytes])
}

/// As [`write`], of parts one after the other.
pub(crate) fn write_parts(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = folder_of(path);
    // A plain new file, not a private one: pictures get the rights the user's umask gives.
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    let (mut file, temporary) = builder.make_in(&folder, |path| File::create_new(path))?.into_parts();
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    drop(file);
    temporary.persist(path).map_err(|error| error.error)?;
    // Without this a power cut may forget the name; some file systems refuse it, and then it is as good as it gets.
    if let Ok(folder) = File::open(&folder) {
        folder.sync_all().ok();
    }
    Ok(())
}

/// Whether a file could be written beside `path`.
pub(crate) fn check_folder(path: &Path) -> io::Result<()> {
    tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(folder_of(path)).map(drop)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Removes what a process that was killed while it wrote left in a folder nobody else writes to.
pub(crate) fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// As [`write`], but into what already stands at `path` if that is no regular file: a pipe or a device.
pub(crate) fn write_to_target(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        Ok(found) if !found.is_file() => {
            let mut file = File::options().write(true).open(path)?;
            file.write_all(bytes)?;
            file.flush()
        }
        _ => write(path, bytes),
    }
}
