//! Writes `.safetensors` files: the header first, then one tensor after the other, so that never more than one is in memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::container::ElementType;
use crate::{Error, Result, Tensor};

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Its name in the file.
    pub name: String,
    /// What its elements are: plain numbers, none that are quantised.
    pub dtype: ElementType,
    /// Its sizes.
    pub shape: Vec<usize>,
}

impl Planned {
    /// Bytes of its elements; an error if the format has no such type.
    pub(crate) fn bytes(&self) -> Result<u64> {
        let (_, size) = stored(self.dtype).ok_or_else(|| {
            let Self { name, dtype, .. } = self;
            Error::Unsupported(format!("tensor {name} is of type {}, which is not written", dtype.name()))
        })?;
        Ok(self.shape.iter().product::<usize>() as u64 * size)
    }
}

/// A safetensors file of these tensors, as f32, and what it says of itself.
///
/// # Errors
/// If two have one name.
pub fn to_safetensors(tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let planned: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| Planned {
            name: name.clone(),
            dtype: ElementType::F32,
            shape: tensor.dims().to_vec(),
        })
        .collect();
    let planned: Vec<_> = planned.iter().collect();
    let elements = |place: usize| {
        let values = tensors.get(place).map_or(&[][..], |(_, tensor)| tensor.values());
        Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into())
    };
    let mut out = vec![];
    write(&mut out, Path::new("the file"), &planned, metadata, elements)?;
    Ok(out)
}

/// Writes a file of `tensors`; `elements` gives those of the one at this place in the list. Errors call the file `path`.
pub(crate) fn write<'a>(
    out: &mut dyn Write,
    path: &Path,
    tensors: &[&Planned],
    metadata: &BTreeMap<String, String>,
    mut elements: impl FnMut(usize) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    let failed = |error: std::io::Error| Error::file(path, format!("cannot be written: {error}"));
    // As the format's own library orders them: each begins at a multiple of its elements' size.
    let mut order = vec![];
    for (place, tensor) in tensors.iter().enumerate() {
        let size = stored(tensor.dtype).map_or(0, |(_, size)| size);
        order.push((std::cmp::Reverse(size), &tensor.name, tensor.bytes()?, place));
    }
    order.sort_unstable();
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut end = 0;
    for (_, name, bytes, place) in &order {
        let Some(tensor) = tensors.get(*place) else { continue };
        let start = end;
        end += bytes;
        let (dtype, _) = stored(tensor.dtype).unwrap_or_default();
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]});
        if header.insert((*name).clone(), entry).is_some() {
            return Err(Error::file(path, format!("would have two tensors named {name}")));
        }
    }
    let mut header = serde_json::to_vec(&Value::Object(header)).map_err(|error| failed(error.into()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    out.write_all(&header).map_err(failed)?;
    for (_, name, bytes, place) in &order {
        let elements = elements(*place)?;
        if elements.len() as u64 != *bytes {
            let found = elements.len();
            return Err(Error::file(path, format!("tensor {name} has {found} bytes, {bytes} are needed")));
        }
        out.write_all(&elements).map_err(failed)?;
    }
    Ok(())
}

/// How the format calls a type, and how many bytes an element has.
fn stored(dtype: ElementType) -> Option<(&'static str, u64)> {
    Some(match dtype {
        ElementType::F64 => ("F64", 8),
        ElementType::F32 => ("F32", 4),
        ElementType::F16 => ("F16", 2),
        ElementType::Bf16 => ("BF16", 2),
        ElementType::F8E4M3 => ("F8_E4M3", 1),
        ElementType::F8E5M2 => ("F8_E5M2", 1),
        ElementType::I64 => ("I64", 8),
        ElementType::I32 => ("I32", 4),
        ElementType::I16 => ("I16", 2),
        ElementType::I8 => ("I8", 1),
        ElementType::U8 => ("U8", 1),
        ElementType::Bool => ("BOOL", 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::from_bytes;

    #[test]
    fn what_is_written_is_read_again() {
        let planned =
            |name: &str, dtype, shape: &[usize]| Planned { name: name.into(), dtype, shape: shape.into() };
        let tensors = [
            planned("b", ElementType::F16, &[3]),
            planned("a \"quoted\" ü", ElementType::F32, &[2, 1]),
            planned("none", ElementType::F32, &[0]),
            planned("ids", ElementType::I64, &[1]),
            planned("byte", ElementType::U8, &[1]),
        ];
        let metadata: BTreeMap<_, _> = [("key".to_owned(), "a\nvalue".to_owned())].into();
        let list: Vec<_> = tensors.iter().collect();
        let bytes_of = |place: usize| vec![place as u8; tensors[place].bytes().expect("a type") as usize];
        let mut out = vec![];
        write(&mut out, Path::new("x"), &list, &metadata, |place| Ok(bytes_of(place).into()))
            .expect("written");
        let file = from_bytes("x", out).expect("sound");
        assert_eq!(file.metadata(), &metadata);
        assert_eq!(file.names().count(), tensors.len());
        for (place, tensor) in tensors.iter().enumerate() {
            assert_eq!(file.shape(&tensor.name), Some(tensor.shape.as_slice()));
            assert_eq!(file.dtype(&tensor.name), Some(tensor.dtype));
            let bytes = file.bytes(&tensor.name).expect("read").expect("there");
            assert_eq!(bytes, bytes_of(place));
        }

        let refused = |tensors: &[&Planned], bytes: usize| {
            let elements = |_| Ok(vec![0; bytes].into());
            write(&mut vec![], Path::new("x"), tensors, &metadata, elements).expect_err("refused").to_string()
        };
        assert!(refused(&list[..1], 5).contains("5 bytes, 6 are needed"));
        assert!(refused(&[list[0], list[0]], 6).contains("two tensors named b"));
        assert!(refused(&[&planned("q", ElementType::Q4_0, &[32])], 18).contains("tensor q is of type q4_0"));
    }
}
