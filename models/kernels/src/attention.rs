//! Scaled dot-product attention in one pass over the keys: no score matrix in memory.
#![allow(unsafe_code)]

use rayon::prelude::*;

use crate::activation::exp;
use crate::isa::multiversion;
use crate::matmul::SharedMut;
use crate::microkernel::{TILE_ROWS, tile};
use crate::pack::PANEL;
use crate::{Buffer, Isa, elements};

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
    (0..batch * heads * blocks).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
        let (index, block) = (task / blocks, task % blocks);
        let first = block * QUERY_BLOCK;
        let count = QUERY_BLOCK.min(queries - first);
        let start = ((index / heads) * queries + first) * width + (index % heads) * head_dim;
        scratch.run(isa, &q[start..], width, packed.head(index), shape, first, count);
        for row in 0..count {
            let from = &scratch.sums[row * scratch.sums_stride..][..head_dim];
            // SAFETY: this task alone writes these rows of this head, within `out` (asserted above).
            unsafe {
                std::ptr::copy_nonoverlapping(from.as_ptr(), out.get().add(start + row * width), head_dim);
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
        let scale = 1.0 / (head_dim as f32).sqrt();
        self.sums_stride = head_dim.next_multiple_of(PANEL);
        self.queries.clear();
        for row in 0..count {
            let row = &q[row * q_stride..row * q_stride + head_dim];
            self.queries.extend(row.iter().map(|value| value * scale));
        }
        // No larger than needed: small attentions would spend their time clearing it.
        self.scores_stride = KEY_BLOCK.min(keys.next_multiple_of(PANEL));
        self.scores.resize(count * self.scores_stride, 0.0);
        self.sums.clear();
        self.sums.resize(count * self.sums_stride, 0.0);
        self.maxima.clear();
        self.maxima.resize(count, f32::NEG_INFINITY);
        self.totals.clear();
        self.totals.resize(count, 0.0);
        let visible = if causal { keys.min(first + count) } else { keys };
        for first_key in (0..visible).step_by(KEY_BLOCK) {
            let block = KEY_BLOCK.min(keys - first_key);
            self.score(isa, head, head_dim, first_key, block, count);
            for row in 0..count {
                let seen =
                    if causal { (first + row + 1).saturating_sub(first_key).min(block) } else { block };
                let scores = &mut self.scores[row * self.scores_stride..][..block];
                let sums = &mut self.sums[row * self.sums_stride..][..self.sums_stride];
                softmax_row(isa, scores, seen, &mut self.maxima[row], &mut self.totals[row], sums);
            }
            self.weigh(isa, head, head_dim, keys, first_key, block, count);
        }
        for (sums, total) in self.sums.chunks_exact_mut(self.sums_stride).zip(&self.totals) {
            for sum in sums {
                *sum /= *total;
            }
        }
    }

    /// scores = queries · keysᵀ for one block of keys.
    fn score(
        &mut self,
        isa: Isa,
        head: PackedHead<'_>,
        head_dim: usize,
        first_key: usize,
        block: usize,
        count: usize,
    ) {
        for panel in 0..block.div_ceil(PANEL) {
            let keys = &head.keys[(first_key / PANEL + panel) * PANEL * head_dim..][..PANEL * head_dim];
            for row in (0..count).step_by(TILE_ROWS) {
                let mut pointers = [std::ptr::null(); TILE_ROWS];
                let rows = TILE_ROWS.min(count - row);
                for (offset, pointer) in pointers[..rows].iter_mut().enumerate() {
                    *pointer = self.queries[(row + offset) * head_dim..][..head_dim].as_ptr();
                }
                let stride = self.scores_stride;
                let c = self.scores[row * stride + panel * PANEL..].as_mut_ptr();
                // SAFETY: rows hold head_dim values; the panel head_dim * 32 (sliced above); scores has for each
                // of `count` rows a multiple of 32 columns that covers the block.
                unsafe {
                    tile(isa, &pointers[..rows], head_dim, keys.as_ptr(), c, stride, false, false);
                };
            }
        }
    }

    /// sums += scores · values for one block of keys.
    fn weigh(
        &mut self,
        isa: Isa,
        head: PackedHead<'_>,
        head_dim: usize,
        keys: usize,
        first_key: usize,
        block: usize,
        count: usize,
    ) {
        for panel in 0..head_dim.div_ceil(PANEL) {
            let values = &head.values[(panel * keys + first_key) * PANEL..][..block * PANEL];
            let narrow = head_dim - panel * PANEL <= PANEL / 2;
            for row in (0..count).step_by(TILE_ROWS) {
                let mut pointers = [std::ptr::null(); TILE_ROWS];
                let rows = TILE_ROWS.min(count - row);
                for (offset, pointer) in pointers[..rows].iter_mut().enumerate() {
                    *pointer = self.scores[(row + offset) * self.scores_stride..][..block].as_ptr();
                }
                let c = self.sums[row * self.sums_stride + panel * PANEL..].as_mut_ptr();
                // SAFETY: rows hold `block` values; the panel block * 32 (sliced above); sums has a multiple
                // of 32 columns for each of `count` rows.
                unsafe {
                    tile(isa, &pointers[..rows], block, values.as_ptr(), c, self.sums_stride, narrow, true);
                };
            }
        }
    }
}

multiversion! {
    /// Scores to weights relative to the running maximum; what was summed so far is rescaled to the new one.
    fn softmax_row(
        isa: Isa,
        scores: &mut [f32],
        seen: usize,
        maximum: &mut f32,
        total: &mut f32,
        sums: &mut [f32],
    ) {
        const LANES: usize = 16;
        let (scores, hidden) = scores.split_at_mut(seen);
        hidden.fill(0.0);
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let chunks = scores.chunks_exact(LANES);
        let rest = chunks.remainder().iter().fold(*maximum, |a, b| if *b > a { *b } else { a });
        for chunk in chunks {
            for (lane, score) in lanes.iter_mut().zip(chunk) {
                *lane = if *score > *lane { *score } else { *lane };
            }
        }
        let highest = lanes.iter().fold(rest, |a, b| if *b > a { *b } else { a });
        if highest == f32::NEG_INFINITY {
            return;
        }
        let correction = exp(*maximum - highest);
        *maximum = highest;
        let mut lanes = [0f32; LANES];
        let mut chunks = scores.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for (lane, score) in lanes.iter_mut().zip(chunk) {
                *score = exp(*score - highest);
                *lane += *score;
            }
        }
        let mut sum = 0f32;
        for score in chunks.into_remainder() {
            *score = exp(*score - highest);
            sum += *score;
        }
        *total = *total * correction + (sum + lanes.iter().sum::<f32>());
        if correction != 1.0 {
            for sum in sums {
                *sum *= correction;
            }
        }
    }
}
