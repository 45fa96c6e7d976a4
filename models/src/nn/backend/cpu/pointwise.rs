//! What is done to numbers one by one, or to rows of them.

use half::bf16;
use rayon::prelude::*;

use super::memory::Memory;
use super::values::{self, Values, gather, interleave, map};
use crate::error::{Result, bail};
use crate::nn::backend::{Activations, Precision, RowOf};

pub(super) fn convert(memory: &impl Memory, x: &Activations, precision: Precision) -> Result<Activations> {
    let values = match (x.storage()?, precision) {
        (Values::F32(from), Precision::Bf16) => {
            let mut to = memory.buffer(from.len())?;
            map(from, &mut to, bf16::from_f32);
            Values::Bf16(to)
        }
        (Values::Bf16(from), Precision::F32) => {
            let mut to = memory.buffer(from.len())?;
            map(from, &mut to, bf16::to_f32);
            Values::F32(to)
        }
        _ => return Ok(x.clone()),
    };
    Ok(values.with_dims(x.dims()))
}

pub(super) fn add(memory: &impl Memory, a: &Activations, b: &Activations) -> Result<Activations> {
    let b = convert(memory, b, Precision::F32)?;
    let b = values::f32(&b)?;
    let mut sums = memory.buffer(b.len())?;
    sums.copy_from_slice(b);
    match a.storage()? {
        Values::F32(values) => sums.iter_mut().zip(&**values).for_each(|(sum, value)| *sum += value),
        Values::Bf16(values) => {
            sums.iter_mut().zip(&**values).for_each(|(sum, value)| *sum += value.to_f32());
        }
    }
    convert(memory, &Values::F32(sums).with_dims(a.dims()), a.precision())
}

pub(super) fn multiply(memory: &impl Memory, a: &Activations, b: &Activations) -> Result<Activations> {
    let b = convert(memory, b, Precision::F32)?;
    let b = values::f32(&b)?;
    let mut products = memory.buffer(b.len())?;
    let places = |products: &mut [f32], first: usize| match a.storage()? {
        Values::F32(a) => {
            let pairs = a[first..].iter().zip(&b[first..]);
            products.iter_mut().zip(pairs).for_each(|(product, (a, b))| *product = a * b);
            Ok(())
        }
        Values::Bf16(a) => {
            let pairs = a[first..].iter().zip(&b[first..]);
            products.iter_mut().zip(pairs).for_each(|(product, (a, b))| *product = a.to_f32() * b);
            Ok::<_, crate::Error>(())
        }
    };
    let chunks = products.par_chunks_mut(values::CHUNK).enumerate();
    chunks.try_for_each(|(index, chunk)| places(chunk, index * values::CHUNK))?;
    convert(memory, &Values::F32(products).with_dims(a.dims()), a.precision())
}

pub(super) fn blend(
    memory: &impl Memory,
    a: (&Activations, f32, Option<&[f32]>),
    b: Option<(&Activations, f32, Option<&[f32]>)>,
) -> Result<Activations> {
    let mut sums = memory.buffer(a.0.count())?;
    sums.fill(0.0);
    for (x, weight, mask) in std::iter::once(a).chain(b) {
        let wide = convert(memory, x, Precision::F32)?;
        let width = x.channels().max(1);
        let rows = values::f32(&wide)?.par_chunks_exact(width);
        let rows = sums.par_chunks_exact_mut(width).zip(rows).with_min_len(values::CHUNK.div_ceil(width));
        rows.enumerate().for_each(|(row, (to, from))| {
            let at = |mask: &[f32]| mask.get(row % mask.len().max(1)).copied();
            let share = weight * mask.and_then(at).unwrap_or(1.0);
            to.iter_mut().zip(from).for_each(|(to, from)| *to += share * from);
        });
    }
    convert(memory, &Values::F32(sums).with_dims(a.0.dims()), a.0.precision())
}

pub(super) fn join(memory: &impl Memory, a: &Activations, b: &Activations) -> Result<Activations> {
    let widths = (a.channels(), b.channels());
    let values = match (a.storage()?, b.storage()?) {
        (Values::F32(a), Values::F32(b)) => {
            let mut joined = memory.buffer(a.len() + b.len())?;
            interleave(a, b, widths, &mut joined);
            Values::F32(joined)
        }
        (Values::Bf16(a), Values::Bf16(b)) => {
            let mut joined = memory.buffer(a.len() + b.len())?;
            interleave(a, b, widths, &mut joined);
            Values::Bf16(joined)
        }
        _ => bail!("activations of different precision cannot be joined"),
    };
    let mut dims = a.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last += widths.1;
    }
    Ok(values.with_dims(dims))
}

pub(super) fn stack(memory: &impl Memory, parts: &[&Activations]) -> Result<Activations> {
    let Some(first) = parts.first() else { bail!("nothing to stack") };
    let mut dims = first.dims().to_vec();
    if let Some(batch) = dims.first_mut() {
        *batch = parts.iter().map(|part| part.batch()).sum();
    }
    let mut out = Values::new(memory, first.precision(), dims.iter().product())?;
    let mut start = 0;
    for part in parts {
        let range = start..start + part.count();
        start = range.end;
        match (part.storage()?, &mut out) {
            (Values::F32(from), Values::F32(to)) => to[range].copy_from_slice(from),
            (Values::Bf16(from), Values::Bf16(to)) => to[range].copy_from_slice(from),
            _ => bail!("activations of different precision cannot be stacked"),
        }
    }
    Ok(out.with_dims(dims))
}

pub(super) fn part(memory: &impl Memory, x: &Activations, start: usize, count: usize) -> Result<Activations> {
    let entry = x.count() / x.batch().max(1);
    let range = start * entry..(start + count) * entry;
    let mut dims = x.dims().to_vec();
    if let Some(batch) = dims.first_mut() {
        *batch = count;
    }
    let mut out = Values::new(memory, x.precision(), range.len())?;
    match (x.storage()?, &mut out) {
        (Values::F32(from), Values::F32(to)) => to.copy_from_slice(&from[range]),
        (Values::Bf16(from), Values::Bf16(to)) => to.copy_from_slice(&from[range]),
        _ => bail!("a part has the precision of the whole"),
    }
    Ok(out.with_dims(dims))
}

pub(super) fn rows(
    memory: &impl Memory,
    x: &Activations,
    dims: &[usize],
    row: &RowOf<'_>,
) -> Result<Activations> {
    let width = dims.last().copied().unwrap_or(1);
    let mut out = Values::new(memory, x.precision(), dims.iter().product())?;
    match (x.storage()?, &mut out) {
        (Values::F32(from), Values::F32(to)) => gather(from, width, to, row),
        (Values::Bf16(from), Values::Bf16(to)) => gather(from, width, to, row),
        _ => bail!("rows have the precision of what they are of"),
    }
    Ok(out.with_dims(dims))
}

pub(super) fn resize_nearest(
    memory: &impl Memory,
    x: &Activations,
    rows: usize,
    columns: usize,
) -> Result<Activations> {
    let (batch, height, width, channels) = x.dims4()?;
    let source = |to: usize, from_size: usize, to_size: usize| {
        ((to as f32 * (from_size as f32 / to_size as f32)) as usize).min(from_size.saturating_sub(1))
    };
    let pixel = |index: usize| {
        let (image, rest) = (index / (rows * columns), index % (rows * columns));
        let y = source(rest / columns, height, rows);
        (image * height + y) * width + source(rest % columns, width, columns)
    };
    let mut out = Values::new(memory, x.precision(), batch * rows * columns * channels)?;
    match (x.storage()?, &mut out) {
        (Values::F32(from), Values::F32(to)) => gather(from, channels, to, pixel),
        (Values::Bf16(from), Values::Bf16(to)) => gather(from, channels, to, pixel),
        _ => bail!("resized numbers have the precision of the others"),
    }
    Ok(out.with_dims([batch, rows, columns, channels]))
}
