//! Opens a weight file, or a folder of them, by what is in it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::bytes::FileBytes;
use super::mapped::{MappedFile, open_without_waiting};
use super::tensors::Tensors;
use super::{folder, gguf, layout, safetensors, torch};
use crate::{Error, Result};

/// Opens a weight file, or a folder as diffusers saves a model, and checks headers; no tensor is read. Networks of Stable
/// Diffusion are asked for by their names in the LDM layout, whatever the file calls them.
pub fn open(path: &Path) -> Result<Tensors> {
    // Not blocking: a named pipe is refused instead of waited for.
    let file = open_without_waiting(path).map_err(|error| Error::unread(path, error.to_string()))?;
    open_file(&file, path)
}

/// As [`open`] of a file or folder that is open already, whatever stands at its path by now. Errors call it `path`.
pub fn open_file(file: &File, path: &Path) -> Result<Tensors> {
    let is_folder = file.metadata().is_ok_and(|found| found.is_dir());
    let tensors = if is_folder { folder::read(file, path, open_single)? } else { open_single(file, path)? };
    Ok(layout::recognised(tensors))
}

/// The same of a file's bytes in memory, with the same checks; errors call it `name`.
pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Tensors> {
    let name = name.into();
    let tensors = match torch::age(&bytes) {
        Some(age) => torch::from_bytes(&name, &bytes, age)?,
        None => read(FileBytes::Held { name, bytes })?,
    };
    Ok(layout::recognised(tensors))
}

/// One file, with the names it has.
fn open_single(file: &File, path: &Path) -> Result<Tensors> {
    match torch::age(&head(file)) {
        Some(age) => torch::read(file, path, age),
        None => read(FileBytes::Mapped(MappedFile::map(file, path)?)),
    }
}

/// The first bytes of a regular file, as far as it can be read; what is wrong with others is told by who reads them.
fn head(file: &File) -> Vec<u8> {
    let mut head = vec![0; torch::HEAD];
    let is_file = file.metadata().is_ok_and(|info| info.is_file());
    let length = if is_file { file.read_at(&mut head, 0).unwrap_or(0) } else { 0 };
    head.truncate(length);
    head
}

/// Of a file that is mapped or in memory, told by the first bytes.
fn read(file: FileBytes) -> Result<Tensors> {
    if gguf::is_gguf(file.bytes()) { gguf::read(file) } else { safetensors::read(file) }
}
