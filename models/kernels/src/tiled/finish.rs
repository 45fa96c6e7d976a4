//! Applies an [`Epilogue`] to a block of sums, and rounds.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]

use super::tiles::{BLOCK, Dense, TILE};
use crate::lanes::{Element, LANES, Lanes, with_lanes};
use crate::matmul::SharedMut;
use crate::{Activation, Epilogue, Isa};

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
        epilogue.check(rows, columns, gated, out.len());
        let rows_per_image = epilogue.rows_per_image(rows, columns);
        Self { epilogue, columns, rows_per_image, out: SharedMut(out.as_mut_ptr()) }
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
    let columns = finish.columns;
    let [left, right] = [0, TILE].map(|half| panel * BLOCK + half);
    let counts = [left, right].map(|column| LANES.min(columns.saturating_sub(column)));
    // SAFETY: columns `left..left + counts[0]` and `right..right + counts[1]` of rows that exist; lengths were checked
    // in `new`.
    unsafe {
        let bias = |column: usize, count: usize| match finish.epilogue.bias {
            Some(bias) if count > 0 => L::load(bias.as_ptr().add(column), count),
            _ => L::splat(0.0),
        };
        let biases = [bias(left, counts[0]), bias(right, counts[1])];
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| **row != NO_ROW) {
            let row = *row as usize;
            let from = block.add(Dense::row(index));
            let to = finish.out.get().add(row * columns + left);
            let first = finished::<L, O>(finish, from, biases[0], row, left, counts[0]);
            if counts[1] == LANES {
                // A whole cache line at once.
                let second = finished::<L, O>(finish, from.add(Dense::RIGHT), biases[1], row, right, LANES);
                O::write_pair(to, first, second);
            } else {
                O::write(to, first, counts[0]);
                if counts[1] > 0 {
                    let from = from.add(Dense::RIGHT);
                    let second = finished::<L, O>(finish, from, biases[1], row, right, counts[1]);
                    O::write(to.add(TILE), second, counts[1]);
                }
            }
        }
    }
}

/// `count` columns of one row, from `column` on.
#[inline(always)]
unsafe fn finished<L: Lanes, O: Element>(
    finish: &Finish<O>,
    from: *const f32,
    bias: L,
    row: usize,
    column: usize,
    count: usize,
) -> L {
    let Finish { epilogue, columns, .. } = finish;
    // SAFETY: a row of a tile; columns of a row that exist, as in `finish`.
    unsafe {
        let mut value = L::load(from, LANES).add(bias);
        if let Some(image_bias) = epilogue.image_bias {
            let at = row / finish.rows_per_image * columns + column;
            value = value.add(L::load(image_bias.as_ptr().add(at), count));
        }
        if let Some(slopes) = epilogue.slopes {
            value = value.sloped(L::load(slopes.as_ptr().add(column), count));
        }
        value = match epilogue.activation {
            Activation::None | Activation::Relu | Activation::Geglu => value,
            Activation::Silu => value.mul(value.sigmoid(1.0)),
            Activation::QuickGelu => value.mul(value.sigmoid(1.702)),
        };
        value = value.mul(L::splat(epilogue.scale));
        if let Some(residual) = epilogue.residual {
            value = value.add(O::read(residual.as_ptr().add(row * columns + column), count));
        }
        if epilogue.activation == Activation::Relu {
            value = L::splat(0.0).max(value);
        }
        value
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
            let mut value = value.mul(gate.gelu()).mul(L::splat(finish.epilogue.scale));
            let at = *row as usize * width + column;
            if let Some(residual) = finish.epilogue.residual {
                value = value.add(O::read(residual.as_ptr().add(at), LANES));
            }
            O::write(finish.out.get().add(at), value, LANES);
        }
    }
}
