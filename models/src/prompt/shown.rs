//! A text's tokens as somebody reads them.

use super::chunks::chunks;
use super::embeddings::Embeddings;
use super::reading::Reading;
use super::tokenizer::{EOS, token_text};
use crate::Result;

/// A token, or a vector of an embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownToken {
    /// Its number in the vocabulary.
    pub id: u32,
    /// What it stands for; of a vector nothing.
    pub text: String,
    /// Whether a word ends with it.
    pub ends_word: bool,
    /// Its weight.
    pub weight: f32,
    /// The embedding whose vector it is.
    pub embedding: Option<String>,
}

/// A text's chunks without begin, end and padding.
pub fn shown_chunks(text: &str, embeddings: &Embeddings, reading: &Reading) -> Result<Vec<Vec<ShownToken>>> {
    let mut all = vec![];
    for chunk in chunks(text, embeddings, reading)? {
        let vectors: Vec<(usize, Option<&str>)> =
            chunk.vectors.iter().map(|(place, vector)| (*place, embeddings.name_of(vector))).collect();
        // Padding, which a chunk may be full of, is not looked up first.
        let end = chunk.ids.iter().rposition(|id| *id != EOS).map_or(0, |last| last + 1);
        let mut shown = vec![];
        let mut vectors = vectors.into_iter().peekable();
        for (place, (id, weight)) in chunk.ids.iter().zip(&chunk.weights).enumerate().take(end).skip(1) {
            let vector = vectors.next_if(|(at, _)| *at == place);
            let embedding = vector.map(|(_, name)| name.unwrap_or_default().to_owned());
            let (text, ends_word) =
                if embedding.is_some() { (String::new(), true) } else { token_text(*id)? };
            shown.push(ShownToken { id: *id, text, ends_word, weight: *weight, embedding });
        }
        all.push(shown);
    }
    Ok(all)
}
