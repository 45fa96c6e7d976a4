//! Applies an [`Epilogue`] to a block of sums, and rounds.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]

use half::bf16;

use super::lanes::{LANES, Lanes, with_lanes};
use super::tiles::{BLOCK, BlockLayout, Dense, TILE};
use crate::buffer::Plain;
use crate::matmul::SharedMut;
use crate::{Activation, Epilogue, Isa, elements};

/// A type results are stored in.
pub trait Element: Plain + ElementLanes {}
impl Element for f32 {}
impl Element for bf16 {}

/// Reading and writing lanes of an [`Element`].
pub trait ElementLanes: Copy {
    /// # Safety
    /// As [`Lanes`].
    unsafe fn read<L: Lanes>(from: *const Self, count: usize) -> L;
    /// # Safety
    /// As [`Lanes`].
    unsafe fn write<L: Lanes>(to: *mut Self, value: L, count: usize);
}

impl ElementLanes for f32 {
    #[inline(always)]
    unsafe fn read<L: Lanes>(from: *const Self, count: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(from, count) }
    }

    #[inline(always)]
    unsafe fn write<L: Lanes>(to: *mut Self, value: L, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { value.store(to, count) }
    }
}

impl ElementLanes for bf16 {
    #[inline(always)]
    unsafe fn read<L: Lanes>(from: *const Self, count: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_bf16(from, count) }
    }

    #[inline(always)]
    unsafe fn write<L: Lanes>(to: *mut Self, value: L, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { value.store_bf16(to, count) }
    }
}

/// An [`Epilogue`] whose lengths were checked against `rows` and `columns` of sums.
pub(crate) struct Finish<'a, O> {
    epilogue: &'a Epilogue<'a, O>,
    /// Columns of sums.
    columns: usize,
    rows_per_image: usize,
    out: SharedMut<O>,
}

impl<'a, O: Element> Finish<'a, O> {
    pub(crate) fn new(
        epilogue: &'a Epilogue<'a, O>,
        rows: usize,
        columns: usize,
        gated: bool,
        out: &mut [O],
    ) -> Self {
        assert_eq!(gated, epilogue.activation == Activation::Geglu, "product: gates need GEGLU, and it them");
        let width = if gated { columns / 2 } else { columns };
        assert_eq!(out.len(), elements(&[rows, width]), "product: output of {rows} rows and {width} columns");
        epilogue.check(rows, columns, out.len());
        let rows_per_image = epilogue.rows_per_image(rows, columns);
        Self { epilogue, columns, rows_per_image, out: SharedMut(out.as_mut_ptr()) }
    }

    /// Asks for the memory that [`Self::block`] will touch, while the sums are still being taken.
    pub(crate) fn expect(&self, isa: Isa, panel: usize, rows: &[u32]) {
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Amx {
            use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
            let gated = self.epilogue.activation == Activation::Geglu;
            let (width, column) =
                if gated { (self.columns / 2, panel * TILE) } else { (self.columns, panel * BLOCK) };
            for row in rows.iter().filter(|row| **row != NO_ROW) {
                let at = *row as usize * width + column;
                // SAFETY: asking for memory ahead reads and writes nothing.
                unsafe {
                    _mm_prefetch::<_MM_HINT_ET0>(self.out.get().wrapping_add(at).cast());
                    if let Some(residual) = self.epilogue.residual {
                        _mm_prefetch::<_MM_HINT_T0>(residual.as_ptr().wrapping_add(at).cast());
                    }
                }
            }
        }
        let _ = (isa, panel, rows);
    }

    /// Finishes the block of sums of one panel; `rows` says which row of the output each of its rows is.
    ///
    /// # Safety
    /// `block` holds a block; rows other than [`NO_ROW`] exist, and no other thread writes these rows of this panel;
    /// `isa` is one this processor has.
    pub(crate) unsafe fn block(&self, isa: Isa, block: *const f32, panel: usize, rows: &[u32]) {
        // SAFETY: the caller's promises are passed on.
        unsafe {
            if self.epilogue.activation == Activation::Geglu {
                with_lanes!(isa, finish_gated<O>(
                    to: &Finish<O> = self, block: *const f32 = block, panel: usize = panel, rows: &[u32] = rows
                ));
            } else {
                with_lanes!(isa, finish<O>(
                    to: &Finish<O> = self, block: *const f32 = block, panel: usize = panel, rows: &[u32] = rows
                ));
            }
        }
    }
}

/// Marks a row of a block that is computed for nothing.
pub(crate) const NO_ROW: u32 = u32::MAX;

#[inline(always)]
unsafe fn finish<L: Lanes, O: Element>(finish: &Finish<O>, block: *const f32, panel: usize, rows: &[u32]) {
    let Finish { epilogue, columns, .. } = finish;
    for half in 0..2 {
        let column = panel * BLOCK + half * TILE;
        if column >= *columns {
            break;
        }
        let count = LANES.min(columns - column);
        // SAFETY: columns `column..column + count` of rows that exist; lengths were checked in `new`.
        unsafe {
            let bias = epilogue.bias.map_or(L::splat(0.0), |bias| L::load(bias.as_ptr().add(column), count));
            for (index, row) in rows.iter().enumerate().filter(|(_, row)| **row != NO_ROW) {
                let row = *row as usize;
                let from = block.add(Dense::row(index) + half * Dense::RIGHT);
                let mut value = L::load(from, LANES).add(bias);
                if let Some(image_bias) = epilogue.image_bias {
                    let at = row / finish.rows_per_image * columns + column;
                    value = value.add(L::load(image_bias.as_ptr().add(at), count));
                }
                value = match epilogue.activation {
                    Activation::None | Activation::Geglu => value,
                    Activation::Silu => value.mul(value.sigmoid(1.0)),
                    Activation::QuickGelu => value.mul(value.sigmoid(1.702)),
                };
                let at = row * columns + column;
                if let Some(residual) = epilogue.residual {
                    value = value.add(O::read(residual.as_ptr().add(at), count));
                }
                O::write(finish.out.get().add(at), value, count);
            }
        }
    }
}

/// As [`finish`] where the second half of a panel's columns are the gates of the first.
#[inline(always)]
unsafe fn finish_gated<L: Lanes, O: Element>(
    finish: &Finish<O>,
    block: *const f32,
    panel: usize,
    rows: &[u32],
) {
    let width = finish.columns / 2;
    let column = panel * TILE;
    // SAFETY: `columns` is a multiple of 32, so 16 columns of each row exist; lengths were checked in `new`.
    unsafe {
        let bias = |first: usize| {
            finish
                .epilogue
                .bias
                .map_or(L::splat(0.0), |bias| L::load(bias.as_ptr().add(first + column), LANES))
        };
        let (value_bias, gate_bias) = (bias(0), bias(width));
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| **row != NO_ROW) {
            let from = block.add(Dense::row(index));
            let value = L::load(from, LANES).add(value_bias);
            let gate = L::load(from.add(Dense::RIGHT), LANES).add(gate_bias);
            let mut value = value.mul(gate.gelu());
            let at = *row as usize * width + column;
            if let Some(residual) = finish.epilogue.residual {
                value = value.add(O::read(residual.as_ptr().add(at), LANES));
            }
            O::write(finish.out.get().add(at), value, LANES);
        }
    }
}
