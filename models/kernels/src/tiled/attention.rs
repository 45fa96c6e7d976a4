//! Scaled dot-product attention on tiles, in one pass over the keys: no score matrix in memory.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::tiles::{
    Ahead, BLOCK, BLOCK_VALUES, BlockLayout, BlockRows, Dense, PANEL_STEP, STEP, TILE, Tiles,
};
use crate::lanes::{LANES, Lanes, with_lanes};
use crate::matmul::SharedMut;
use crate::{AttentionShape, Buffer, Isa, elements};

/// Keys handled between two updates of the running maximum. Fixed: part of the result's definition.
const KEY_BLOCK: usize = 256;
/// Queries of one task: as many as read a head's keys from the second-level cache before the next head's come.
const TASK_QUERIES: usize = 16 * BLOCK;
/// Values between rows of weights; a multiple of 64 bytes that spreads them over the cache's sets.
const WEIGHTS_STRIDE: usize = KEY_BLOCK + STEP;

/// Turns in which a block's vector work alternates with the tiles'.
const TURNS: usize = 8;

/// Stands for no score: far below any, and finite, so that differences are.
const HIDDEN: f32 = -1e30;

/// Scores of 32 queries, each query's in a row; rows spread over the cache's sets.
struct Scores;

impl BlockLayout for Scores {
    const ROW: usize = KEY_BLOCK + TILE;
    const RIGHT: usize = TILE;
    const BELOW: usize = TILE * Self::ROW;
}

/// Keys and values of an attention, laid out for the tiles. Cross-attention packs them once for many queries.
pub struct PackedKeys {
    batch: usize,
    heads: usize,
    head_dim: usize,
    keys: usize,
    /// Per batch and head: keys `[key / 32][channel / 32]`, then values `[channel / 32][key / 32]`, in steps of two
    /// tiles.
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

    /// Steps over channels.
    fn channel_steps(&self) -> usize {
        self.head_dim.div_ceil(STEP)
    }

    /// Steps over keys.
    fn key_steps(&self) -> usize {
        self.keys.div_ceil(STEP)
    }

    fn head_values(&self) -> usize {
        2 * self.channel_steps() * self.key_steps() * PANEL_STEP
    }

    /// A panel's columns are keys, its `k` channels.
    fn pack_keys(&self, k: &[bf16], width: usize, tiles: &mut [bf16]) {
        tiles.fill(bf16::ZERO);
        let panel = self.channel_steps() * PANEL_STEP;
        for key in 0..self.keys {
            let column = key % BLOCK / TILE * PANEL_STEP / 2 + key % TILE * 2;
            let to = &mut tiles[key / BLOCK * panel + column..];
            let from = &k[key * width..key * width + self.head_dim];
            for (pair, values) in from.chunks(2).enumerate() {
                let place = pair / TILE * PANEL_STEP + pair % TILE * BLOCK;
                to[place..place + values.len()].copy_from_slice(values);
            }
        }
    }

    /// A panel's columns are channels, its `k` keys.
    fn pack_values(&self, v: &[bf16], width: usize, tiles: &mut [bf16]) {
        tiles.fill(bf16::ZERO);
        let panel = self.key_steps() * PANEL_STEP;
        for key in (0..self.keys).step_by(2) {
            let row = key / STEP * PANEL_STEP + key % STEP / 2 * BLOCK;
            let even = &v[key * width..key * width + self.head_dim];
            // Behind the last of an odd number stands nothing, weighed with nothing.
            let odd = if key + 1 < self.keys { &v[(key + 1) * width..][..self.head_dim] } else { &[] };
            for (tile, even) in even.chunks(TILE).enumerate() {
                let place = tile / 2 * panel + tile % 2 * PANEL_STEP / 2 + row;
                let pairs = &mut tiles[place..place + even.len() * 2];
                for (pair, even) in pairs.chunks_exact_mut(2).zip(even) {
                    pair[0] = *even;
                }
                let odd = odd.get(tile * TILE..).unwrap_or_default();
                for (pair, odd) in pairs.chunks_exact_mut(2).zip(odd) {
                    pair[1] = *odd;
                }
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
    (0..batch * heads * tasks).into_par_iter().with_max_len(1).for_each(|task| {
        let (index, part) = (task / tasks, task % tasks);
        let start = index / heads * queries * width + index % heads * head_dim;
        let mut stream = Stream::new(isa, keys, index, causal);
        for first in (part * task_queries..queries.min((part + 1) * task_queries)).step_by(BLOCK) {
            let count = BLOCK.min(queries - first);
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
    causal: bool,
    /// Scores become powers of two: 1 / √head_dim · log₂ e.
    scale: f32,
    parts: Parts,
}

/// Buffers of a block of queries.
struct Parts {
    queries: Buffer<bf16>,
    /// Of a block of keys and of the one before it, in turns.
    weights: [Buffer<bf16>; 2],
    /// Of a block of keys and of the one after it, in turns.
    scores: [Buffer<f32>; 2],
    sums: Buffer<f32>,
    maxima: [f32; BLOCK],
    totals: [[f32; LANES]; BLOCK],
    /// What old sums are multiplied by when the maximum grows.
    corrections: [f32; BLOCK],
}

impl<'a> Stream<'a> {
    fn new(isa: Isa, keys: &'a PackedKeys, index: usize, causal: bool) -> Self {
        let head = keys.head_values();
        let (head_keys, head_values) = keys.tiles[index * head..(index + 1) * head].split_at(head / 2);
        let channels = keys.channel_steps() * STEP;
        Self {
            isa,
            tiles: Tiles::new(isa),
            keys,
            head_keys,
            head_values,
            causal,
            scale: (f64::from(std::f32::consts::LOG2_E) / (keys.head_dim as f64).sqrt()) as f32,
            parts: Parts {
                queries: Buffer::new(BLOCK * channels),
                weights: [(); 2].map(|()| Buffer::new(BLOCK * WEIGHTS_STRIDE)),
                scores: [(); 2].map(|()| Buffer::new(BLOCK * Scores::ROW)),
                sums: Buffer::new(channels / BLOCK * BLOCK_VALUES),
                maxima: [0.0; BLOCK],
                totals: [[0.0; LANES]; BLOCK],
                corrections: [0.0; BLOCK],
            },
        }
    }

    /// Leaves the weighed values of `count` queries, the first of the sequence being `first`, in `sums`.
    ///
    /// While one block's scores become weights, which the vector units do, the tiles take the next block's scores and
    /// weigh the last block's values: both are issued in turns, a few rows and a product at a time.
    fn run(&mut self, q: &[bf16], width: usize, first: usize, count: usize) {
        let PackedKeys { head_dim, keys, .. } = *self.keys;
        let channels = self.keys.channel_steps() * STEP;
        for (row, to) in self.parts.queries.chunks_exact_mut(channels).enumerate() {
            // Rows beyond the last query are computed for nothing.
            let from = &q[row.min(count - 1) * width..][..head_dim];
            to[..head_dim].copy_from_slice(from);
            to[head_dim..].fill(bf16::ZERO);
        }
        self.parts.maxima.fill(HIDDEN);
        self.parts.totals.fill([0.0; LANES]);
        let visible = if self.causal { keys.min(first + count) } else { keys };
        let blocks = visible.div_ceil(KEY_BLOCK);
        (0..self.score_products(0)).for_each(|panel| self.score(0, panel));
        for block in 0..blocks {
            let length = KEY_BLOCK.min(keys - block * KEY_BLOCK);
            let mut seen = [length; BLOCK];
            if self.causal {
                for (row, seen) in seen.iter_mut().enumerate() {
                    *seen = (first + row + 1).saturating_sub(block * KEY_BLOCK).min(length);
                }
            }
            let padded = length.next_multiple_of(STEP);
            // SAFETY: `isa` is one this processor has; both stay within their parts' lengths.
            unsafe {
                with_lanes!(self.isa, find_maxima(
                    parts: &mut Parts = &mut self.parts, block: usize = block, scale: f32 = self.scale,
                    seen: &[usize; BLOCK] = &seen, padded: usize = padded
                ));
            }
            let score_products = if block + 1 < blocks { self.score_products(block + 1) } else { 0 };
            let weigh_products = if block > 0 { self.keys.channel_steps() } else { 0 };
            for turn in 0..TURNS {
                let share = |products: usize| products * turn / TURNS..products * (turn + 1) / TURNS;
                share(score_products).for_each(|panel| self.score(block + 1, panel));
                share(weigh_products).for_each(|panel| self.weigh(block - 1, panel));
                // SAFETY: as above.
                unsafe {
                    with_lanes!(self.isa, weights(
                        parts: &mut Parts = &mut self.parts, block: usize = block, scale: f32 = self.scale,
                        rows: Range<usize> = turn * BLOCK / TURNS..(turn + 1) * BLOCK / TURNS,
                        padded: usize = padded
                    ));
                }
            }
            if block > 0 {
                // SAFETY: `isa` is one this processor has.
                unsafe { with_lanes!(self.isa, rescale(parts: &mut Parts = &mut self.parts)) };
            }
        }
        (0..self.keys.channel_steps()).for_each(|panel| self.weigh(blocks - 1, panel));
    }

    /// Products that a block's scores take.
    fn score_products(&self, block: usize) -> usize {
        KEY_BLOCK.min(self.keys.keys - block * KEY_BLOCK).div_ceil(BLOCK)
    }

    /// scores = queries · keysᵀ for 32 keys of a block.
    fn score(&mut self, block: usize, panel: usize) {
        let steps = self.keys.channel_steps();
        let stride = steps * STEP;
        let queries = self.parts.queries.as_ptr();
        let from = (block * KEY_BLOCK / BLOCK + panel) * steps * PANEL_STEP;
        let keys = &self.head_keys[from..from + steps * PANEL_STEP];
        let scores = self.parts.scores[block % 2][panel * BLOCK..].as_mut_ptr();
        // SAFETY: `queries` holds 32 rows of `stride` values; the panel `steps` (sliced above); `scores` 32 rows of
        // 256, and its rows and blocks stand on 64-byte boundaries.
        unsafe {
            let rows =
                BlockRows { tiles: [queries, queries.add(TILE * stride)], stride, offsets: &[0], steps };
            self.tiles.product::<Scores>(&rows, keys.as_ptr(), scores, false, Ahead::NONE, || ());
        }
    }

    /// sums += weights · values of a block for 32 channels.
    fn weigh(&mut self, block: usize, panel: usize) {
        let steps = KEY_BLOCK.min(self.keys.keys - block * KEY_BLOCK).div_ceil(STEP);
        let weights = self.parts.weights[block % 2].as_ptr();
        let from = (panel * self.keys.key_steps() + block * KEY_BLOCK / STEP) * PANEL_STEP;
        let values = &self.head_values[from..from + steps * PANEL_STEP];
        let sums = self.parts.sums[panel * BLOCK_VALUES..][..BLOCK_VALUES].as_mut_ptr();
        // SAFETY: `weights` holds 32 rows of at least `steps` steps; the rest as in `score`.
        unsafe {
            let rows = BlockRows {
                tiles: [weights, weights.add(TILE * WEIGHTS_STRIDE)],
                stride: WEIGHTS_STRIDE,
                offsets: &[0],
                steps,
            };
            self.tiles.product::<Dense>(&rows, values.as_ptr(), sums, block > 0, Ahead::NONE, || ());
        }
    }

    /// Divides by the weights' totals and stores `count` rows.
    ///
    /// # Safety
    /// `count` rows of `head_dim` values, `width` apart, must be writable at `out`.
    unsafe fn store(&mut self, out: *mut bf16, width: usize, count: usize) {
        let head_dim = self.keys.head_dim;
        // SAFETY: the caller's promise; `isa` is one this processor has.
        unsafe {
            with_lanes!(self.isa, divide(
                parts: &Parts = &self.parts, out: *mut bf16 = out, width: usize = width, head_dim: usize = head_dim,
                count: usize = count
            ));
        }
    }
}

/// The running maximum of each row, over a block's scores; those that are not seen are hidden.
#[inline(always)]
unsafe fn find_maxima<L: Lanes>(
    parts: &mut Parts,
    block: usize,
    scale: f32,
    seen: &[usize; BLOCK],
    padded: usize,
) {
    let Parts { scores, maxima, corrections, .. } = parts;
    let scores = scores[block % 2].as_mut_ptr();
    let old = *maxima;
    // SAFETY: at most `padded` ≤ 256 values of each row of scores.
    unsafe {
        for (row, seen) in seen.iter().enumerate() {
            let scores = scores.add(row * Scores::ROW);
            for key in *seen..padded {
                scores.add(key).write(HIDDEN);
            }
            let (mut even, mut odd) = (L::splat(maxima[row]), L::splat(maxima[row]));
            for key in (0..padded).step_by(2 * LANES) {
                even = L::load(scores.add(key), LANES).max(even);
                odd = L::load(scores.add(key + LANES), LANES).max(odd);
            }
            maxima[row] = even.max(odd).largest();
        }
        for first in (0..BLOCK).step_by(LANES) {
            let [old, new] = [&old, &*maxima].map(|maxima| L::load(maxima.as_ptr().add(first), LANES));
            old.sub(new).mul(L::splat(scale)).exp2().store(corrections.as_mut_ptr().add(first), LANES);
        }
    }
}

/// Some rows' scores to weights relative to the running maximum, and their totals.
#[inline(always)]
unsafe fn weights<L: Lanes>(parts: &mut Parts, block: usize, scale: f32, rows: Range<usize>, padded: usize) {
    let Parts { scores, weights, maxima, totals, corrections, .. } = parts;
    let (scores, weights) = (scores[block % 2].as_ptr(), weights[block % 2].as_mut_ptr());
    // SAFETY: at most `padded` ≤ 256 values of each row of scores and weights.
    unsafe {
        for row in rows {
            let scores = scores.add(row * Scores::ROW);
            let weights = weights.add(row * WEIGHTS_STRIDE);
            let base = L::splat(-maxima[row] * scale);
            let factor = L::splat(scale);
            let (mut even, mut odd) = (L::splat(0.0), L::splat(0.0));
            for key in (0..padded).step_by(2 * LANES) {
                let first = L::load(scores.add(key), LANES).mul_add(factor, base).exp2();
                let second = L::load(scores.add(key + LANES), LANES).mul_add(factor, base).exp2();
                even = even.add(first);
                odd = odd.add(second);
                first.store_bf16_pair(second, weights.add(key));
            }
            let totals = totals[row].as_mut_ptr();
            L::load(totals, LANES).mul_add(L::splat(corrections[row]), even.add(odd)).store(totals, LANES);
        }
    }
}

/// Old sums to the new maxima.
#[inline(always)]
unsafe fn rescale<L: Lanes>(parts: &mut Parts) {
    let Parts { sums, corrections, .. } = parts;
    for block in sums.chunks_exact_mut(BLOCK_VALUES) {
        for (row, correction) in corrections.iter().enumerate() {
            if *correction == 1.0 {
                continue;
            }
            for tile in [0, Dense::RIGHT] {
                // SAFETY: a row of a tile within the block.
                unsafe {
                    let at = block.as_mut_ptr().add(Dense::row(row) + tile);
                    L::load(at, LANES).mul(L::splat(*correction)).store(at, LANES);
                }
            }
        }
    }
}

/// # Safety
/// As `Stream::store`.
#[inline(always)]
unsafe fn divide<L: Lanes>(parts: &Parts, out: *mut bf16, width: usize, head_dim: usize, count: usize) {
    for row in 0..count {
        let factor = 1.0 / parts.totals[row].iter().sum::<f32>();
        for channel in (0..head_dim).step_by(LANES) {
            let at = channel / BLOCK * BLOCK_VALUES + channel % BLOCK / TILE * Dense::RIGHT + Dense::row(row);
            // SAFETY: a row of a block of sums, and places the caller promised.
            unsafe {
                let value = L::load(parts.sums.as_ptr().add(at), LANES).mul(L::splat(factor));
                value.store_bf16(out.add(row * width + channel), LANES.min(head_dim - channel));
            }
        }
    }
}
