//! Scaled dot-product attention in one pass over the keys: no score matrix in memory.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::lanes::{LANES, Lanes, with_lanes};
use crate::matmul::SharedMut;
use crate::microkernel::{TILE_ROWS, tile};
use crate::pack::PANEL;
use crate::stop::Polled;
use crate::{Arena, Buffer, Isa, OutOfMemory, elements};

/// Keys handled between two updates of the running maximum. Fixed: part of the result's definition.
const KEY_BLOCK: usize = 256;

/// Queries of one task.
const QUERY_BLOCK: usize = 8 * TILE_ROWS;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Independent sequences.
    pub batch: usize,
    /// Heads; each takes `head_dim` consecutive channels.
    pub heads: usize,
    /// Channels of one head.
    pub head_dim: usize,
    /// Query tokens.
    pub queries: usize,
    /// Key and value tokens.
    pub keys: usize,
    /// Whether query `i` sees keys `0..=i` only.
    pub causal: bool,
}

/// softmax(q kᵀ / √head_dim) v per head. `q` and `out` are `(batch, queries, heads · head_dim)`, `k` and `v`
/// `(batch, keys, heads · head_dim)`.
///
/// # Panics
/// If lengths do not fit the shape, or there is no key.
pub fn attention(isa: Isa, q: &[f32], k: &[f32], v: &[f32], shape: AttentionShape, out: &mut [f32]) {
    let AttentionShape { batch, heads, head_dim, queries, keys, causal } = shape;
    assert_eq!(q.len(), elements(&[batch, queries, heads, head_dim]), "attention: queries");
    attention_packed(isa, q, &PackedKeys::new(k, v, batch, heads, head_dim, keys), causal, out);
}

/// As [`attention`], with keys and values that were packed before.
///
/// # Panics
/// If the lengths of `q` and `out` do not fit the keys, or there is none.
pub fn attention_packed(isa: Isa, q: &[f32], packed: &PackedKeys, causal: bool, out: &mut [f32]) {
    let PackedKeys { batch, heads, head_dim, keys, .. } = *packed;
    let queries = q.len() / (batch * heads * head_dim).max(1);
    assert!(
        q.len() == elements(&[batch, queries, heads, head_dim]) && out.len() == q.len(),
        "attention: queries"
    );
    if out.is_empty() {
        return;
    }
    assert!(keys > 0, "attention: no keys");
    let shape = AttentionShape { batch, heads, head_dim, queries, keys, causal };
    let width = heads * head_dim;
    let blocks = queries.div_ceil(QUERY_BLOCK);
    let out = SharedMut(out.as_mut_ptr());
    let stop = Polled::current();
    (0..batch * heads * blocks).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
        if stop.is_wanted() {
            return;
        }
        let (index, block) = (task / blocks, task % blocks);
        let head = packed.head(index);
        let last = queries.min((block + 1) * QUERY_BLOCK);
        // Queries of a task are multiplied with the same values. Those of keys that a query must not see have weight 0
        // for it, which is enough unless they are infinite or NaN: then each query is computed alone, with its own keys.
        let together = if causal && !head.is_finite() { 1 } else { QUERY_BLOCK };
        for first in (block * QUERY_BLOCK..last).step_by(together) {
            let count = together.min(last - first);
            let start = ((index / heads) * queries + first) * width + (index % heads) * head_dim;
            scratch.run(isa, &q[start..], width, head, shape, first, count);
            for row in 0..count {
                let from = &scratch.sums[row * scratch.sums_stride..][..head_dim];
                // SAFETY: this task alone writes these rows of this head, within `out` (asserted above).
                unsafe {
                    let to = out.get().add(start + row * width);
                    std::ptr::copy_nonoverlapping(from.as_ptr(), to, head_dim);
                }
            }
        }
    });
}

/// Keys and values of an attention as panels. Cross-attention packs them once for many queries.
pub struct PackedKeys {
    batch: usize,
    heads: usize,
    head_dim: usize,
    keys: usize,
    /// Per batch and head: keys `[key / 32][channel][key % 32]`, then values `[channel / 32][key][channel % 32]`.
    panels: Buffer<f32>,
}

/// One head's part of [`PackedKeys`].
#[derive(Clone, Copy)]
struct PackedHead<'a> {
    keys: &'a [f32],
    values: &'a [f32],
}

impl PackedHead<'_> {
    /// Whether no value is infinite or NaN.
    fn is_finite(&self) -> bool {
        self.values.iter().all(|value| value.is_finite())
    }
}

impl PackedKeys {
    /// `k` and `v` are `(batch, keys, heads · head_dim)`.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn new(k: &[f32], v: &[f32], batch: usize, heads: usize, head_dim: usize, keys: usize) -> Self {
        let length = elements(&[batch, keys, heads, head_dim]);
        assert!(k.len() == length && v.len() == length, "attention: keys and values");
        let width = heads * head_dim;
        let mut packed = Self { batch, heads, head_dim, keys, panels: Buffer::new(0) };
        let (of_keys, of_values) = packed.head_values();
        let mut panels = Buffer::new(elements(&[batch, heads, of_keys + of_values]));
        if length > 0 {
            panels.par_chunks_mut(of_keys + of_values).enumerate().for_each(|(index, panels)| {
                let start = index / heads * keys * width + index % heads * head_dim;
                let (to_keys, to_values) = panels.split_at_mut(of_keys);
                packed.pack(&k[start..], &v[start..], width, to_keys, to_values);
            });
        }
        packed.panels = panels;
        packed
    }

    /// Bytes that keys and values of these sizes take once they are packed.
    pub fn bytes_of(batch: usize, heads: usize, head_dim: usize, keys: usize) -> usize {
        let (of_keys, of_values) =
            Self { batch, heads, head_dim, keys, panels: Buffer::new(0) }.head_values();
        Buffer::<f32>::bytes_of(batch * heads * (of_keys + of_values))
    }

    /// The same in an arena's memory, which must be open.
    ///
    /// # Errors
    /// If the arena is full.
    pub fn moved_to(self, arena: &Arc<Arena>) -> Result<Self, OutOfMemory> {
        Ok(Self { panels: self.panels.moved_to(arena)?, ..self })
    }

    /// Values of a head's keys and of its values.
    fn head_values(&self) -> (usize, usize) {
        (self.keys.next_multiple_of(PANEL) * self.head_dim, self.head_dim.next_multiple_of(PANEL) * self.keys)
    }

    fn head(&self, index: usize) -> PackedHead<'_> {
        let (of_keys, of_values) = self.head_values();
        let (keys, values) =
            self.panels[index * (of_keys + of_values)..][..of_keys + of_values].split_at(of_keys);
        PackedHead { keys, values }
    }

    fn pack(&self, k: &[f32], v: &[f32], stride: usize, keys: &mut [f32], values: &mut [f32]) {
        let Self { head_dim, keys: count, .. } = *self;
        keys.fill(0.0);
        values.fill(0.0);
        for key in 0..count {
            let panel = &mut keys[key / PANEL * PANEL * head_dim..];
            for (channel, value) in k[key * stride..key * stride + head_dim].iter().enumerate() {
                panel[channel * PANEL + key % PANEL] = *value;
            }
            for (index, channels) in v[key * stride..key * stride + head_dim].chunks(PANEL).enumerate() {
                let start = (index * count + key) * PANEL;
                values[start..start + channels.len()].copy_from_slice(channels);
            }
        }
    }
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    /// Of one tile's rows.
    scores: Vec<f32>,
    scores_stride: usize,
    sums: Vec<f32>,
    sums_stride: usize,
    maxima: Vec<f32>,
    totals: Vec<f32>,
}

impl Scratch {
    /// Leaves `count` rows of the result in `sums`.
    fn run(
        &mut self,
        isa: Isa,
        q: &[f32],
        q_stride: usize,
        head: PackedHead<'_>,
        shape: AttentionShape,
        first: usize,
        count: usize,
    ) {
        let AttentionShape { head_dim, keys, causal, .. } = shape;
        // Scores are exponents of two.
        let scale = std::f32::consts::LOG2_E / (head_dim as f32).sqrt();
        self.sums_stride = head_dim.next_multiple_of(PANEL);
        self.queries.clear();
        for row in 0..count {
            let row = &q[row * q_stride..row * q_stride + head_dim];
            self.queries.extend(row.iter().map(|value| value * scale));
        }
        self.scores_stride = KEY_BLOCK.min(keys.next_multiple_of(PANEL));
        self.scores.resize(TILE_ROWS * self.scores_stride, 0.0);
        self.sums.clear();
        self.sums.resize(count * self.sums_stride, 0.0);
        self.maxima.clear();
        self.maxima.resize(count, f32::NEG_INFINITY);
        self.totals.clear();
        self.totals.resize(count, 0.0);
        let visible = if causal { keys.min(first + count) } else { keys };
        for first_key in (0..visible).step_by(KEY_BLOCK) {
            let block = KEY_BLOCK.min(visible - first_key);
            // Tile after tile, so that scores never leave the first-level cache.
            for tile in (0..count).step_by(TILE_ROWS) {
                let rows = tile..count.min(tile + TILE_ROWS);
                self.score(isa, head, head_dim, first_key, block, rows.clone());
                for row in rows.clone() {
                    let seen =
                        if causal { (first + row + 1).saturating_sub(first_key).min(block) } else { block };
                    let scores = &mut self.scores[(row - tile) * self.scores_stride..];
                    let scores = &mut scores[..block.next_multiple_of(LANES)];
                    let sums = &mut self.sums[row * self.sums_stride..][..self.sums_stride];
                    let (maximum, total) = (&mut self.maxima[row], &mut self.totals[row]);
                    // SAFETY: `isa` is one this processor has; both slices are whole lanes.
                    unsafe {
                        with_lanes!(isa, softmax_row(
                            scores: &mut [f32] = scores, seen: usize = seen, maximum: &mut f32 = maximum,
                            total: &mut f32 = total, sums: &mut [f32] = sums
                        ));
                    }
                }
                self.weigh(isa, head, head_dim, keys, first_key, block, rows);
            }
        }
        for (sums, total) in self.sums.chunks_exact_mut(self.sums_stride).zip(&self.totals) {
            for sum in sums {
                *sum /= *total;
            }
        }
    }

    /// scores = queries · keysᵀ for a tile's rows and one block of keys.
    fn score(
        &mut self,
        isa: Isa,
        head: PackedHead<'_>,
        head_dim: usize,
        first_key: usize,
        block: usize,
        rows: Range<usize>,
    ) {
        let mut pointers = [std::ptr::null(); TILE_ROWS];
        for (row, pointer) in rows.clone().zip(&mut pointers) {
            *pointer = self.queries[row * head_dim..][..head_dim].as_ptr();
        }
        let pointers = &pointers[..rows.len()];
        for panel in 0..block.div_ceil(PANEL) {
            let keys = &head.keys[(first_key / PANEL + panel) * PANEL * head_dim..][..PANEL * head_dim];
            let c = self.scores[panel * PANEL..].as_mut_ptr();
            // SAFETY: rows hold head_dim values; the panel head_dim * 32 (sliced above); scores has for each row of
            // a tile a multiple of 32 columns that covers the block.
            unsafe { tile(isa, pointers, head_dim, keys.as_ptr(), c, self.scores_stride, false, false) };
        }
    }

    /// sums += scores · values for a tile's rows and one block of keys.
    fn weigh(
        &mut self,
        isa: Isa,
        head: PackedHead<'_>,
        head_dim: usize,
        keys: usize,
        first_key: usize,
        block: usize,
        rows: Range<usize>,
    ) {
        let mut pointers = [std::ptr::null(); TILE_ROWS];
        for (pointer, scores) in pointers.iter_mut().zip(self.scores.chunks(self.scores_stride)) {
            *pointer = scores[..block].as_ptr();
        }
        let pointers = &pointers[..rows.len()];
        for panel in 0..head_dim.div_ceil(PANEL) {
            let values = &head.values[(panel * keys + first_key) * PANEL..][..block * PANEL];
            let narrow = head_dim - panel * PANEL <= PANEL / 2;
            let c = self.sums[rows.start * self.sums_stride + panel * PANEL..].as_mut_ptr();
            // SAFETY: rows hold `block` values; the panel block * 32 (sliced above); sums has a multiple of 32
            // columns for each of these rows.
            unsafe { tile(isa, pointers, block, values.as_ptr(), c, self.sums_stride, narrow, true) };
        }
    }
}

/// The first `seen` scores of a row, powers of two, to weights relative to the running maximum, the others to 0; what
/// was summed so far is rescaled to the new maximum.
///
/// # Safety
/// `scores` and `sums` are whole lanes.
#[inline(always)]
#[allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]
unsafe fn softmax_row<L: Lanes>(
    scores: &mut [f32],
    seen: usize,
    maximum: &mut f32,
    total: &mut f32,
    sums: &mut [f32],
) {
    // Far below what adds to a sum, yet a normal number: others are slow. −∞ would make NaN; NaN stays.
    const LEAST: f32 = -126.0;
    scores[seen..].fill(f32::NEG_INFINITY);
    // SAFETY: whole lanes.
    unsafe {
        let mut highest = L::splat(*maximum);
        for chunk in scores.chunks_exact(LANES) {
            highest = L::load(chunk.as_ptr(), LANES).max(highest);
        }
        let highest = highest.largest();
        if highest == f32::NEG_INFINITY {
            if scores[..seen].iter().any(|score| score.is_nan()) {
                *total = f32::NAN;
            }
            return scores.fill(0.0);
        }
        let mut sum = L::splat(0.0);
        for chunk in scores.chunks_exact_mut(LANES) {
            let exponent = L::load(chunk.as_ptr(), LANES).sub(L::splat(highest));
            let weight = L::splat(LEAST).max(exponent).exp2_f32();
            sum = sum.add(weight);
            weight.store(chunk.as_mut_ptr(), LANES);
        }
        scores[seen..].fill(0.0);
        let mut lanes = [0f32; LANES];
        sum.store(lanes.as_mut_ptr(), LANES);
        if *maximum < highest {
            let correction = L::splat(LEAST).max(L::splat(*maximum - highest)).exp2_f32();
            for chunk in sums.chunks_exact_mut(LANES) {
                L::load(chunk.as_ptr(), LANES).mul(correction).store(chunk.as_mut_ptr(), LANES);
            }
            let mut first = [0f32];
            correction.store(first.as_mut_ptr(), 1);
            *total *= first[0];
            *maximum = highest;
        }
        *total += lanes.iter().sum::<f32>();
    }
}
