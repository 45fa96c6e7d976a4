//! A `.safetensors` file: header checked against the file's size, tensors as slices of its bytes.

use std::collections::BTreeMap;

use safetensors::SafeTensorError;
use safetensors::tensor::Dtype;

use super::bytes::FileBytes;
use super::container::{ElementType, Entry};
use super::slices::Slices;
use super::tensors::Tensors;
use super::{header, mistaken};
use crate::{Error, Result};

/// Checks the header: length within the file, valid JSON, every tensor's bytes equal to its shape times its type, no
/// overlap, no gap, no byte too many or too few.
pub(super) fn read(file: FileBytes) -> Result<Tensors> {
    check_bounds(&file)?;
    let (header, parsed) =
        safetensors::SafeTensors::read_metadata(file.bytes()).map_err(|error| explain(&file, &error))?;
    let data = header + 8;
    let mut places = vec![];
    let mut entries = BTreeMap::new();
    for (name, info) in parsed.tensors() {
        let (start, end) = info.data_offsets;
        let entry = Entry { shape: info.shape.clone(), dtype: element_type(info.dtype), place: places.len() };
        places.push(data + start..data + end);
        entries.insert(name, entry);
    }
    let metadata = parsed.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    file.check()?;
    Ok(Tensors::new(Box::new(Slices { format: "safetensors", file, places, metadata }), entries))
}

fn element_type(dtype: Dtype) -> ElementType {
    match dtype {
        Dtype::F32 => ElementType::F32,
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::Bf16,
        Dtype::F64 => ElementType::F64,
        Dtype::F8_E4M3 => ElementType::F8E4M3,
        Dtype::F8_E5M2 => ElementType::F8E5M2,
        Dtype::I64 => ElementType::I64,
        Dtype::I32 => ElementType::I32,
        Dtype::I16 => ElementType::I16,
        Dtype::I8 => ElementType::I8,
        Dtype::U8 => ElementType::U8,
        Dtype::BOOL => ElementType::Bool,
        _ => ElementType::Other,
    }
}

/// Holds the header's length against the file, and what stands in it against what is believed, before memory is taken.
fn check_bounds(file: &FileBytes) -> Result<()> {
    let bytes = file.bytes();
    let refuse = |reason: String| {
        let reason = mistaken::for_weights(bytes).unwrap_or(reason);
        Err(Error::file(file.path(), reason))
    };
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return refuse(format!("is {} bytes long, too short for safetensors", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let Some(header) = usize::try_from(length).ok().and_then(|length| rest.get(..length)) else {
        return refuse(format!(
            "is not safetensors or is cut off: header length {length}, file {} bytes; copy or download it again",
            bytes.len()
        ));
    };
    header::check(header, rest.len() - header.len()).or_else(refuse)
}

/// Says what is wrong in words that tell a user what to do.
fn explain(file: &FileBytes, error: &SafeTensorError) -> Error {
    let reason = mistaken::for_weights(file.bytes()).unwrap_or_else(|| match error {
        SafeTensorError::MetadataIncompleteBuffer => header::NOT_FILLED.to_owned(),
        SafeTensorError::InvalidOffset(name) => format!("tensor {name} overlaps another or leaves a gap"),
        SafeTensorError::TensorInvalidInfo => "a tensor's bytes do not fit its shape and type".to_owned(),
        other => format!("is not sound safetensors: {other}"),
    });
    Error::file(file.path(), reason)
}
