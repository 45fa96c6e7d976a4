//! Memory of results, and why a run ends.

use rayon::prelude::*;

use super::shape::Wrong;

/// Why a run ended without results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Whoever asked for it no longer wants it.
    Cancelled,
    /// The system has no memory for so many bytes.
    Memory(u64),
    /// Numbers that an operation cannot work with.
    Wrong(Wrong),
}

/// Numbers that one thread fills at a time.
const PART: usize = 1 << 14;

/// So many numbers, all 0.
pub(super) fn zeros<T: Clone + Default>(count: usize) -> Result<Vec<T>, Failed> {
    let mut values = vec![];
    let bytes = count as u64 * size_of::<T>() as u64;
    values.try_reserve_exact(count).map_err(|_| Failed::Memory(bytes))?;
    values.resize(count, T::default());
    Ok(values)
}

/// So many lines of `length` numbers, each of which `fill` makes by its number.
pub(super) fn lines<T: Clone + Default + Send>(
    count: usize,
    length: usize,
    fill: impl Fn(usize, &mut [T]) + Sync,
) -> Result<Vec<T>, Failed> {
    let mut values = zeros(count * length)?;
    let at_once = (PART / length).max(1);
    values.par_chunks_mut(at_once * length).enumerate().for_each(|(part, values)| {
        for (line, values) in values.chunks_exact_mut(length).enumerate() {
            fill(part * at_once + line, values);
        }
    });
    Ok(values)
}
