//! Products of activation rows with packed weights: the driver that linear layers and convolutions share.
#![allow(unsafe_code)]

use std::ops::Range;

use rayon::prelude::*;

use crate::bytes::bytes_of;
use crate::half_floats::widen_f16;
use crate::isa::multiversion;
use crate::lanes::{LANES, Lanes, with_lanes};
use crate::microkernel::{TILE_ROWS, tile};
use crate::pack::{PANEL, PackedMatrix, Storage};
use crate::stop::Polled;
use crate::{Activation, Buffer, Epilogue, Isa, elements};

/// Most values of `k` in one segment: a panel's part (48 KiB widened) stays in the first or second-level cache while rows
/// pass by.
pub(crate) const SEGMENT: usize = 384;

/// Most rows of one task: their part of a segment (576 KiB) stays in a second-level cache of 1 MiB or more while panels
/// pass by; where it is smaller they come from the third, four bytes for each 64 multiply-adds.
const TASK_ROWS: usize = 32 * TILE_ROWS;

/// Rows of activations as the driver reads them: piecewise contiguous along `k`.
pub(crate) trait Rows: Sync {
    /// The pieces `(first k, length)`, in order, covering `k`; none longer than [`SEGMENT`].
    fn segments(&self) -> &[(usize, usize)];

    /// Where the piece `segment` of rows `first..first + pointers.len()` stands.
    fn locate(&self, segment: usize, first: usize, pointers: &mut [*const f32]);
}

/// Cuts `0..k` into equal pieces of at most [`SEGMENT`], offset by `start`.
pub(crate) fn segments(start: usize, k: usize) -> impl Iterator<Item = (usize, usize)> {
    let pieces = k.div_ceil(SEGMENT).max(1);
    let size = k.div_ceil(pieces).max(1);
    (0..pieces).map(move |piece| (start + piece * size, size.min(k - piece * size)))
}

struct Dense<'a> {
    values: &'a [f32],
    k: usize,
    segments: Vec<(usize, usize)>,
}

impl Rows for Dense<'_> {
    fn segments(&self) -> &[(usize, usize)] {
        &self.segments
    }

    fn locate(&self, segment: usize, first: usize, pointers: &mut [*const f32]) {
        for (offset, pointer) in pointers.iter_mut().enumerate() {
            *pointer = self.values[(first + offset) * self.k + self.segments[segment].0..].as_ptr();
        }
    }
}

/// `x (m, k)` times `weights (n, k)` → `out (m, n)`, or `(m, n / 2)` for gated weights, finished by `epilogue`.
///
/// # Panics
/// If the lengths of `x`, `out` or the epilogue do not fit the weights' shape and `m`, or GEGLU and gates do not meet.
pub fn linear(
    isa: Isa,
    x: &[f32],
    m: usize,
    weights: &PackedMatrix,
    epilogue: &Epilogue<f32>,
    out: &mut [f32],
) {
    let (_, k) = weights.shape();
    assert_eq!(x.len(), elements(&[m, k]), "linear: input of {m} rows");
    let rows = Dense { values: x, k, segments: segments(0, k).collect() };
    multiply(isa, &rows, m, weights, epilogue, out);
}

/// A pointer that tasks writing disjoint places share.
pub(crate) struct SharedMut<T = f32>(pub(crate) *mut T);

impl<T> Clone for SharedMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedMut<T> {}

// SAFETY: tasks write disjoint elements; each use says which.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    // A method, so that closures capture the whole wrapper and not the bare pointer in it.
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

/// The driver: `out (m, n) = finished(rows (m, k) · weightsᵀ)`.
pub(crate) fn multiply(
    isa: Isa,
    rows: &impl Rows,
    m: usize,
    weights: &PackedMatrix,
    epilogue: &Epilogue<f32>,
    out: &mut [f32],
) {
    let n = weights.n;
    epilogue.check(m, n, weights.gated, out.len());
    assert_eq!(rows.segments().iter().map(|(_, length)| length).sum::<usize>(), weights.k);
    if m == 0 || n == 0 {
        return;
    }
    // How work is cut never shows in the result, so it may follow the number of threads.
    let threads = rayon::current_num_threads();
    // As many rows as a task may have: each row task widens the weights of its columns anew.
    let task_rows = m.div_ceil(m.div_ceil(TASK_ROWS)).next_multiple_of(TILE_ROWS);
    let row_tasks = m.div_ceil(task_rows);
    let column_tasks = (threads * 4).div_ceil(row_tasks).min(weights.panel_count());
    let task_panels = weights.panel_count().div_ceil(column_tasks);
    let column_tasks = weights.panel_count().div_ceil(task_panels);
    let rows_per_image = epilogue.rows_per_image(m, n);
    let ends = Finish { epilogue, columns: n, rows_per_image, out: SharedMut(out.as_mut_ptr()) };
    let stop = Polled::current();
    (0..row_tasks * column_tasks).into_par_iter().for_each_init(Scratch::new, |scratch, task| {
        if stop.is_wanted() {
            return;
        }
        let (row_task, column_task) = (task / column_tasks, task % column_tasks);
        let first_row = row_task * task_rows;
        let last_row = m.min(first_row + task_rows);
        let first_panel = column_task * task_panels;
        let last_panel = weights.panel_count().min(first_panel + task_panels);
        block(isa, rows, first_row..last_row, weights, first_panel..last_panel, &ends, scratch);
    });
}

struct Scratch {
    panel: Buffer<f32>,
    /// Of a task whose output has fewer columns than sums.
    sums: Buffer<f32>,
    pointers: Vec<*const f32>,
}

impl Scratch {
    fn new() -> Self {
        Self { panel: Buffer::new(0), sums: Buffer::new(0), pointers: vec![] }
    }
}

/// One task: some rows times some panels.
fn block(
    isa: Isa,
    rows: &impl Rows,
    row_range: Range<usize>,
    weights: &PackedMatrix,
    panels: Range<usize>,
    ends: &Finish,
    scratch: &mut Scratch,
) {
    let Finish { epilogue, columns: n, out, .. } = *ends;
    scratch.pointers.resize(row_range.len(), std::ptr::null());
    // Values between rows of sums: they wait in the output, where that has as many columns.
    let stride = if weights.gated { panels.len() * PANEL } else { n };
    if weights.gated && scratch.sums.len() < row_range.len() * stride {
        scratch.sums = Buffer::new(row_range.len() * stride);
    }
    let waiting = scratch.sums.as_mut_ptr();
    for (segment, &(first_k, length)) in rows.segments().iter().enumerate() {
        rows.locate(segment, row_range.start, &mut scratch.pointers);
        for panel in panels.clone() {
            let columns = PANEL.min(n - panel * PANEL);
            let bias = epilogue.bias.map(|bias| panel_bias(bias, panel, columns, weights.gated));
            let values = widen(isa, weights, panel, first_k, length, &mut scratch.panel);
            for (tile_index, pointers) in scratch.pointers.chunks(TILE_ROWS).enumerate() {
                let row = row_range.start + tile_index * TILE_ROWS;
                // SAFETY: rows and columns of this task alone, within `out` (asserted in `multiply`) or `waiting`,
                // which has `stride` values for each row; `locate` gave pointers to `length` readable values; the
                // panel holds `length * 32`.
                unsafe {
                    let c = if weights.gated {
                        waiting.add((row - row_range.start) * stride + (panel - panels.start) * PANEL)
                    } else {
                        out.get().add(row * n + panel * PANEL)
                    };
                    let first = segment == 0;
                    if columns == PANEL {
                        if first && let Some(bias) = &bias {
                            for index in 0..pointers.len() {
                                std::ptr::copy_nonoverlapping(bias.as_ptr(), c.add(index * stride), PANEL);
                            }
                        }
                        let accumulate = !first || bias.is_some();
                        tile(isa, pointers, length, values.as_ptr(), c, stride, false, accumulate);
                    } else {
                        partial_tile(isa, pointers, length, values, c, stride, columns, first, bias.as_ref());
                    }
                    if segment + 1 < rows.segments().len() {
                        continue;
                    }
                    let tile_rows = row..row + pointers.len();
                    if weights.gated {
                        with_lanes!(isa, finish_gated(
                            ends: &Finish = ends, sums: *const f32 = c, stride: usize = stride,
                            rows: Range<usize> = tile_rows, panel: usize = panel
                        ));
                    } else if !ends.is_nothing() {
                        with_lanes!(isa, finish(
                            ends: &Finish = ends, sums: *mut f32 = c, stride: usize = stride,
                            rows: Range<usize> = tile_rows, panel: usize = panel
                        ));
                    }
                }
            }
        }
    }
}

/// The biases of a panel's columns.
fn panel_bias(bias: &[f32], panel: usize, columns: usize, gated: bool) -> [f32; PANEL] {
    const HALF: usize = PANEL / 2;
    let mut of_panel = [0.0; PANEL];
    if gated {
        let (values, gates) = bias.split_at(bias.len() / 2);
        of_panel[..HALF].copy_from_slice(&values[panel * HALF..][..HALF]);
        of_panel[HALF..].copy_from_slice(&gates[panel * HALF..][..HALF]);
    } else {
        of_panel[..columns].copy_from_slice(&bias[panel * PANEL..][..columns]);
    }
    of_panel
}

/// What follows the biased sums of all products of a call.
struct Finish<'a> {
    epilogue: &'a Epilogue<'a, f32>,
    /// Columns of the sums.
    columns: usize,
    rows_per_image: usize,
    out: SharedMut,
}

impl Finish<'_> {
    fn is_nothing(&self) -> bool {
        let Epilogue { image_bias, activation, slopes, scale, residual, .. } = *self.epilogue;
        image_bias.is_none()
            && slopes.is_none()
            && activation == Activation::None
            && scale == 1.0
            && residual.is_none()
    }
}

/// Finishes a panel's sums of `rows`, which stand in the output itself.
///
/// # Safety
/// `sums` has the panel's columns for each of the rows, `stride` values apart, and they are this task's alone.
#[inline(always)]
#[allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]
unsafe fn finish<L: Lanes>(finish: &Finish, sums: *mut f32, stride: usize, rows: Range<usize>, panel: usize) {
    let Epilogue { image_bias, activation, slopes, scale, residual, .. } = *finish.epilogue;
    let n = finish.columns;
    for row in rows.clone() {
        for column in (panel * PANEL..n.min((panel + 1) * PANEL)).step_by(LANES) {
            let count = LANES.min(n - column);
            // SAFETY: as the caller promised; the epilogue's lengths were checked for all rows and columns.
            unsafe {
                let sums = sums.add((row - rows.start) * stride + column - panel * PANEL);
                let mut value = L::load(sums, count);
                if let Some(bias) = image_bias {
                    let at = row / finish.rows_per_image * n + column;
                    value = value.add(L::load(bias.as_ptr().add(at), count));
                }
                if let Some(slopes) = slopes {
                    value = value.sloped(L::load(slopes.as_ptr().add(column), count));
                }
                value = match activation {
                    Activation::Silu => value.mul(value.sigmoid_f32(1.0)),
                    Activation::QuickGelu => value.mul(value.sigmoid_f32(1.702)),
                    Activation::None | Activation::Relu | Activation::Geglu => value,
                };
                value = value.mul(L::splat(scale));
                if let Some(residual) = residual {
                    value = value.add(L::load(residual.as_ptr().add(row * n + column), count));
                }
                if activation == Activation::Relu {
                    value = L::splat(0.0).max(value);
                }
                value.store(sums, count);
            }
        }
    }
}

/// As [`finish`] of sums beside the output, whose panels hold values, then as many gates.
///
/// # Safety
/// As [`finish`], and this task alone writes these rows and columns of the output.
#[inline(always)]
#[allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]
unsafe fn finish_gated<L: Lanes>(
    finish: &Finish,
    sums: *const f32,
    stride: usize,
    rows: Range<usize>,
    panel: usize,
) {
    const { assert!(PANEL == 2 * LANES) };
    let Epilogue { scale, residual, .. } = *finish.epilogue;
    for row in rows.clone() {
        let at = row * finish.columns / 2 + panel * LANES;
        // SAFETY: as the caller promised; gated weights have whole panels.
        unsafe {
            let sums = sums.add((row - rows.start) * stride);
            let gate = L::load(sums.add(LANES), LANES).gelu_f32();
            let mut value = L::load(sums, LANES).mul(gate).mul(L::splat(scale));
            if let Some(residual) = residual {
                value = value.add(L::load(residual.as_ptr().add(at), LANES));
            }
            value.store(finish.out.get().add(at), LANES);
        }
    }
}

multiversion! {
    fn widen_bf16(isa: Isa, from: &[u16], to: &mut [f32]) {
        for (to, bits) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(*bits) << 16);
        }
    }
}

/// A tile at the right edge, where fewer than 32 columns exist: computed in a buffer of its own.
///
/// # Safety
/// As [`tile`], with `c` valid for `columns` values per row.
unsafe fn partial_tile(
    isa: Isa,
    rows: &[*const f32],
    k: usize,
    panel: &[f32],
    c: *mut f32,
    c_stride: usize,
    columns: usize,
    first: bool,
    bias: Option<&[f32; PANEL]>,
) {
    let mut buffer = [0f32; TILE_ROWS * PANEL];
    for row in 0..rows.len() {
        let line = &mut buffer[row * PANEL..row * PANEL + columns];
        match (first, bias) {
            (true, Some(bias)) => line.copy_from_slice(&bias[..columns]),
            (true, None) => {}
            // SAFETY: `columns` values of a row of this task.
            (false, _) => unsafe {
                std::ptr::copy_nonoverlapping(c.add(row * c_stride), line.as_mut_ptr(), columns);
            },
        }
    }
    let narrow = columns <= PANEL / 2;
    // SAFETY: the buffer has room for 12 rows of 32 columns; the rest is the caller's promise.
    unsafe {
        tile(isa, rows, k, panel.as_ptr(), buffer.as_mut_ptr(), PANEL, narrow, true);
    };
    for row in 0..rows.len() {
        // SAFETY: `columns` values of a row of this task.
        unsafe {
            std::ptr::copy_nonoverlapping(buffer[row * PANEL..].as_ptr(), c.add(row * c_stride), columns);
        };
    }
}

/// A part of a panel as f32: in place if it is stored so, else widened into `buffer`.
fn widen<'a>(
    isa: Isa,
    weights: &'a PackedMatrix,
    panel: usize,
    first_k: usize,
    length: usize,
    buffer: &'a mut Buffer<f32>,
) -> &'a [f32] {
    let start = (panel * weights.k + first_k) * PANEL;
    let range = start..start + length * PANEL;
    if let Storage::F32(values) = &weights.storage {
        return &values[range];
    }
    if buffer.len() < length * PANEL {
        *buffer = Buffer::new(length * PANEL);
    }
    let buffer = &mut buffer[..length * PANEL];
    match &weights.storage {
        Storage::F32(_) => {}
        Storage::F16(values) => widen_f16(isa, bytes_of(&values[range]).as_chunks().0, buffer),
        Storage::Bf16(values) => widen_bf16(isa, &values[range], buffer),
    }
    buffer
}
