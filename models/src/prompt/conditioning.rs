//! Chunks through the text encoder, weighted.

use candle_core::Tensor;

use super::chunks::{Chunk, chunks};
use crate::networks::clip::ClipText;
use crate::{Error, Result};

/// Chunks encoded at once; more would only take more memory.
const BATCH: usize = 8;

/// What the UNet attends to: `(1, 77 · chunks, width)`.
pub type Conditioning = Tensor;

/// Encodes a prompt: each chunk alone, joined along the tokens. `clip_skip` 1 takes the last hidden state, 2 the
/// one before it, and so on; the final layer norm follows in any case. Weights multiply the states, whose mean
/// over the chunk is then restored; weights too large for that are an error. A long prompt takes a while:
/// `cancelled` is asked between batches of chunks.
pub fn encode(
    clip: &ClipText,
    prompt: &str,
    clip_skip: usize,
    cancelled: &dyn Fn() -> bool,
) -> Result<Conditioning> {
    let layers = clip.config().layers;
    if clip_skip == 0 || clip_skip > layers {
        return Err(Error::Request(format!(
            "clip_skip is {clip_skip}; this model's text encoder has {layers} layers, so 1 to {layers} will do"
        )));
    }
    let chunks = chunks(prompt)?;
    let mut encoded = vec![];
    for batch in chunks.chunks(BATCH) {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        let ids: Vec<Vec<u32>> = batch.iter().map(|chunk| chunk.ids.clone()).collect();
        let states = clip.hidden_states(&ids)?;
        let state = &states[states.len() - clip_skip];
        let state = clip.final_norm(state)?;
        for (index, chunk) in batch.iter().enumerate() {
            encoded.push(emphasise(&state.narrow(0, index, 1)?.contiguous()?, chunk)?);
        }
    }
    Ok(Tensor::cat(&encoded, 1)?)
}

/// Repeats the encoded empty prompt, which `empty` gives, behind the shorter one until both have as many tokens.
pub fn pad_alike(
    cond: &mut Conditioning,
    uncond: &mut Conditioning,
    empty: impl FnOnce() -> Result<Conditioning>,
) -> Result<()> {
    let (a, b) = (cond.dim(1)?, uncond.dim(1)?);
    if a == b {
        return Ok(());
    }
    let empty = empty()?;
    let shorter = if a < b { cond } else { uncond };
    while shorter.dim(1)? < a.max(b) {
        *shorter = Tensor::cat(&[&*shorter, &empty], 1)?;
    }
    Ok(())
}

fn emphasise(state: &Tensor, chunk: &Chunk) -> Result<Tensor> {
    let (batch, tokens, width) = state.dims3()?;
    let mut values = state.flatten_all()?.to_vec1::<f32>()?;
    let mean =
        |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len().max(1) as f64;
    let before = mean(&values);
    for (row, weight) in values.chunks_exact_mut(width).zip(&chunk.weights) {
        for value in row {
            *value *= weight;
        }
    }
    // Weights that cancel the whole chunk leave no mean to restore.
    let factor = Some((before / mean(&values)) as f32).filter(|factor| factor.is_finite()).unwrap_or(1.0);
    for value in &mut values {
        *value *= factor;
    }
    if before.is_finite() && values.iter().any(|value| !value.is_finite()) {
        return Err(Error::Request("the weights in the prompt are too large to compute with".to_owned()));
    }
    Ok(Tensor::from_vec(values, (batch, tokens, width), state.device())?)
}
