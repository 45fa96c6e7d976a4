//! Scaled dot-product attention on tiles, in one pass over the keys: no score matrix in memory.
//!
//! Scores are taken as keys · queriesᵀ: a row is a key, a lane a query. So maxima and totals are taken over rows, lane by
//! lane, and weights, two keys in turns, are already what the tiles take as the right side of valuesᵀ · weights.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]

use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use rayon::prelude::*;

use super::tiles::{Ahead, BLOCK, BLOCK_VALUES, BlockRows, Dense, PANEL_STEP, STEP, TILE, Tiles};
use crate::lanes::{LANES, Lanes, with_lanes};
use crate::matmul::SharedMut;
use crate::stop::Polled;
use crate::{Arena, AttentionShape, Buffer, Isa, OutOfMemory, elements};

/// Panels of 32 keys whose weights wait to be multiplied together.
const GROUP: usize = 8;
/// Queries of one task: enough that fetching a head's keys and values into the second-level cache, 1 MiB for 4,096 keys
/// of up to 64 channels, is little beside their use.
const TASK_QUERIES: usize = 16 * BLOCK;
/// Vectors of a block's queries.
const VECTORS: usize = BLOCK / LANES;

/// Stands for no score: far below any, and finite, so that differences are. A power of two, −2¹⁰⁰, so that scaling is
/// exact.
const HIDDEN: f32 = -1.267_650_6e30;
/// Exponent of a weight too small to change a sum; below it numbers are not normal, and slow.
const LEAST: f32 = -126.0;
/// Weights are powers of two relative to a base, the largest score at first. Later ones may be above it by this power:
/// that costs f32 and bf16 no precision, only range, while with a new base all sums have to be multiplied.
const MOST: f32 = 16.0;

// What follows takes 32 keys as one step of products and as one block's rows, and a vector for a tile's columns.
const _: () = assert!(BLOCK == STEP && LANES == TILE && GROUP > 0);

/// One f32 per query of a block.
type PerQuery = [[f32; LANES]; VECTORS];

/// Keys and values of an attention, laid out for the tiles. Cross-attention packs them once for many queries.
pub struct PackedKeys {
    batch: usize,
    heads: usize,
    head_dim: usize,
    keys: usize,
    /// Per batch and head: keys `[key][channel]`, both padded to whole steps, then values as tiles
    /// `[key / 32][channel / 16][channel % 16][key % 32]` of as many.
    tiles: Buffer<bf16>,
}

impl PackedKeys {
    /// `k` and `v` are `(batch, keys, heads · head_dim)`.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn new(k: &[bf16], v: &[bf16], batch: usize, heads: usize, head_dim: usize, keys: usize) -> Self {
        let length = elements(&[batch, keys, heads, head_dim]);
        assert!(k.len() == length && v.len() == length, "attention: keys and values");
        let width = heads * head_dim;
        let mut packed = Self { batch, heads, head_dim, keys, tiles: Buffer::new(0) };
        let head = packed.head_values();
        let mut tiles = Buffer::new(elements(&[batch, heads, head]));
        if length > 0 {
            tiles.par_chunks_mut(head).enumerate().for_each(|(index, tiles)| {
                let start = index / heads * keys * width + index % heads * head_dim;
                let (to_keys, to_values) = tiles.split_at_mut(head / 2);
                packed.pack_keys(&k[start..], width, to_keys);
                packed.pack_values(&v[start..], width, to_values);
            });
        }
        packed.tiles = tiles;
        packed
    }

    /// Bytes that keys and values of these sizes take once they are packed.
    pub fn bytes_of(batch: usize, heads: usize, head_dim: usize, keys: usize) -> usize {
        let head = Self { batch, heads, head_dim, keys, tiles: Buffer::new(0) }.head_values();
        Buffer::<bf16>::bytes_of(batch * heads * head)
    }

    /// The same in an arena's memory, which must be open.
    ///
    /// # Errors
    /// If the arena is full.
    pub fn moved_to(self, arena: &Arc<Arena>) -> Result<Self, OutOfMemory> {
        Ok(Self { tiles: self.tiles.moved_to(arena)?, ..self })
    }

    /// Channels in whole steps.
    fn channels(&self) -> usize {
        self.head_dim.next_multiple_of(STEP)
    }

    fn head_values(&self) -> usize {
        2 * self.channels() * self.keys.next_multiple_of(STEP)
    }

    fn pack_keys(&self, k: &[bf16], width: usize, tiles: &mut [bf16]) {
        let mut rows = tiles.chunks_exact_mut(self.channels());
        for (to, from) in (&mut rows).zip(k.chunks(width)).take(self.keys) {
            to[..self.head_dim].copy_from_slice(&from[..self.head_dim]);
            to[self.head_dim..].fill(bf16::ZERO);
        }
        rows.for_each(|padding| padding.fill(bf16::ZERO));
    }

    fn pack_values(&self, v: &[bf16], width: usize, tiles: &mut [bf16]) {
        tiles.fill(bf16::ZERO);
        let step_values = self.channels() * STEP;
        let row = |key: usize| if key < self.keys { &v[key * width..][..self.head_dim] } else { &[] };
        for key in (0..self.keys).step_by(2) {
            let step = &mut tiles[key / STEP * step_values..][..step_values];
            let (even, odd) = (row(key), row(key + 1));
            for (channel, to) in step.chunks_exact_mut(STEP).enumerate().take(self.head_dim) {
                to[key % STEP] = even[channel];
                to[key % STEP + 1] = odd.get(channel).copied().unwrap_or(bf16::ZERO);
            }
        }
    }
}

/// softmax(q kᵀ / √head_dim) v per head. `q` and `out` are `(batch, queries, heads · head_dim)`; with `causal`, query
/// `i` sees keys `0..=i` only.
///
/// # Panics
/// If lengths do not fit, or there is no key.
pub fn attention_packed(isa: Isa, q: &[bf16], keys: &PackedKeys, causal: bool, out: &mut [bf16]) {
    let PackedKeys { batch, heads, head_dim, .. } = *keys;
    let width = heads * head_dim;
    let queries = q.len().checked_div(elements(&[batch, width])).unwrap_or(0);
    assert!(q.len() == elements(&[batch, queries, width]) && out.len() == q.len(), "attention: queries");
    if out.is_empty() {
        return;
    }
    assert!(keys.keys > 0, "attention: no keys");
    let threads = rayon::current_num_threads();
    let even = (queries * batch * heads).div_ceil(threads * 2).next_multiple_of(BLOCK);
    let task_queries = even.min(TASK_QUERIES);
    let tasks = queries.div_ceil(task_queries);
    let out = SharedMut(out.as_mut_ptr());
    let stop = Polled::current();
    (0..batch * heads * tasks).into_par_iter().with_max_len(1).for_each(|task| {
        let (index, part) = (task / tasks, task % tasks);
        let start = index / heads * queries * width + index % heads * head_dim;
        let mut stream = Stream::new(isa, keys, index, causal);
        // Queries of a block are multiplied with the same values. Those of keys that a query must not see have weight 0
        // for it, which is enough unless they are infinite or NaN: then each query is computed alone, without them.
        let alone = causal && !stream.head_values.iter().all(|value| value.is_finite());
        let together = if alone { 1 } else { BLOCK };
        let last = queries.min((part + 1) * task_queries);
        for first in (part * task_queries..last).step_by(together) {
            if stop.is_wanted() {
                return;
            }
            let count = together.min(last - first);
            if alone {
                stream.see_values_up_to(first);
            }
            stream.run(&q[start + first * width..], width, first, count);
            // SAFETY: this task alone writes these rows of this head, within `out` (asserted above).
            unsafe { stream.store(out.get().add(start + first * width), width, count) };
        }
    });
}

/// As [`attention_packed`], with keys and values that are used once: `(batch, keys, heads · head_dim)`.
///
/// # Panics
/// If lengths do not fit the shape, or there is no key.
pub fn attention(isa: Isa, q: &[bf16], k: &[bf16], v: &[bf16], shape: AttentionShape, out: &mut [bf16]) {
    let AttentionShape { batch, heads, head_dim, queries, keys, causal } = shape;
    assert!(q.len() == elements(&[batch, queries, heads, head_dim]), "attention: queries");
    attention_packed(isa, q, &PackedKeys::new(k, v, batch, heads, head_dim, keys), causal, out);
}

/// Running state of one block of queries.
struct Stream<'a> {
    isa: Isa,
    tiles: Tiles,
    keys: &'a PackedKeys,
    head_keys: &'a [bf16],
    head_values: &'a [bf16],
    /// A copy of them without those of keys after the query that is computed alone.
    seen_values: Option<Buffer<bf16>>,
    causal: bool,
    /// Scores become powers of two: 1 / √head_dim · log₂ e.
    scale: f32,
    parts: Parts,
}

/// Buffers of a block of queries.
struct Parts {
    /// A panel: columns are queries, its `k` channels.
    queries: Buffer<bf16>,
    /// Of a panel of keys: rows are keys, columns queries.
    scores: Buffer<f32>,
    /// Of a group of panels of keys. A panel: columns are queries, its `k` keys.
    weights: Buffer<bf16>,
    /// Blocks of 32 channels; rows are channels, columns queries.
    sums: Buffer<f32>,
    /// The score whose weight is 1, scaled: an exponent of two.
    base: PerQuery,
    /// Of all weights so far.
    totals: PerQuery,
    /// Pairs of channels of one vector of queries, on their way out.
    pairs: Buffer<bf16>,
}

impl<'a> Stream<'a> {
    fn new(isa: Isa, keys: &'a PackedKeys, index: usize, causal: bool) -> Self {
        let head = keys.head_values();
        let (head_keys, head_values) = keys.tiles[index * head..(index + 1) * head].split_at(head / 2);
        let channels = keys.channels();
        Self {
            isa,
            tiles: Tiles::new(isa),
            keys,
            head_keys,
            head_values,
            seen_values: None,
            causal,
            scale: (f64::from(std::f32::consts::LOG2_E) / (keys.head_dim as f64).sqrt()) as f32,
            parts: Parts {
                queries: Buffer::new(BLOCK * channels),
                scores: Buffer::new(BLOCK_VALUES),
                weights: Buffer::new(GROUP * PANEL_STEP),
                sums: Buffer::new(channels / BLOCK * BLOCK_VALUES),
                base: [[HIDDEN; LANES]; VECTORS],
                totals: [[0.0; LANES]; VECTORS],
                pairs: Buffer::new(channels * LANES),
            },
        }
    }

    /// Leaves the weighed values of `count` queries, the first of the sequence being `first`, in `sums`.
    fn run(&mut self, q: &[bf16], width: usize, first: usize, count: usize) {
        let keys = self.keys.keys;
        self.pack_queries(q, width, count);
        self.parts.base = [[HIDDEN * self.scale; LANES]; VECTORS];
        self.parts.totals = [[0.0; LANES]; VECTORS];
        let visible = if self.causal { keys.min(first + count) } else { keys };
        let panels = visible.div_ceil(BLOCK);
        // Panels whose weights are there and wait.
        let mut group = 0..0;
        for panel in 0..panels {
            self.score(panel);
            let hidden = self.hide(panel, first);
            if panel == 0 {
                self.rebase(false);
            }
            if !self.take_weights(group.len(), hidden, MOST) {
                // Scores are far above the base: what has weights relative to it is weighed before it is another.
                self.weigh(group);
                self.rebase(panel > 0);
                group = panel..panel;
                self.take_weights(0, hidden, f32::INFINITY);
            }
            if self.causal && hidden {
                self.clear_hidden(group.len(), panel, first);
            }
            group.end = panel + 1;
            if group.len() == GROUP {
                self.weigh(group);
                group = panel + 1..panel + 1;
            }
        }
        self.weigh(group);
    }

    fn pack_queries(&mut self, q: &[bf16], width: usize, count: usize) {
        let queries = &mut self.parts.queries;
        queries.fill(bf16::ZERO);
        for (query, from) in q.chunks(width).take(count).enumerate() {
            let column = query / TILE * PANEL_STEP / 2 + query % TILE * 2;
            let (pairs, last) = from[..self.keys.head_dim].as_chunks::<2>();
            let steps = queries[column..].chunks_mut(PANEL_STEP);
            for (step, pairs) in steps.zip(pairs.chunks(TILE)) {
                for (pair, to) in pairs.iter().zip(step.chunks_mut(BLOCK)) {
                    to[..2].copy_from_slice(pair);
                }
            }
            if let [last] = last {
                queries[column + pairs.len() / TILE * PANEL_STEP + pairs.len() % TILE * BLOCK] = *last;
            }
        }
    }

    /// scores = keys · queriesᵀ for a panel of keys.
    fn score(&mut self, panel: usize) {
        let channels = self.keys.channels();
        let keys = &self.head_keys[panel * BLOCK * channels..][..BLOCK * channels];
        let rows = BlockRows {
            tiles: [keys.as_ptr(), keys[TILE * channels..].as_ptr()],
            stride: channels,
            offsets: &[0],
            steps: channels / STEP,
        };
        let (queries, scores) = (self.parts.queries.as_ptr(), self.parts.scores.as_mut_ptr());
        // SAFETY: 32 rows of all channels; a panel of as many steps; a block of scores; both on 64-byte boundaries.
        unsafe { self.tiles.product(&rows, queries, scores, false, Ahead::NONE, || ()) };
    }

    /// The panel's scores to weights, at a place in the group; false, and nothing added to the totals, if one is above
    /// the power `most`.
    fn take_weights(&mut self, place: usize, hidden: bool, most: f32) -> bool {
        let mut fits = false;
        // SAFETY: `isa` is one this processor has; a group has that place.
        unsafe {
            with_lanes!(self.isa, weights(
                parts: &mut Parts = &mut self.parts, place: usize = place, scale: f32 = self.scale,
                hidden: bool = hidden, most: f32 = most, fits: &mut bool = &mut fits
            ));
        }
        fits
    }

    /// sums += valuesᵀ · weights of a group.
    fn weigh(&mut self, group: Range<usize>) {
        if group.is_empty() {
            return;
        }
        let step = self.keys.channels() * STEP;
        let values = self.seen_values.as_deref().unwrap_or(self.head_values);
        let values = &values[group.start * step..][..group.len() * step];
        let offsets: [usize; GROUP] = std::array::from_fn(|panel| panel * step * size_of::<bf16>());
        let weights = self.parts.weights.as_ptr();
        for (block, sums) in self.parts.sums.chunks_exact_mut(BLOCK_VALUES).enumerate() {
            let tile = |tile: usize| values[(block * 2 + tile) * TILE * STEP..].as_ptr();
            let rows = BlockRows {
                tiles: [tile(0), tile(1)],
                stride: STEP,
                offsets: &offsets[..group.len()],
                steps: 1,
            };
            let accumulate = group.start > 0;
            // SAFETY: two tiles at each offset; a panel of as many steps; a block of sums; both on 64-byte boundaries.
            unsafe {
                self.tiles.product(&rows, weights, sums.as_mut_ptr(), accumulate, Ahead::NONE, || ());
            }
        }
    }

    /// Hides scores of keys that do not exist, or that a query must not see; whether there are any.
    fn hide(&mut self, panel: usize, first: usize) -> bool {
        let begin = panel * BLOCK;
        let hidden = begin + BLOCK > self.keys.keys || self.causal && begin + BLOCK > first + 1;
        if hidden {
            let scores = &mut self.parts.scores[..];
            for row in 0..BLOCK {
                let key = begin + row;
                // A causal query sees the keys up to its own place.
                let unseen = if self.causal { key.saturating_sub(first).min(BLOCK) } else { 0 };
                let unseen = if key < self.keys.keys { unseen } else { BLOCK };
                for vector in 0..VECTORS {
                    let unseen = unseen.saturating_sub(vector * LANES).min(LANES);
                    scores[Dense::row(row) + vector * Dense::RIGHT..][..unseen].fill(HIDDEN);
                }
            }
        }
        hidden
    }

    /// Sets the weights of keys that a query must not see to 0. Until then they are 2⁻¹²⁶, which a large value makes
    /// more of than nothing.
    fn clear_hidden(&mut self, place: usize, panel: usize, first: usize) {
        let weights = &mut self.parts.weights[place * PANEL_STEP..][..PANEL_STEP];
        for row in 0..BLOCK {
            let unseen = (panel * BLOCK + row).saturating_sub(first).min(BLOCK);
            for query in 0..unseen {
                // Pairs of keys, for one vector of queries after the other.
                let vector = &mut weights[query / LANES * PANEL_STEP / VECTORS..];
                vector[row / 2 * BLOCK + query % LANES * 2 + row % 2] = bf16::ZERO;
            }
        }
    }

    /// Sets the values of keys after a query to 0 in a copy, which the next run uses.
    fn see_values_up_to(&mut self, query: usize) {
        let mut seen = Buffer::new(self.head_values.len());
        seen.copy_from_slice(self.head_values);
        let step = self.keys.channels() * STEP;
        for of_channel in seen[query / STEP * step..][..step].chunks_exact_mut(STEP) {
            of_channel[query % STEP + 1..].fill(bf16::ZERO);
        }
        self.seen_values = Some(seen);
    }

    /// Takes the panel's maxima as base where they are far above it, and brings totals and sums there.
    fn rebase(&mut self, any_sums: bool) {
        // SAFETY: `isa` is one this processor has.
        unsafe {
            with_lanes!(self.isa, rebase(
                parts: &mut Parts = &mut self.parts, scale: f32 = self.scale, any_sums: bool = any_sums
            ));
        }
    }

    /// Divides by the weights' totals and stores `count` rows.
    ///
    /// # Safety
    /// `count` rows of `head_dim` values, `width` apart, must be writable at `out`.
    unsafe fn store(&mut self, out: *mut bf16, width: usize, count: usize) {
        let head_dim = self.keys.head_dim;
        for first in (0..count).step_by(LANES) {
            // SAFETY: `isa` is one this processor has.
            unsafe {
                with_lanes!(self.isa, divide(parts: &mut Parts = &mut self.parts, vector: usize = first / LANES));
            }
            let pairs = self.parts.pairs.as_ptr();
            for query in first..count.min(first + LANES) {
                // SAFETY: `pairs` holds pairs of all channels for each query of the vector; the rest is the caller's
                // promise.
                unsafe {
                    let to = out.add(query * width);
                    let from = pairs.add(query % LANES * 2);
                    for pair in 0..head_dim / 2 {
                        let both = from.add(pair * 2 * LANES).cast::<[bf16; 2]>().read();
                        to.add(pair * 2).cast::<[bf16; 2]>().write_unaligned(both);
                    }
                    if head_dim % 2 == 1 {
                        to.add(head_dim - 1).write(from.add(head_dim / 2 * 2 * LANES).read());
                    }
                }
            }
        }
    }
}

/// A panel's scores to weights relative to the base, and their totals if all weights fit.
#[inline(always)]
unsafe fn weights<L: Lanes>(
    parts: &mut Parts,
    place: usize,
    scale: f32,
    hidden: bool,
    most: f32,
    fits: &mut bool,
) {
    let Parts { scores, weights, base, totals, .. } = parts;
    let weights = weights[place * PANEL_STEP..][..PANEL_STEP].as_mut_ptr();
    // SAFETY: pairs of rows of a panel of keys, each of whole vectors.
    unsafe {
        let factor = L::splat(scale);
        let mut highest = L::splat(HIDDEN);
        let mut new = [L::splat(0.0); VECTORS];
        for (vector, new) in new.iter_mut().enumerate() {
            let base = L::splat(0.0).sub(L::load(base[vector].as_ptr(), LANES));
            let mut sums = [L::splat(0.0); 2];
            for pair in 0..BLOCK / 2 {
                let from = scores.as_ptr().add(Dense::row(2 * pair) + vector * Dense::RIGHT);
                let mut both = [L::load(from, LANES), L::load(from.add(Dense::ROW), LANES)];
                for (value, sum) in both.iter_mut().zip(&mut sums) {
                    let mut exponent = value.mul_add(factor, base);
                    highest = exponent.max(highest);
                    if hidden {
                        exponent = L::splat(LEAST).max(exponent);
                    }
                    *value = exponent.exp2();
                    *sum = sum.add(*value);
                }
                both[0].store_bf16_interleaved(both[1], weights.add(vector * PANEL_STEP / 2 + pair * BLOCK));
            }
            *new = L::load(totals[vector].as_ptr(), LANES).add(sums[0].add(sums[1]));
        }
        *fits = highest.largest() <= most;
        if *fits {
            for (new, totals) in new.into_iter().zip(totals) {
                new.store(totals.as_mut_ptr(), LANES);
            }
        }
    }
}

/// As `Stream::rebase`. Queries whose scores are not far above keep their base: what one of them gives does not depend
/// on the others.
#[inline(always)]
unsafe fn rebase<L: Lanes>(parts: &mut Parts, scale: f32, any_sums: bool) {
    let Parts { scores, base, totals, sums, .. } = parts;
    for (vector, (base, totals)) in base.iter_mut().zip(totals).enumerate() {
        let at = |row: usize| Dense::row(row) + vector * Dense::RIGHT;
        // SAFETY: rows of tiles within the blocks of scores and sums; vectors.
        unsafe {
            let mut largest = L::splat(HIDDEN);
            for row in 0..BLOCK {
                largest = L::load(scores.as_ptr().add(at(row)), LANES).max(largest);
            }
            let mut new = [0f32; LANES];
            largest.mul(L::splat(scale)).store(new.as_mut_ptr(), LANES);
            let mut exponents = [0f32; LANES];
            for ((base, new), exponent) in base.iter_mut().zip(new).zip(&mut exponents) {
                if new - *base > MOST {
                    *exponent = (*base - new).max(LEAST);
                    *base = new;
                }
            }
            let correction = L::load(exponents.as_ptr(), LANES).exp2();
            L::load(totals.as_ptr(), LANES).mul(correction).store(totals.as_mut_ptr(), LANES);
            for block in sums.chunks_exact_mut(BLOCK_VALUES).filter(|_| any_sums) {
                for row in 0..BLOCK {
                    let at = block.as_mut_ptr().add(at(row));
                    L::load(at, LANES).mul(correction).store(at, LANES);
                }
            }
        }
    }
}

/// Sums over totals of one vector of queries, as pairs of channels.
#[inline(always)]
unsafe fn divide<L: Lanes>(parts: &mut Parts, vector: usize) {
    let Parts { sums, totals, pairs, .. } = parts;
    // SAFETY: rows of tiles within the blocks of sums, and as many pairs.
    unsafe {
        let factor = L::splat(1.0).div(L::load(totals[vector].as_ptr(), LANES));
        for (pair, to) in pairs.chunks_exact_mut(2 * LANES).enumerate() {
            let row = pair * 2 / BLOCK * BLOCK_VALUES + Dense::row(pair * 2 % BLOCK);
            let from = sums.as_ptr().add(row + vector * Dense::RIGHT);
            let first = L::load(from, LANES).mul(factor);
            let second = L::load(from.add(Dense::ROW), LANES).mul(factor);
            first.store_bf16_interleaved(second, to.as_mut_ptr());
        }
    }
}
