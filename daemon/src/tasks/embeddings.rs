//! The embeddings of a request: those of the library whose names stand in its prompts.

use std::sync::Arc;

use latentd_models::prompt::Embeddings;

use super::notices::Notices;
use crate::error::{Class, Result};
use crate::library::{Library, Pinned};
use crate::memory::Known;
use crate::schema::shorten;

/// Those that stand in a request's prompts and are for its model.
#[derive(Clone, Default)]
pub(super) struct RequestEmbeddings {
    pub found: Arc<Embeddings>,
    /// The names of those that are used, in the order of their first use, and their files.
    used: Vec<(String, Arc<Pinned>)>,
}

impl RequestEmbeddings {
    /// Looks for names in these prompts. What is broken or for another model is told, and its name is words then.
    pub(super) fn resolve(
        prompts: [&str; 2],
        known: &Known,
        library: &Library,
        notices: &mut Notices,
    ) -> Result<Self> {
        let width = known.targets().token_width();
        let mut usable: Vec<(String, Arc<Pinned>, Arc<latentd_models::adapters::Embedding>)> = vec![];
        for item in library.embeddings_in(prompts)? {
            let told =
                |why: &str| format!("embedding '{}' {why}; its name was drawn as words", shorten(&item.name));
            let Ok(file) = library.pin_item(&item) else { continue };
            let embedding = match file.embedding() {
                Ok(embedding) => embedding,
                Err(error) => {
                    notices.not_applied(error.class, told(&format!("cannot be used: {}", error.text)))?;
                    continue;
                }
            };
            if let Some(why) = embedding.misfit(width) {
                notices.not_applied(Class::Model, told(&why))?;
                continue;
            }
            match usable.iter().find(|(name, ..)| *name == item.name) {
                None => usable.push((item.name.clone(), file, embedding)),
                Some((name, _, other)) if other.digest() != embedding.digest() => {
                    let text = format!(
                        "embedding '{}' is in two files that differ; the first one was drawn with, not {}",
                        shorten(name),
                        item.file_name()
                    );
                    notices.tell(text);
                }
                Some(_) => (),
            }
        }
        if usable.is_empty() {
            return Ok(Self::default());
        }
        let found =
            Embeddings::new(usable.iter().map(|(name, _, embedding)| (name.clone(), Arc::clone(embedding))))?;
        let mut used: Vec<(String, Arc<Pinned>)> = vec![];
        for prompt in prompts {
            for name in found.used_in(prompt)? {
                let file = usable.iter().find(|(own, ..)| own == name).map(|(_, file, _)| Arc::clone(file));
                if let Some(file) = file.filter(|_| !used.iter().any(|(other, _)| other == name)) {
                    used.push((name.to_owned(), file));
                }
            }
        }
        Ok(Self { found: Arc::new(found), used })
    }

    /// As A1111 writes them behind "TI hashes": 12 digits of each file's SHA-256. Waits for hashes until `cancelled`.
    pub(super) fn hashes(&self, cancelled: &dyn Fn() -> bool) -> Result<String> {
        let mut all = vec![];
        for (name, file) in &self.used {
            let sha256 = file.sha256(cancelled)?;
            all.push(format!("{}: {}", name.replace([':', ','], ""), sha256.get(..12).unwrap_or(&sha256)));
        }
        Ok(all.join(", "))
    }
}
