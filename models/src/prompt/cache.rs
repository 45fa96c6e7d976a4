//! Prompts that were encoded before.

use std::sync::{Mutex, PoisonError};

use super::conditioning::{Conditioning, encode};
use crate::Result;
use crate::networks::clip::ClipText;

/// Encoded prompts of one text encoder, the last used last. Encoding the same text gives the same numbers, so this
/// never shows in a picture.
#[derive(Default)]
pub(crate) struct ConditioningCache(Mutex<Vec<Entry>>);

struct Entry {
    prompt: String,
    clip_skip: usize,
    conditioning: Conditioning,
}

impl ConditioningCache {
    /// Entries that are kept.
    const ENTRIES: usize = 16;
    /// Values of a longest one: 16 chunks of SD 1.x, 3.6 MiB.
    const VALUES: usize = 16 * 77 * 768;

    /// As [`encode`], if need be.
    pub(crate) fn get(
        &self,
        clip: &ClipText,
        prompt: &str,
        clip_skip: usize,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Conditioning> {
        if let Some(found) = self.find(prompt, clip_skip) {
            return Ok(found);
        }
        let conditioning = encode(clip, prompt, clip_skip, cancelled)?;
        if conditioning.elem_count() <= Self::VALUES {
            let entry = Entry { prompt: prompt.to_owned(), clip_skip, conditioning: conditioning.clone() };
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if entries.len() == Self::ENTRIES {
                entries.remove(0);
            }
            entries.push(entry);
        }
        Ok(conditioning)
    }

    fn find(&self, prompt: &str, clip_skip: usize) -> Option<Conditioning> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place =
            entries.iter().position(|entry| entry.prompt == prompt && entry.clip_skip == clip_skip)?;
        let entry = entries.remove(place);
        let conditioning = entry.conditioning.clone();
        entries.push(entry);
        Some(conditioning)
    }
}
