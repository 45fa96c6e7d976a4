//! Prompts that were encoded before.

use std::sync::{Arc, Mutex, PoisonError};

use super::conditioning::Conditioning;
use super::reading::Reading;
use super::schedule::PromptSchedule;
use crate::Result;

/// Encoded prompts of one text encoder, the last used last, for as long as it is in memory. Encoding the same texts
/// gives the same numbers, so this never shows in a picture. It takes 15 MiB at most, which no budget counts.
#[derive(Default)]
pub(crate) struct ConditioningCache(Mutex<Vec<Entry>>);

struct Entry {
    encoded: Encoded,
    conditioning: Vec<Arc<Conditioning>>,
}

/// What was encoded, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Encoded {
    texts: Vec<String>,
    /// How often each of them counts.
    counts: Vec<usize>,
    reading: Reading,
    /// Tells embeddings that stand in them from others; `None` if none does.
    embeddings: Option<[u8; 32]>,
    clip_skip: usize,
}

impl Encoded {
    /// What a prompt says at each step.
    pub(crate) fn new(
        schedule: &PromptSchedule,
        reading: &Reading,
        embeddings: Option<[u8; 32]>,
        clip_skip: usize,
    ) -> Self {
        Self {
            texts: schedule.texts.clone(),
            counts: schedule.counts(),
            reading: *reading,
            embeddings,
            clip_skip,
        }
    }
}

impl ConditioningCache {
    /// Entries that are kept.
    const ENTRIES: usize = 16;
    /// Values of all of them: 64 chunks of SD 1.x.
    const VALUES: usize = 64 * 77 * 768;
    /// Values of a longest one, so that it does not drive out all others.
    const LONGEST: usize = Self::VALUES / 4;

    /// What `encode` gives for these texts, or gave before.
    pub(crate) fn get(
        &self,
        encoded: Encoded,
        encode: impl FnOnce() -> Result<Vec<Conditioning>>,
    ) -> Result<Vec<Arc<Conditioning>>> {
        if let Some(found) = self.find(&encoded) {
            return Ok(found);
        }
        let conditioning: Vec<Arc<Conditioning>> = encode()?.into_iter().map(Arc::new).collect();
        if values(&conditioning) <= Self::LONGEST {
            let entry = Entry { encoded, conditioning: conditioning.clone() };
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            entries.push(entry);
            let mut all: usize = entries.iter().map(|entry| values(&entry.conditioning)).sum();
            while entries.len() > Self::ENTRIES || all > Self::VALUES {
                all -= values(&entries.remove(0).conditioning);
            }
        }
        Ok(conditioning)
    }

    fn find(&self, encoded: &Encoded) -> Option<Vec<Arc<Conditioning>>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = entries.iter().position(|entry| entry.encoded == *encoded)?;
        let entry = entries.remove(place);
        let conditioning = entry.conditioning.clone();
        entries.push(entry);
        Some(conditioning)
    }
}

fn values(all: &[Arc<Conditioning>]) -> usize {
    all.iter().map(|one| one.values()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::Timeline;
    use crate::tensor::Tensor;

    fn encoded(prompt: &str, embeddings: Option<[u8; 32]>, clip_skip: usize) -> Encoded {
        let schedule = PromptSchedule::new(prompt, &Timeline::new(20, false)).expect("short");
        Encoded::new(&schedule, &Reading::default(), embeddings, clip_skip)
    }

    fn of(values: usize, number: f32) -> Vec<Conditioning> {
        vec![Conditioning { tokens: Tensor::full(number, [1, 1, values]), pooled: None }]
    }

    #[test]
    fn what_was_encoded_is_not_encoded_again() {
        let cache = ConditioningCache::default();
        let mut asked = vec![];
        let long = "long";
        let mut ask = |prompt: &'static str, clip_skip| {
            let values = if prompt == long { ConditioningCache::LONGEST + 1 } else { 1 };
            let conditioning = cache.get(encoded(prompt, None, clip_skip), || {
                asked.push((prompt, clip_skip));
                Ok(of(values, 0.0))
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
        assert_eq!(asked[..5], once);
        assert_eq!(asked[asked.len() - 1..], again);
        assert_eq!(asked.len(), once.len() + 14 + again.len());
    }

    #[test]
    fn the_same_prompt_with_other_embeddings_is_another() {
        let cache = ConditioningCache::default();
        let get = |embeddings: Option<[u8; 32]>, number| {
            let found = cache.get(encoded("a", embeddings, 1), || Ok(of(1, number))).expect("encoded");
            found[0].tokens.values().to_vec()
        };
        for (embeddings, number) in [(None, 1.0), (Some([1; 32]), 2.0), (Some([2; 32]), 3.0)] {
            assert_eq!(get(embeddings, number), [number], "encoded");
            assert_eq!(get(embeddings, 9.0), [number], "and kept");
        }
    }

    #[test]
    fn how_often_texts_count_and_how_they_are_read_makes_others_of_them() {
        let count = |prompt, steps, old| {
            let schedule = PromptSchedule::new(prompt, &Timeline::new(steps, old)).expect("short");
            Encoded::new(&schedule, &Reading::default(), None, 1)
        };
        assert_eq!(count("a", 5, false), count("a", 20, false), "whatever the steps");
        assert_eq!(count("[a:b:2]", 5, false), count("[a:b:3]", 20, false), "whenever they change");
        assert_ne!(count("[a|b]", 3, false), count("[a|b]", 5, false));
        let read = Encoded {
            reading: Reading { comma_padding_backtrack: 0, ..Reading::default() },
            ..count("a", 5, false)
        };
        assert_ne!(read, count("a", 5, false));
    }

    #[test]
    fn all_of_it_has_a_limit_too() {
        let cache = ConditioningCache::default();
        for prompt in 0..10 {
            let encode = || Ok(of(ConditioningCache::LONGEST, 0.0));
            cache.get(encoded(&prompt.to_string(), None, 1), encode).expect("encoded");
        }
        let entries = cache.0.lock().expect("not poisoned");
        let kept: Vec<&str> = entries.iter().map(|entry| entry.encoded.texts[0].as_str()).collect();
        assert_eq!(kept, ["6", "7", "8", "9"]);
    }
}
