//! Opens a weight file by what is in it.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::bytes::FileBytes;
use super::mapped::{MappedFile, open_without_waiting};
use super::tensors::Tensors;
use super::{safetensors, torch};
use crate::{Error, Result};

/// Opens a weight file and checks its header; no tensor is read.
pub fn open(path: &Path) -> Result<Tensors> {
    // Not blocking: a named pipe is refused instead of waited for.
    let file = open_without_waiting(path).map_err(|error| Error::unread(path, error.to_string()))?;
    open_file(&file, path)
}

/// As [`open`] of a file that is open already, whatever stands at its path by now. Errors call it `path`.
pub fn open_file(file: &File, path: &Path) -> Result<Tensors> {
    read(FileBytes::Mapped(MappedFile::map(file, path)?))
}

/// The same of a file's bytes in memory, with the same checks; errors call it `name`.
pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Tensors> {
    read(FileBytes::Held { name: name.into(), bytes })
}

fn read(file: FileBytes) -> Result<Tensors> {
    match torch::age(file.bytes()) {
        Some(age) => torch::read(file, age),
        None => safetensors::read(file),
    }
}
