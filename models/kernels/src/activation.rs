//! Pointwise functions of f32.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]

use rayon::prelude::*;

use crate::Isa;
use crate::lanes::{LANES, Lanes, with_lanes};

/// Values handled by one task.
const CHUNK: usize = 1 << 14;

/// `x · sigmoid(x)` in place.
pub fn silu(isa: Isa, values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| {
        // SAFETY: `isa` is one this processor has.
        unsafe { with_lanes!(isa, silu_chunk(values: &mut [f32] = chunk)) };
    });
}

#[inline(always)]
unsafe fn silu_chunk<L: Lanes>(values: &mut [f32]) {
    // Whole chunks apart: where their length is known, they stay in registers.
    let mut chunks = values.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        // SAFETY: as many values as the chunk has.
        unsafe { silu_lanes::<L>(chunk, LANES) };
    }
    let rest = chunks.into_remainder();
    // SAFETY: as above.
    unsafe { silu_lanes::<L>(rest, rest.len()) };
}

#[inline(always)]
unsafe fn silu_lanes<L: Lanes>(values: &mut [f32], count: usize) {
    // SAFETY: the caller's promise that there are `count`.
    unsafe {
        let x = L::load(values.as_ptr(), count);
        x.mul(x.sigmoid_f32(1.0)).store(values.as_mut_ptr(), count);
    }
}
