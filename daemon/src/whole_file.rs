//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a file under a temporary name beside `path`, flushes it to the disk, and renames it. What was at `path`
/// before stays until then, and stays if anything fails.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    // A plain new file, not a private one: pictures get the rights the user's umask gives.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".latentd-").suffix(".part");
    let (mut file, temporary) = builder.make_in(&folder, |path| File::create_new(path))?.into_parts();
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    temporary.persist(path).map_err(|error| error.error)?;
    // Without this a power cut may forget the name; some file systems refuse it, and then it is as good as it gets.
    if let Ok(folder) = File::open(&folder) {
        folder.sync_all().ok();
    }
    Ok(())
}

/// The same, but into what already stands at `path` if that is no regular file: a pipe or a device.
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
