//! Pointwise functions of f32.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]

use rayon::prelude::*;

use crate::Isa;
use crate::lanes::{LANES, Lanes, with_lanes};

/// Values handled by one task.
const CHUNK: usize = 1 << 14;

/// Which of them.
#[derive(Clone, Copy)]
enum Function {
    Silu,
    Gelu,
}

/// `x · sigmoid(x)` in place.
pub fn silu(isa: Isa, values: &mut [f32]) {
    each(isa, values, Function::Silu);
}

/// `x · Φ(x)` in place, the exact GELU within 2⁻²¹ of x.
pub fn gelu(isa: Isa, values: &mut [f32]) {
    each(isa, values, Function::Gelu);
}

fn each(isa: Isa, values: &mut [f32], function: Function) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| {
        // SAFETY: `isa` is one this processor has.
        unsafe {
            match function {
                Function::Silu => with_lanes!(isa, silu_chunk(values: &mut [f32] = chunk)),
                Function::Gelu => with_lanes!(isa, gelu_chunk(values: &mut [f32] = chunk)),
            }
        };
    });
}

#[inline(always)]
unsafe fn silu_chunk<L: Lanes>(values: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { chunk::<L>(values, Function::Silu) };
}

#[inline(always)]
unsafe fn gelu_chunk<L: Lanes>(values: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { chunk::<L>(values, Function::Gelu) };
}

#[inline(always)]
unsafe fn chunk<L: Lanes>(values: &mut [f32], function: Function) {
    // Whole chunks apart: where their length is known, they stay in registers.
    let mut chunks = values.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        // SAFETY: as many values as the chunk has.
        unsafe { lanes::<L>(chunk, LANES, function) };
    }
    let rest = chunks.into_remainder();
    // SAFETY: as above.
    unsafe { lanes::<L>(rest, rest.len(), function) };
}

#[inline(always)]
unsafe fn lanes<L: Lanes>(values: &mut [f32], count: usize, function: Function) {
    // SAFETY: the caller's promise that there are `count`.
    unsafe {
        let x = L::load(values.as_ptr(), count);
        let y = match function {
            Function::Silu => x.mul(x.sigmoid_f32(1.0)),
            Function::Gelu => x.gelu_f32(),
        };
        y.store(values.as_mut_ptr(), count);
    }
}
