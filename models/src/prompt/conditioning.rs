//! Chunks through the text encoder, weighted.

use super::chunks::{Chunk, chunks};
use super::embeddings::Embeddings;
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

/// Encodes a prompt with the `embeddings` that it names. A long one takes a while: `run` may end it between chunks and
/// layers.
///
/// # Errors
/// If one that it names is for another text encoder, by its name.
pub fn encode(
    clip: &ClipText,
    prompt: &str,
    embeddings: &Embeddings,
    clip_skip: usize,
    run: &Run,
) -> Result<Conditioning> {
    embeddings.check(prompt, clip.config().width)?;
    encode_chunks(clip, &chunks(prompt, embeddings)?, clip_skip, run)
}

/// Encodes chunks: each alone, joined along the tokens. `clip_skip` 1 takes the last hidden state, 2 the one before it,
/// and so on; the final layer norm follows in any case. Weights multiply the states, whose mean over the chunk is then
/// restored; weights too large for that are an error.
pub fn encode_chunks(clip: &ClipText, chunks: &[Chunk], clip_skip: usize, run: &Run) -> Result<Conditioning> {
    let layers = clip.config().layers;
    if clip_skip == 0 || clip_skip > layers {
        return Err(Error::Request(format!(
            "clip_skip is {clip_skip}; this model's text encoder has {layers} layers, so 1 to {layers} will do"
        )));
    }
    let mut encoded = vec![];
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
        for (index, chunk) in batch.iter().enumerate() {
            encoded.push(emphasise(state.narrow(0, index, 1)?, chunk)?);
        }
    }
    Ok(Conditioning { tokens: Tensor::cat(&encoded.iter().collect::<Vec<_>>(), 1)?, pooled: None })
}

/// Repeats the encoded empty prompt, which `empty` gives, behind the shorter one until both have as many tokens.
pub fn pad_alike(
    cond: &mut Conditioning,
    uncond: &mut Conditioning,
    empty: impl FnOnce() -> Result<Conditioning>,
) -> Result<()> {
    let (a, b) = (cond.tokens.dim(1), uncond.tokens.dim(1));
    if a == b {
        return Ok(());
    }
    let empty = empty()?.tokens;
    let shorter = if a < b { cond } else { uncond };
    let missing = a.abs_diff(b).div_ceil(empty.dim(1).max(1));
    let parts: Vec<&Tensor> =
        std::iter::once(&shorter.tokens).chain(std::iter::repeat_n(&empty, missing)).collect();
    shorter.tokens = Tensor::cat(&parts, 1)?;
    Ok(())
}

fn emphasise(mut state: Tensor, chunk: &Chunk) -> Result<Tensor> {
    let (_, _, width) = state.dims3()?;
    let values = state.values_mut();
    let mean =
        |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len().max(1) as f64;
    let before = mean(values);
    for (row, weight) in values.chunks_exact_mut(width.max(1)).zip(&chunk.weights) {
        for value in row {
            *value *= weight;
        }
    }
    // Weights that cancel the whole chunk leave no mean to restore.
    let factor = Some((before / mean(values)) as f32).filter(|factor| factor.is_finite()).unwrap_or(1.0);
    for value in &mut *values {
        *value *= factor;
    }
    if before.is_finite() && values.iter().any(|value| !value.is_finite()) {
        return Err(Error::Request("the weights in the prompt are too large to compute with".to_owned()));
    }
    Ok(state)
}
