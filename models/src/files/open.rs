//! Opens a weight file, or a folder of them, by what is in it.

use std::fs::File;
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
    layout::recognised(tensors.with_scales())
}

/// The same of a file's bytes in memory, with the same checks; errors call it `name`.
pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Tensors> {
    layout::recognised(read(FileBytes::Held { name: name.into(), bytes })?.with_scales())
}

/// One file, with the names it has.
fn open_single(file: &File, path: &Path) -> Result<Tensors> {
    read(FileBytes::Mapped(MappedFile::map(file, path)?))
}

/// Told by the first bytes.
fn read(file: FileBytes) -> Result<Tensors> {
    if gguf::is_gguf(file.bytes()) {
        return gguf::read(file);
    }
    match torch::age(file.bytes()) {
        Some(age) => torch::read(file, age),
        None => safetensors::read(file),
    }
}
