//! A `.safetensors` file: header checked against the file's size, tensors as slices of its bytes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use latentd_kernels::{WeightDtype, Weights};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::bytes::FileBytes;
use super::mapped::MappedFile;
use crate::{Error, Result};

/// An open `.safetensors` file. Nothing is read of a tensor until it is asked for.
pub struct SafeTensors {
    file: FileBytes,
    tensors: BTreeMap<String, TensorInfo>,
    data_start: usize,
    metadata: BTreeMap<String, String>,
}

impl SafeTensors {
    /// Maps the file and checks its header: length within the file, valid JSON, every tensor's bytes equal to
    /// its shape times its type, no overlap, no gap, no byte too many or too few.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(FileBytes::Mapped(MappedFile::open(path)?))
    }

    /// The same of a file's bytes in memory, with the same checks; errors call it `name`.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self> {
        Self::read(FileBytes::Held { name: name.into(), bytes })
    }

    fn read(file: FileBytes) -> Result<Self> {
        let length = file.bytes().len();
        if length < 8 {
            let reason = format!("is {length} bytes long, too short for safetensors");
            return Err(Error::file(file.path(), reason));
        }
        let (header, parsed) =
            safetensors::SafeTensors::read_metadata(file.bytes()).map_err(|error| explain(&file, &error))?;
        let tensors = own_tensors(&parsed);
        let metadata = parsed.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        file.check()?;
        Ok(Self { file, tensors, data_start: header + 8, metadata })
    }

    /// The file, or the name that was given to its bytes.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// An error if the file was cut off by someone else while its tensors were read: to be asked after the last.
    pub fn check_intact(&self) -> Result<()> {
        self.file.check()
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether any tensor's name begins so.
    pub fn has_under(&self, prefix: &str) -> bool {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.tensors.range::<str, _>(from).next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|info| info.shape.as_slice())
    }

    /// The element type of a tensor as the file names it.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name).map(|info| info.dtype)
    }

    /// A tensor's elements; an error if its type is not one that weights have.
    pub fn weights(&self, name: &str) -> Result<Option<Weights<'_>>> {
        let Some(info) = self.tensors.get(name) else {
            return Ok(None);
        };
        let dtype = match info.dtype {
            Dtype::F32 => WeightDtype::F32,
            Dtype::F16 => WeightDtype::F16,
            Dtype::BF16 => WeightDtype::Bf16,
            other => {
                let reason = format!("tensor {name} is of type {other}; f32, f16 and bf16 are supported");
                return Err(Error::model(self.file.path(), reason));
            }
        };
        let (start, end) = info.data_offsets;
        let range = self.data_start + start..self.data_start + end;
        let bytes =
            self.file.bytes().get(range).ok_or_else(|| {
                Error::file(self.file.path(), format!("tensor {name} lies outside the file"))
            })?;
        Ok(Some(Weights { dtype, bytes }))
    }

    /// A tensor's elements will not be needed again soon: only what was made of them should take memory.
    pub(crate) fn let_go(&self, name: &str) {
        if let Some(info) = self.tensors.get(name) {
            let (start, end) = info.data_offsets;
            self.file.let_go(self.data_start + start..self.data_start + end);
        }
    }

    /// The file's `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

fn own_tensors(parsed: &Metadata) -> BTreeMap<String, TensorInfo> {
    parsed.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect()
}

/// Says what is wrong in words that tell a user what to do.
fn explain(file: &FileBytes, error: &SafeTensorError) -> Error {
    let bytes = file.bytes();
    let pickle = bytes.starts_with(b"PK\x03\x04") || (bytes[0] == 0x80 && bytes[1] <= 5);
    let reason = if pickle {
        "is a pickled PyTorch file with another name, not safetensors; it was not opened, since pickles can hold \
         code"
            .to_owned()
    } else {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
        match error {
            SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooLarge => {
                format!(
                    "is not safetensors or is cut off: header length {length}, file {} bytes",
                    bytes.len()
                )
            }
            SafeTensorError::MetadataIncompleteBuffer => {
                "is cut off or padded: its tensors do not fill it exactly; copy or download it again"
                    .to_owned()
            }
            SafeTensorError::InvalidOffset(name) => format!("tensor {name} overlaps another or leaves a gap"),
            SafeTensorError::TensorInvalidInfo => "a tensor's bytes do not fit its shape and type".to_owned(),
            other => format!("is not sound safetensors: {other}"),
        }
    };
    Error::file(file.path(), reason)
}
