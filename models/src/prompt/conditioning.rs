//! Texts through the text encoder, weighted.

use std::collections::HashMap;

use super::chunks::{Chunk, chunks};
use super::embeddings::Embeddings;
use super::reading::{Emphasis, Reading};
use super::schedule::PromptSchedule;
use crate::networks::clip::{ClipText, TokenVector};
use crate::nn::Run;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Chunks encoded at once; more would only take more memory.
const BATCH: usize = 8;

/// What the UNet is told of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditioning {
    /// What it attends to: `(1, 77 · chunks, width)`.
    pub tokens: Tensor,
    /// One vector for the whole prompt, `(1, width)`, of families that have it.
    pub pooled: Option<Tensor>,
}

impl Conditioning {
    /// How many numbers it has.
    pub(crate) fn values(&self) -> usize {
        self.tokens.values().len() + self.pooled.as_ref().map_or(0, |pooled| pooled.values().len())
    }
}

/// One of the texts that are encoded together.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Its chunks, at least one.
    pub chunks: Vec<Chunk>,
    /// How often it counts.
    pub count: usize,
}

/// How texts are encoded.
#[derive(Clone, Copy, Debug)]
pub struct Encoding<'a> {
    /// Those that the texts may name.
    pub embeddings: &'a Embeddings,
    /// How the texts are read.
    pub reading: &'a Reading,
    /// Which hidden state conditions: 1 the last, 2 the one before it.
    pub clip_skip: usize,
}

/// Encodes a prompt's texts, in their order, with the embeddings that they name. Many take a while: `run` may end it between
/// chunks and layers.
///
/// # Errors
/// If an embedding is for another text encoder, by its name.
pub fn encode(
    clip: &ClipText,
    schedule: &PromptSchedule,
    encoding: &Encoding,
    run: &Run,
) -> Result<Vec<Conditioning>> {
    let &Encoding { embeddings, reading, clip_skip } = encoding;
    embeddings.check(&schedule.texts, reading, clip.config().width)?;
    let variant =
        |(text, count): (&String, usize)| Ok(Variant { chunks: chunks(text, embeddings, reading)?, count });
    let variants: Vec<Variant> =
        schedule.texts.iter().zip(schedule.counts()).map(variant).collect::<Result<_>>()?;
    encode_variants(clip, &variants, reading.emphasis, clip_skip, run)
}

/// Encodes texts together, as A1111 encodes what a prompt says at different steps: shorter ones get empty chunks, and the
/// mean that emphasis restores is that of all of them. Each chunk is encoded alone; they are joined along the tokens.
/// `clip_skip` 1 takes the last hidden state, 2 the one before it, and so on; the final layer norm follows in any case.
/// Weights multiply the states; weights too large for that are an error.
pub fn encode_variants(
    clip: &ClipText,
    variants: &[Variant],
    emphasis: Emphasis,
    clip_skip: usize,
    run: &Run,
) -> Result<Vec<Conditioning>> {
    encode_with(variants, emphasis, |chunks| states(clip, chunks, clip_skip, run))
}

/// [`encode_variants`] of what `states` gives for chunks that differ: `(1, 77, width)` each, in their order.
pub(crate) fn encode_with(
    variants: &[Variant],
    emphasis: Emphasis,
    states: impl FnOnce(&[&Chunk]) -> Result<Vec<Tensor>>,
) -> Result<Vec<Conditioning>> {
    let length = variants.iter().map(|variant| variant.chunks.len()).max().unwrap_or_default();
    let empty = Chunk::empty();
    let chunk = |variant: &'_ Variant, index: usize| variant.chunks.get(index).cloned();
    // What differs is encoded once.
    let mut sequences: Vec<&Chunk> = vec![];
    let mut places: HashMap<&[u32], Vec<usize>> = HashMap::new();
    let mut of_variants: Vec<Vec<usize>> = vec![];
    for variant in variants {
        let mut own = vec![];
        for index in 0..length {
            let chunk = variant.chunks.get(index).unwrap_or(&empty);
            let alike = places.entry(&chunk.ids).or_default();
            let is_same =
                |place: &&usize| sequences.get(**place).is_some_and(|of| of.vectors == chunk.vectors);
            let place = alike.iter().find(is_same).copied().unwrap_or(sequences.len());
            if place == sequences.len() {
                alike.push(place);
                sequences.push(chunk);
            }
            own.push(place);
        }
        of_variants.push(own);
    }
    let states = states(&sequences)?;
    let mut encoded: Vec<Vec<Tensor>> = variants.iter().map(|_| vec![]).collect();
    for index in 0..length {
        let mut weighted = vec![];
        for (variant, own) in variants.iter().zip(&of_variants) {
            let state = own.get(index).and_then(|place| states.get(*place)).cloned();
            let state = state.ok_or_else(|| Error::Compute("a chunk that was not encoded".to_owned()))?;
            let weights = chunk(variant, index).map(|chunk| chunk.weights);
            weighted.push(Weighted { state, weights, count: variant.count });
        }
        emphasise(&mut weighted, emphasis)?;
        encoded.iter_mut().zip(weighted).for_each(|(all, one)| all.push(one.state));
    }
    let join = |all: Vec<Tensor>| {
        Ok(Conditioning { tokens: Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?, pooled: None })
    };
    encoded.into_iter().map(join).collect()
}

/// What the text encoder makes of each chunk, `(1, 77, width)`.
pub(crate) fn states(clip: &ClipText, chunks: &[&Chunk], clip_skip: usize, run: &Run) -> Result<Vec<Tensor>> {
    let layers = clip.config().layers;
    if clip_skip == 0 || clip_skip > layers {
        return Err(Error::Request(format!(
            "clip_skip is {clip_skip}; this model's text encoder has {layers} layers, so 1 to {layers} will do"
        )));
    }
    let mut states = vec![];
    for batch in chunks.chunks(BATCH) {
        let ids: Vec<Vec<u32>> = batch.iter().map(|chunk| chunk.ids.clone()).collect();
        let vectors: Vec<TokenVector> = batch
            .iter()
            .enumerate()
            .flat_map(|(sequence, chunk)| {
                let given = chunk.vectors.iter();
                given.map(move |(position, vector)| TokenVector {
                    sequence,
                    position: *position,
                    vector: vector.clone(),
                })
            })
            .collect();
        let state = clip.encode(&ids, &vectors, clip_skip, run)?;
        for index in 0..batch.len() {
            states.push(state.narrow(0, index, 1)?);
        }
    }
    Ok(states)
}

/// A text's states at one chunk.
struct Weighted {
    state: Tensor,
    /// None of an empty chunk.
    weights: Option<Vec<f32>>,
    count: usize,
}

/// Weighs the states at one chunk of texts that are encoded together.
fn emphasise(all: &mut [Weighted], emphasis: Emphasis) -> Result<()> {
    if matches!(emphasis, Emphasis::None | Emphasis::Ignore) {
        return Ok(());
    }
    let before = mean(all);
    for Weighted { state, weights, .. } in &mut *all {
        let (_, _, width) = state.dims3()?;
        let Some(weights) = weights else { continue };
        for (row, weight) in state.values_mut().chunks_exact_mut(width.max(1)).zip(weights) {
            for value in row {
                *value *= *weight;
            }
        }
    }
    // Weights that cancel the whole chunk leave no mean to restore.
    let restoring = || Some((before / mean(all)) as f32).filter(|factor| factor.is_finite()).unwrap_or(1.0);
    let factor = if emphasis == Emphasis::NoNorm { 1.0 } else { restoring() };
    for Weighted { state, .. } in &mut *all {
        for value in state.values_mut() {
            *value *= factor;
        }
        if before.is_finite() && state.values().iter().any(|value| !value.is_finite()) {
            return Err(Error::Request("the weights in the prompt are too large to compute with".to_owned()));
        }
    }
    Ok(())
}

/// The mean of all values.
fn mean(all: &[Weighted]) -> f64 {
    let of_one =
        |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len().max(1) as f64;
    let counts: usize = all.iter().map(|one| one.count).sum();
    all.iter().map(|one| of_one(one.state.values()) * one.count as f64).sum::<f64>() / counts.max(1) as f64
}
