//! PyTorch's own files (`.ckpt`, `.pt`, `.pth`, `.bin`) of every age, read as data: the ZIP archive that it writes since
//! 1.6, the stream of pickles before that, and the tar of 2016. `pytorch-reader` reads them, which knows how tensors,
//! modules and dictionaries are rebuilt and keeps of everything else its name; nothing in a file is ever executed.
//! Before it sees a file, what is here walks each pickle without building anything and holds it against what real files
//! are like ([`pickle`]): a hostile one is refused in our own words and costs next to nothing.
//!
//! Tensors are named by their path: `{"a": {"b": [t]}}` has `a.b.0`. So
//! - a checkpoint's tensors have their names without `state_dict.` ([`names`]);
//! - a textual inversion as A1111 writes it has `string_to_param.*` (`*` is its name, whatever the file's), and in the
//!   metadata `name`, `step`, `sd_checkpoint`, `sd_checkpoint_name`, `string_to_token.*`;
//! - a hypernetwork has `320.0.linear.0.weight` for the keys and `320.1.linear.0.weight` for the values of width 320, and
//!   so on for each width, and in the metadata `layer_structure` ("[1, 2, 1]"), `activation_func`, `name`, `step`;
//! - a module that was saved whole has the names of its `state_dict()`.

mod archive;
mod names;
mod pickle;
mod refusal;
mod stream;
mod tar;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use pytorch_reader::{DType, PickleError, PytorchError, PytorchReader, Tensor};

use super::container::{Container, ElementType, Entry};
use super::header::MOST_TENSORS;
use super::tensors::Tensors;
use crate::{Error, Result};
use refusal::unsound;

/// What tensors may take beyond the file's length, in bytes: a view can repeat the few elements that its storage has.
const SLACK: u64 = 64 << 20;

/// Bytes from the beginning by which a file is told.
pub(super) const HEAD: usize = 512;

/// The containers that torch has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// 1.6 and later.
    Zip,
    /// 0.1.10 to 1.5, and later ones when asked.
    Stream,
    /// Before.
    Tar,
}

/// Whether a file that begins so is torch's, or may be: other archives are ZIP too.
pub(super) fn age(head: &[u8]) -> Option<Age> {
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        Some(Age::Zip)
    } else if head.get(257..262) == Some(b"ustar") {
        Some(Age::Tar)
    } else {
        stream::begins(head).then_some(Age::Stream)
    }
}

struct Torch {
    file: File,
    path: PathBuf,
    /// When it was opened.
    length: u64,
    tensors: Vec<Tensor>,
    metadata: BTreeMap<String, String>,
}

/// Reads what a file of this age says of its tensors.
pub(super) fn read(file: &File, path: &Path, age: Age) -> Result<Tensors> {
    let unread = |error: io::Error| Error::unread(path, error.to_string());
    let file = file.try_clone().map_err(unread)?;
    let length = file.metadata().map_err(unread)?.len();
    let checked = match age {
        Age::Zip => archive::check(&file, length),
        Age::Stream => stream::check(&file, length),
        Age::Tar => tar::check(&file, length),
    };
    checked.map_err(|refusal| refusal.of(path))?;

    let own_path = path_of(&file, path)?;
    let reader = PytorchReader::new(&own_path).map_err(|error| explain(path, error))?;
    let root = PytorchReader::read_pickle_data(&own_path, None).map_err(|error| explain(path, error))?;
    names::check(&root).map_err(|reason| Error::file(path, reason))?;
    let named = names::unwrapped(reader.into_tensors());
    if named.is_empty() {
        return Err(Error::file(path, "is a PyTorch file without tensors; it is no model"));
    }
    if named.len() > MOST_TENSORS {
        let reason = format!("has more than the {MOST_TENSORS} tensors that are believed; it is no model");
        return Err(Error::file(path, reason));
    }
    let mut entries = BTreeMap::new();
    let mut tensors = vec![];
    for (name, tensor) in named {
        let bytes = tensor.byte_len() as u64;
        if bytes > length.saturating_add(SLACK) {
            let reason =
                format!("tensor {name} would take {bytes} bytes of a file of {length}; it is no model");
            return Err(Error::file(path, reason));
        }
        let shape = tensor.shape().to_vec();
        entries.insert(name, Entry { shape, dtype: element_type(tensor.dtype()), place: tensors.len() });
        tensors.push(tensor);
    }
    let metadata = names::metadata(root);
    let torch = Torch { file, path: path.to_owned(), length, tensors, metadata };
    torch.check()?;
    Ok(Tensors::new(Box::new(torch), entries))
}

/// As [`read`] of bytes in memory, which become a file without a name there.
pub(super) fn from_bytes(name: &Path, bytes: &[u8], age: Age) -> Result<Tensors> {
    let unread = |error: io::Error| Error::unread(name, error.to_string());
    let file = rustix::fs::memfd_create("weights", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|error| unread(error.into()))?;
    let file = File::from(file);
    file.write_all_at(bytes, 0).map_err(unread)?;
    read(&file, name, age)
}

/// A path that opens this very file, whatever stands at its own by now.
fn path_of(file: &File, path: &Path) -> Result<PathBuf> {
    let unread = |error: io::Error| Error::unread(path, error.to_string());
    let this = file.metadata().map_err(unread)?;
    let is_this = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (this.dev(), this.ino()))
    };
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    [by_descriptor, path.to_owned()].into_iter().find(|path| is_this(path)).ok_or_else(|| {
        Error::unread(
            path,
            "was replaced while it was opened, or /proc, where it is opened, is not there; try again",
        )
    })
}

impl Container for Torch {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        "PyTorch"
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn read(&self, place: usize) -> Result<Cow<'_, [u8]>> {
        let outside = || Error::file(&self.path, "a tensor lies outside the file");
        let tensor = self.tensors.get(place).ok_or_else(outside)?;
        tensor.read().map(Cow::Owned).map_err(|error| {
            // What was there when the file was opened is not the file's fault.
            self.check().err().unwrap_or_else(|| of_io(&self.path, &error))
        })
    }

    fn let_go(&self, _place: usize) {
        // Nothing is kept.
    }

    fn check(&self) -> Result<()> {
        let length =
            self.file.metadata().map_err(|error| Error::unread(&self.path, error.to_string()))?.len();
        if length < self.length {
            return Err(Error::unread(
                &self.path,
                "was cut off by another program while it was read; try again",
            ));
        }
        Ok(())
    }
}

fn element_type(dtype: DType) -> ElementType {
    match dtype {
        DType::F64 => ElementType::F64,
        DType::F32 => ElementType::F32,
        DType::F16 => ElementType::F16,
        DType::BF16 => ElementType::Bf16,
        DType::I64 => ElementType::I64,
        DType::I32 => ElementType::I32,
        DType::I16 => ElementType::I16,
        DType::I8 => ElementType::I8,
        DType::U8 => ElementType::U8,
        DType::Bool => ElementType::Bool,
        DType::U64 | DType::U32 | DType::U16 => ElementType::Other,
    }
}

fn of_io(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => {
            Error::file(path, unsound(error))
        }
        _ => Error::unread(path, error.to_string()),
    }
}

/// Says what is wrong in words that tell a user what to do.
fn explain(path: &Path, error: PytorchError) -> Error {
    let reason = match error {
        PytorchError::Io(error) | PytorchError::Tar(error) | PytorchError::Pickle(PickleError::Io(error)) => {
            return of_io(path, &error);
        }
        PytorchError::Pickle(PickleError::UnsupportedType(name)) => format!(
            "holds tensors as {name}, which is not read from PyTorch files: sparse, quantised, complex and 8-bit ones \
             are not; use a version in f32, f16 or bf16, or a .safetensors file"
        ),
        PytorchError::InvalidFormat(reason) if reason.contains("ig-endian") => {
            "was written on a big-endian machine, which is not read; save it again on another one".to_owned()
        }
        PytorchError::InvalidFormat(reason) if reason.contains("Expected a dictionary") => {
            format!("holds no named tensors ({reason}); it is no model")
        }
        // What stands for a class and its source, which only PyTorch's old format writes.
        PytorchError::Pickle(PickleError::InvalidData(reason))
            if reason.starts_with("storage persistent id has 4") =>
        {
            "was saved as a whole module by an old PyTorch, which is not read; save its state_dict() instead"
                .to_owned()
        }
        other => unsound(&other),
    };
    Error::file(path, reason)
}
