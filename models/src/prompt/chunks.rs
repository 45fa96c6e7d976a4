//! A prompt's tokens in chunks of 75, each framed by begin and end.

use std::ops::Range;
use std::sync::Arc;

use super::embeddings::Embeddings;
use super::emphasis::Piece;
use super::reading::Reading;
use super::tokenizer::{BOS, COMMA, EOS, tokenize_placed};
use crate::Result;

/// Tokens of a chunk without its frame.
const SIZE: usize = 75;

/// Tokens of a chunk with its frame.
pub const CHUNK_TOKENS: usize = SIZE + 2;

/// What the text encoder takes at once: 77 tokens and their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Begin, 75 tokens padded with end, end.
    pub ids: Vec<u32>,
    /// One weight per token; 1 for frame and padding.
    pub weights: Vec<f32>,
    /// What stands in the place of tokens: places in `ids`, ascending, and vectors of embeddings.
    pub vectors: Vec<(usize, Arc<[f32]>)>,
    /// The bytes of the text that each token is of; none of frame and padding.
    pub bytes: Vec<Range<usize>>,
}

/// One of a chunk's 75 places.
struct Place {
    token: u32,
    weight: f32,
    /// What stands there instead of the token.
    vector: Option<Arc<[f32]>>,
    /// Of the text.
    bytes: Range<usize>,
}

/// What stands where a vector does: the token that A1111 has there, which nobody sees.
const UNSEEN: u32 = 0;

/// A prompt's chunks as they grow.
struct Growing {
    /// How far back a comma may stand for the chunk to end there instead of within a phrase.
    backtrack: usize,
    done: Vec<Chunk>,
    open: Vec<Place>,
    /// Where the last comma stands in the open one.
    comma: Option<usize>,
}

/// The chunks of a text, at least one. The names of `embeddings` become their vectors, with the weight of the name; those
/// of one embedding stand in one chunk, in the next if this one has no room for them. If the end of a chunk moves into the
/// next one, back to a comma, vectors go with their places: A1111 leaves them behind, where padding is overwritten with them
/// or they are lost, a defect that is not copied.
pub fn chunks(text: &str, embeddings: &Embeddings, reading: &Reading) -> Result<Vec<Chunk>> {
    let backtrack = reading.comma_padding_backtrack;
    let mut growing = Growing { backtrack, done: vec![], open: vec![], comma: None };
    for placed in reading.placed(text)? {
        match &placed.piece {
            Piece::Text(text, weight) => {
                let tokens = tokenize_placed(text)?;
                let (ids, bytes): (Vec<u32>, Vec<_>) =
                    tokens.into_iter().map(|(id, bytes)| (id, placed.source(&bytes))).unzip();
                growing.add(&ids, &bytes, *weight as f32, embeddings);
            }
            Piece::Break => growing.close(),
        }
    }
    if !growing.open.is_empty() || growing.done.is_empty() {
        growing.close();
    }
    Ok(growing.done)
}

impl Chunk {
    /// One without text.
    pub fn empty() -> Self {
        let ids = std::iter::once(BOS).chain(std::iter::repeat_n(EOS, SIZE + 1)).collect();
        Self { ids, weights: vec![1.0; CHUNK_TOKENS], vectors: vec![], bytes: vec![0..0; CHUNK_TOKENS] }
    }
}

impl Growing {
    fn add(&mut self, tokens: &[u32], bytes: &[Range<usize>], weight: f32, embeddings: &Embeddings) {
        let mut rest = tokens;
        while let Some((token, after)) = rest.split_first() {
            let of = |first: usize, count: usize| {
                let own = bytes.get(first..first + count).unwrap_or_default();
                own.first().map_or(0, |first| first.start)..own.last().map_or(0, |last| last.end)
            };
            let at = tokens.len() - rest.len();
            let found = embeddings.at(rest);
            if *token == COMMA {
                // One that begins an embedding's name is no comma: the chunk would end within the vectors.
                self.comma = if found.is_some() { self.comma } else { Some(self.open.len()) };
            } else if let Some(last) =
                self.comma.filter(|last| self.open.len() == SIZE && SIZE - last <= self.backtrack)
            {
                let moved = self.open.split_off(last + 1);
                self.close();
                self.open = moved;
            }
            if self.open.len() == SIZE {
                self.close();
            }
            let Some((embedding, length)) = found else {
                self.open.push(Place { token: *token, weight, vector: None, bytes: of(at, 1) });
                rest = after;
                continue;
            };
            if self.open.len() + embedding.vectors().len() > SIZE {
                self.close();
            }
            let vectors = embedding.vectors().iter().cloned();
            self.open.extend(vectors.map(|vector| Place {
                token: UNSEEN,
                weight,
                vector: Some(vector),
                bytes: of(at, length),
            }));
            rest = rest.get(length..).unwrap_or_default();
        }
    }

    fn close(&mut self) {
        self.comma = None;
        let padding = (SIZE + 1).saturating_sub(self.open.len());
        let mut chunk =
            Chunk { ids: vec![BOS], weights: vec![1.0], vectors: vec![], bytes: vec![Range::default()] };
        for Place { token, weight, vector, bytes } in self.open.drain(..) {
            chunk.vectors.extend(vector.map(|vector| (chunk.ids.len(), vector)));
            chunk.ids.push(token);
            chunk.weights.push(weight);
            chunk.bytes.push(bytes);
        }
        chunk.ids.extend(std::iter::repeat_n(EOS, padding));
        chunk.weights.extend(std::iter::repeat_n(1.0, padding));
        chunk.bytes.extend(std::iter::repeat_n(0..0, padding));
        self.done.push(chunk);
    }
}
