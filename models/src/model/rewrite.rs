//! Tensors on their way from files into a new one: their numbers in another type, and one after the other onto the disk.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use latentd_kernels::{WeightDtype, Weights};
use rayon::prelude::*;

use crate::files::{self, ElementType, Planned, Tensors};
use crate::{Error, Result};

/// Numbers that are changed together: what is made of them stays in the cache.
pub(super) const PIECE: usize = 1 << 15;

/// Writes tensors in an order of its own and flushes them to the disk. `elements` gives those of the one at a place, and
/// `done` hears of each that is written; either may end it with an error. Errors call the file `path`.
pub(super) fn write<'a>(
    out: &mut File,
    path: &Path,
    planned: &[&Planned],
    metadata: &BTreeMap<String, String>,
    elements: impl Fn(usize) -> Result<Cow<'a, [u8]>>,
    mut done: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let mut buffer = BufWriter::with_capacity(1 << 20, &mut *out);
    let mut last = None;
    files::write(&mut buffer, path, planned, metadata, |place| {
        last.replace(place).map_or(Ok(()), &mut done)?;
        elements(place)
    })?;
    last.map_or(Ok(()), &mut done)?;
    buffer.flush().map_err(|error| unwritten(path, &error))?;
    drop(buffer);
    out.sync_all().map_err(|error| unwritten(path, &error))
}

pub(super) fn unwritten(path: &Path, error: &io::Error) -> Error {
    Error::file(path, format!("cannot be written: {error}"))
}

pub(super) fn element_type(dtype: WeightDtype) -> ElementType {
    match dtype {
        WeightDtype::F32 => ElementType::F32,
        WeightDtype::F16 => ElementType::F16,
        WeightDtype::Bf16 => ElementType::Bf16,
    }
}

/// A tensor's elements in the type that is planned; by `asked` the file has it.
pub(super) fn elements<'a>(file: &'a Tensors, asked: &str, planned: &Planned) -> Result<Cow<'a, [u8]>> {
    let missing = || Error::model(file.path(), format!("missing tensor {asked}"));
    if file.dtype(asked) == Some(planned.dtype) {
        return file.bytes(asked)?.ok_or_else(missing);
    }
    let (dtype, bytes) = file.weights(asked)?.ok_or_else(missing)?;
    if element_type(dtype) == planned.dtype {
        return Ok(bytes);
    }
    let values = widened(Weights { dtype, bytes: &bytes })?;
    narrowed(&values, planned.dtype)?
        .map(Cow::Owned)
        .map_err(|value| too_large(file, asked, value, planned.dtype))
}

/// An error for a number that a type cannot hold.
pub(super) fn too_large(file: &Tensors, asked: &str, value: f32, to: ElementType) -> Error {
    let name = file.own_name(asked).unwrap_or(asked);
    let reason =
        format!("tensor {name} has {value:e}, which {} cannot hold; convert to bf16 or f32", to.name());
    Error::model(file.path(), reason)
}

/// Weights as f32.
pub(super) fn widened(weights: Weights<'_>) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    let count = weights.len();
    values.try_reserve_exact(count).map_err(|_| Error::OutOfMemory { bytes: count as u64 * 4 })?;
    values.resize(count, 0.0);
    let pieces = weights.bytes.par_chunks(PIECE * weights.dtype.size());
    values
        .par_chunks_mut(PIECE)
        .zip(pieces)
        .for_each(|(values, bytes)| Weights { dtype: weights.dtype, bytes }.widen(values));
    Ok(values)
}

/// Weights in a type, f32 unless it is a narrower one, rounded to the nearest; or the first number that has no place there.
pub(super) fn narrowed(values: &[f32], to: ElementType) -> Result<Result<Vec<u8>, f32>> {
    let (size, narrow): (usize, Narrow) = match to {
        ElementType::F16 => (2, |value, out| {
            let narrow = f16::from_f32(value);
            out.copy_from_slice(&narrow.to_le_bytes());
            narrow.is_finite()
        }),
        ElementType::Bf16 => (2, |value, out| {
            let narrow = bf16::from_f32(value);
            out.copy_from_slice(&narrow.to_le_bytes());
            narrow.is_finite()
        }),
        _ => (4, |value, out| {
            out.copy_from_slice(&value.to_le_bytes());
            true
        }),
    };
    let mut out = Vec::new();
    let bytes = values.len() * size;
    out.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes: bytes as u64 })?;
    out.resize(bytes, 0);
    let lost =
        out.par_chunks_mut(PIECE * size).zip(values.par_chunks(PIECE)).find_map_first(|(out, values)| {
            let mut lost = None;
            for (out, value) in out.chunks_exact_mut(size).zip(values) {
                // What is infinite already stays so.
                if !narrow(*value, out) && value.is_finite() && lost.is_none() {
                    lost = Some(*value);
                }
            }
            lost
        });
    Ok(lost.map_or(Ok(out), Err))
}

/// Writes a number into its place; whether it is finite there.
type Narrow = fn(f32, &mut [u8]) -> bool;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_and_what_has_no_place_is_told() {
        let narrow = |values: &[f32], to| narrowed(values, to).expect("memory");
        let of = |bits: u16| bits.to_le_bytes().to_vec();
        let rows = [
            (1.0, ElementType::F16, Ok(of(0x3c00))),
            (1.0, ElementType::Bf16, Ok(of(0x3f80))),
            (65504.0, ElementType::F16, Ok(of(0x7bff))),
            (65519.0, ElementType::F16, Ok(of(0x7bff))),
            (65520.0, ElementType::F16, Err(65520.0)),
            (-1e6, ElementType::F16, Err(-1e6)),
            (1e-9, ElementType::F16, Ok(of(0))),
            (f32::INFINITY, ElementType::F16, Ok(of(0x7c00))),
            (1e38, ElementType::Bf16, Ok(bf16::from_f32(1e38).to_le_bytes().to_vec())),
            (f32::MAX, ElementType::Bf16, Err(f32::MAX)),
            (f32::MAX, ElementType::F32, Ok(f32::MAX.to_le_bytes().to_vec())),
        ];
        for (value, to, expected) in rows {
            assert_eq!(narrow(&[value], to), expected, "{value} to {to:?}");
        }
        assert_eq!(narrow(&[1.0, 2e5, 1e5], ElementType::F16), Err(2e5), "the first");
        let mut many = vec![1.0; 3 * PIECE];
        (many[PIECE + 5], many[2 * PIECE]) = (3e5, 4e5);
        assert_eq!(narrow(&many, ElementType::F16), Err(3e5), "the first of many");
    }

    #[test]
    fn what_is_widened_and_narrowed_is_the_same() {
        let bits: Vec<u8> =
            (0..3 * PIECE as u32 + 7).flat_map(|place| ((place % 0x7c00) as u16).to_le_bytes()).collect();
        let values = widened(Weights { dtype: WeightDtype::F16, bytes: &bits }).expect("memory");
        assert!(narrowed(&values, ElementType::F16).expect("memory") == Ok(bits));
    }
}
