//! A prompt's tokens in chunks of 75, each framed by begin and end.

use std::sync::Arc;

use super::emphasis::{Piece, parse_emphasis};
use super::tokenizer::{BOS, COMMA, EOS, tokenize};
use crate::Result;

/// Tokens of a chunk without its frame.
const SIZE: usize = 75;

/// Tokens of a chunk with its frame.
pub const CHUNK_TOKENS: usize = SIZE + 2;

/// How far back a comma may stand for the chunk to end there instead of within a phrase.
const BACKTRACK: usize = 20;

/// What the text encoder takes at once: 77 tokens and their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Begin, 75 tokens padded with end, end.
    pub ids: Vec<u32>,
    /// One weight per token; 1 for frame and padding.
    pub weights: Vec<f32>,
    /// What stands in the place of tokens: places and vectors of embeddings.
    pub vectors: Vec<(usize, Arc<[f32]>)>,
}

/// The chunks of a prompt, at least one.
pub fn chunks(prompt: &str) -> Result<Vec<Chunk>> {
    let mut done = vec![];
    let mut open: Vec<(u32, f32)> = vec![];
    let mut comma: Option<usize> = None;
    let close = |open: &mut Vec<(u32, f32)>, comma: &mut Option<usize>, done: &mut Vec<Chunk>| {
        *comma = None;
        let padding = std::iter::repeat_n((EOS, 1.0), (SIZE + 1).saturating_sub(open.len()));
        let all = std::iter::once((BOS, 1.0)).chain(open.drain(..)).chain(padding);
        let (ids, weights) = all.unzip();
        done.push(Chunk { ids, weights, vectors: vec![] });
    };
    for piece in parse_emphasis(prompt)? {
        let Piece::Text(text, weight) = piece else {
            close(&mut open, &mut comma, &mut done);
            continue;
        };
        for token in tokenize(&text)? {
            if token == COMMA {
                comma = Some(open.len());
            } else if let Some(last) = comma.filter(|last| open.len() == SIZE && SIZE - last <= BACKTRACK) {
                let moved = open.split_off(last + 1);
                close(&mut open, &mut comma, &mut done);
                open = moved;
            }
            if open.len() == SIZE {
                close(&mut open, &mut comma, &mut done);
            }
            open.push((token, weight as f32));
        }
    }
    if !open.is_empty() || done.is_empty() {
        close(&mut open, &mut comma, &mut done);
    }
    Ok(done)
}
