//! Tokens as plugins have them, and chunks as the text encoder takes them.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use latentd_models::pipeline::TextEncoding;
use latentd_models::prompt::{CHUNK_TOKENS, Chunk};
use latentd_plugin_api::abi::latentd_token;

/// The text encoder, and the vectors of embeddings that it was told of by their numbers.
pub(super) struct Texts<'a> {
    pub encoding: &'a dyn TextEncoding,
    vectors: RefCell<Vec<Arc<[f32]>>>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(encoding: &'a dyn TextEncoding) -> Self {
        Self { encoding, vectors: RefCell::default() }
    }

    /// A text's tokens.
    pub(super) fn tokens(&self, chunks: &[Chunk]) -> Vec<latentd_token> {
        let mut tokens = Vec::with_capacity(chunks.len() * CHUNK_TOKENS);
        for chunk in chunks {
            let mut vectors = chunk.vectors.iter().peekable();
            for (place, (id, weight)) in chunk.ids.iter().zip(&chunk.weights).enumerate() {
                let Range { start, end } = chunk.bytes.get(place).cloned().unwrap_or_default();
                let vector = vectors.next_if(|(at, _)| *at == place);
                let embedding = vector.map_or(0, |(_, vector)| self.number(vector));
                tokens.push(latentd_token {
                    id: *id,
                    place: tokens.len() as u32,
                    begin: start as u32,
                    end: end as u32,
                    weight: *weight,
                    embedding,
                });
            }
        }
        tokens
    }

    /// The number of a vector, from 1 on.
    fn number(&self, vector: &Arc<[f32]>) -> u32 {
        let mut known = self.vectors.borrow_mut();
        let place = known.iter().position(|known| Arc::ptr_eq(known, vector)).unwrap_or_else(|| {
            known.push(Arc::clone(vector));
            known.len() - 1
        });
        place as u32 + 1
    }

    /// What a plugin's tokens are to the text encoder; an error's text if they are none.
    pub(super) fn chunks(&self, tokens: &[latentd_token]) -> Result<Vec<Chunk>, String> {
        if tokens.is_empty() || !tokens.len().is_multiple_of(CHUNK_TOKENS) {
            return Err(format!("{} tokens; whole chunks of {CHUNK_TOKENS} are encoded", tokens.len()));
        }
        let vectors = self.vectors.borrow();
        let chunk = |(index, tokens): (usize, &[latentd_token])| {
            let mut chunk = Chunk { ids: vec![], weights: vec![], vectors: vec![], bytes: vec![] };
            for (place, token) in tokens.iter().enumerate() {
                let at = index * CHUNK_TOKENS + place;
                if !token.weight.is_finite() {
                    return Err(format!("token {at} has weight {}", token.weight));
                }
                if let Some(number) = token.embedding.checked_sub(1) {
                    let vector = vectors.get(number as usize).ok_or_else(|| {
                        format!(
                            "token {at} has embedding {}, which this call knows nothing of",
                            token.embedding
                        )
                    })?;
                    chunk.vectors.push((place, Arc::clone(vector)));
                }
                chunk.ids.push(if token.embedding > 0 { 0 } else { token.id });
                chunk.weights.push(token.weight);
                chunk.bytes.push(Range::default());
            }
            Ok(chunk)
        };
        tokens.chunks(CHUNK_TOKENS).enumerate().map(chunk).collect()
    }
}

#[cfg(test)]
mod tests {
    use latentd_models::Result;
    use latentd_models::prompt::Conditioning;

    use super::*;

    struct Nothing;

    impl TextEncoding for Nothing {
        fn chunks(&self, _text: &str) -> Result<Vec<Chunk>> {
            Ok(vec![Chunk::empty()])
        }

        fn encode(&self, _chunks: &[Chunk], _like: Option<usize>) -> Result<Conditioning> {
            Err(latentd_models::Error::Cancelled)
        }
    }

    #[test]
    fn tokens_are_chunks_again() {
        let texts = Texts::new(&Nothing);
        let vector: Arc<[f32]> = vec![1.0, 2.0].into();
        let mut chunk = Chunk::empty();
        (chunk.ids[1], chunk.weights[1], chunk.bytes[1]) = (320, 1.5, 2..5);
        (chunk.ids[2], chunk.vectors) = (0, vec![(2, vector)]);
        let chunks = vec![Chunk::empty(), chunk];
        let tokens = texts.tokens(&chunks);
        assert_eq!(tokens.len(), 2 * CHUNK_TOKENS);
        let told = latentd_token { id: 320, place: 78, begin: 2, end: 5, weight: 1.5, embedding: 0 };
        assert_eq!(tokens[78], told);
        assert_eq!((tokens[79].embedding, tokens[80].embedding), (1, 0));
        assert_eq!(texts.tokens(&chunks)[79].embedding, 1, "the same vector has the same number");
        let again = texts.chunks(&tokens).expect("chunks");
        assert_eq!((&again[1].ids, &again[1].weights), (&chunks[1].ids, &chunks[1].weights));
        assert_eq!(again[1].vectors, chunks[1].vectors);
        for (wrong, words) in [
            (vec![], "0 tokens; whole chunks of 77"),
            (tokens[1..].to_vec(), "153 tokens"),
            (vec![latentd_token { weight: f32::NAN, ..told }; 77], "token 0 has weight NaN"),
            (vec![latentd_token { embedding: 2, ..told }; 77], "token 0 has embedding 2"),
        ] {
            let text = texts.chunks(&wrong).expect_err("refused");
            assert!(text.contains(words), "{text}");
        }
    }
}
