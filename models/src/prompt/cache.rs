//! Prompts that were encoded before.

use std::sync::{Mutex, PoisonError};

use super::conditioning::Conditioning;
use crate::Result;

/// Encoded prompts of one text encoder, the last used last, for as long as it is in memory. Encoding the same text
/// gives the same numbers, so this never shows in a picture. It takes 15 MiB at most, which no budget counts.
#[derive(Default)]
pub(crate) struct ConditioningCache(Mutex<Vec<Entry>>);

struct Entry {
    prompt: String,
    embeddings: Option<[u8; 32]>,
    clip_skip: usize,
    conditioning: Conditioning,
}

impl ConditioningCache {
    /// Entries that are kept.
    const ENTRIES: usize = 16;
    /// Values of all of them: 64 chunks of SD 1.x.
    const VALUES: usize = 64 * 77 * 768;
    /// Values of a longest one, so that it does not drive out all others.
    const LONGEST: usize = Self::VALUES / 4;

    /// What `encode` gives for this prompt, or gave before. `embeddings` tells those that stand in it from others, `None` if
    /// none does.
    pub(crate) fn get(
        &self,
        prompt: &str,
        embeddings: Option<[u8; 32]>,
        clip_skip: usize,
        encode: impl FnOnce() -> Result<Conditioning>,
    ) -> Result<Conditioning> {
        if let Some(found) = self.find(prompt, embeddings, clip_skip) {
            return Ok(found);
        }
        let conditioning = encode()?;
        if conditioning.values() <= Self::LONGEST {
            let (prompt, conditioning) = (prompt.to_owned(), conditioning.clone());
            let entry = Entry { prompt, embeddings, clip_skip, conditioning };
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            entries.push(entry);
            let mut values: usize = entries.iter().map(|entry| entry.conditioning.values()).sum();
            while entries.len() > Self::ENTRIES || values > Self::VALUES {
                values -= entries.remove(0).conditioning.values();
            }
        }
        Ok(conditioning)
    }

    fn find(&self, prompt: &str, embeddings: Option<[u8; 32]>, clip_skip: usize) -> Option<Conditioning> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |entry: &Entry| {
            (entry.prompt.as_str(), entry.embeddings, entry.clip_skip) == (prompt, embeddings, clip_skip)
        };
        let place = entries.iter().position(is_wanted)?;
        let entry = entries.remove(place);
        let conditioning = entry.conditioning.clone();
        entries.push(entry);
        Some(conditioning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn what_was_encoded_is_not_encoded_again() {
        let cache = ConditioningCache::default();
        let mut encoded = vec![];
        let long = "long";
        let mut ask = |prompt: &'static str, clip_skip| {
            let values = if prompt == long { ConditioningCache::LONGEST + 1 } else { 1 };
            let conditioning = cache.get(prompt, None, clip_skip, || {
                encoded.push((prompt, clip_skip));
                Ok(Conditioning { tokens: Tensor::full(0.0, [1, 1, values]), pooled: None })
            });
            conditioning.expect("encoded");
        };
        for (prompt, clip_skip) in [("a", 1), ("b", 1), ("a", 1), ("a", 2), ("b", 1), (long, 1), (long, 1)] {
            ask(prompt, clip_skip);
        }
        // The oldest leaves for a seventeenth; "a" was used since.
        ask("a", 1);
        for prompt in ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14"] {
            ask(prompt, 1);
        }
        ask("a", 1);
        ask("a", 2);
        let again = [("a", 2)];
        let once = [("a", 1), ("b", 1), ("a", 2), (long, 1), (long, 1)];
        assert_eq!(encoded[..5], once);
        assert_eq!(encoded[encoded.len() - 1..], again);
        assert_eq!(encoded.len(), once.len() + 14 + again.len());
    }

    #[test]
    fn the_same_prompt_with_other_embeddings_is_another() {
        let cache = ConditioningCache::default();
        let get = |embeddings: Option<[u8; 32]>, number| {
            let encode = || Ok(Conditioning { tokens: Tensor::full(number, [1, 1, 1]), pooled: None });
            cache.get("a", embeddings, 1, encode).expect("encoded").tokens.values().to_vec()
        };
        for (embeddings, number) in [(None, 1.0), (Some([1; 32]), 2.0), (Some([2; 32]), 3.0)] {
            assert_eq!(get(embeddings, number), [number], "encoded");
            assert_eq!(get(embeddings, 9.0), [number], "and kept");
        }
    }

    #[test]
    fn all_of_it_has_a_limit_too() {
        let cache = ConditioningCache::default();
        for prompt in 0..10 {
            let encode = || {
                let tokens = Tensor::full(0.0, [1, 1, ConditioningCache::LONGEST]);
                Ok(Conditioning { tokens, pooled: None })
            };
            cache.get(&prompt.to_string(), None, 1, encode).expect("encoded");
        }
        let entries = cache.0.lock().expect("not poisoned");
        let kept: Vec<&str> = entries.iter().map(|entry| entry.prompt.as_str()).collect();
        assert_eq!(kept, ["6", "7", "8", "9"]);
    }
}
