//! The embeddings of a request: those of the library whose names stand in its prompts.

use std::collections::HashSet;
use std::sync::Arc;

use latentd_models::adapters::Embedding;
use latentd_models::prompt::{EmbeddingNames, Embeddings, Reading};

use super::notices::Notices;
use crate::error::{Class, Error, Result};
use crate::library::{Library, Mentioned, Pinned};
use crate::memory::Known;
use crate::schema::shorten;

/// Those that stand in a request's prompts and are for its model.
#[derive(Clone, Default)]
pub(super) struct RequestEmbeddings {
    pub found: Arc<Embeddings>,
    /// The names of those that are used, in the order of their first use, and their files.
    used: Vec<(String, Arc<Pinned>)>,
}

/// What is known of a file whose name stands in a prompt.
enum Looked {
    Not,
    Usable(Arc<Pinned>, Arc<Embedding>),
    Refused,
}

/// The file, held open, and what is in it, if that is for a text encoder of this width, or any; else the rest of a sentence about it.
fn usable(
    file: &Mentioned,
    library: &Library,
    width: Option<usize>,
) -> Result<(Arc<Pinned>, Arc<Embedding>)> {
    let unusable = |error: Error| Error::new(error.class, format!("cannot be used: {}", error.text));
    let item = match file {
        Mentioned::Entry(item) => item,
        Mentioned::Broken(_, problem) => {
            let text = format!("{}: {}", problem.path.display(), problem.reason);
            return Err(unusable(Error::new(problem.class, text)));
        }
    };
    let file = library.pin_item(item).map_err(unusable)?;
    let embedding = file.embedding().map_err(unusable)?;
    match width.and_then(|width| embedding.misfit(width)) {
        Some(why) => Err(Error::new(Class::Model, why)),
        None => Ok((file, embedding)),
    }
}

impl RequestEmbeddings {
    /// The names of those that are used.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.used.iter().map(|(name, _)| name.as_str())
    }

    /// As [`Self::resolve`], for any model.
    pub(super) fn of_any_width(
        texts: &[String],
        reading: &Reading,
        library: &Library,
        notices: &mut Notices,
    ) -> Result<Self> {
        Self::of_width(None, texts, reading, library, notices)
    }

    /// Looks for names in these texts. Of those that are meant, what is broken or for another model is told, and its name
    /// is words then.
    pub(super) fn resolve(
        texts: &[String],
        reading: &Reading,
        known: &Known,
        library: &Library,
        notices: &mut Notices,
    ) -> Result<Self> {
        Self::of_width(Some(known.targets().token_width()), texts, reading, library, notices)
    }

    fn of_width(
        width: Option<usize>,
        texts: &[String],
        reading: &Reading,
        library: &Library,
        notices: &mut Notices,
    ) -> Result<Self> {
        let files = library.embeddings_in(texts, reading)?;
        if files.is_empty() {
            return Ok(Self::default());
        }
        let names = EmbeddingNames::new(files.iter().map(Mentioned::name))?;
        let mut looked: Vec<Looked> = files.iter().map(|_| Looked::Not).collect();
        let places = loop {
            let mut places: Vec<usize> = vec![];
            for text in texts {
                let counts = |place: usize| !matches!(looked.get(place), Some(Looked::Refused));
                places.extend(names.used(text, reading, counts)?);
            }
            let is_new = |place: &usize| matches!(looked.get(*place), Some(Looked::Not));
            let Some(place) = places.iter().copied().find(is_new) else { break places };
            let (Some(file), Some(state)) = (files.get(place), looked.get_mut(place)) else { break places };
            *state = match usable(file, library, width) {
                Ok((file, embedding)) => Looked::Usable(file, embedding),
                Err(why) => {
                    let name = shorten(file.name());
                    let text = format!("embedding '{name}' {}; its name was drawn as words", why.text);
                    notices.not_applied(why.class, text)?;
                    Looked::Refused
                }
            };
        };
        let mut used: Vec<(String, Arc<Pinned>, Arc<Embedding>)> = vec![];
        for place in places {
            let (Some(file), Some(Looked::Usable(pinned, embedding))) = (files.get(place), looked.get(place))
            else {
                continue;
            };
            if used.iter().any(|(name, ..)| name == file.name()) {
                continue;
            }
            used.push((file.name().to_owned(), Arc::clone(pinned), Arc::clone(embedding)));
            let others = files.iter().skip(place + 1).filter(|other| other.name() == file.name());
            for other in others {
                let differs =
                    usable(other, library, width).is_ok_and(|(_, of)| of.digest() != embedding.digest());
                if differs && let Mentioned::Entry(item) = other {
                    notices.tell(format!(
                        "embedding '{}' is in two files that differ; the first one was drawn with, not {}",
                        shorten(&item.name),
                        item.file_name()
                    ));
                }
            }
        }
        let found = used.iter().map(|(name, _, embedding)| (name.clone(), Arc::clone(embedding)));
        let found = Arc::new(Embeddings::new(found)?);
        Ok(Self { found, used: used.into_iter().map(|(name, file, _)| (name, file)).collect() })
    }

    /// Tells of those that are not for a refiner, whose text encoder has words there.
    pub(super) fn tell_misfits(&self, field: &str, other: &Known, notices: &mut Notices) -> Result<()> {
        for (name, embedding) in self.found.iter() {
            if let Some(why) = embedding.misfit(other.targets().token_width()) {
                let name = shorten(name);
                let text = format!("embedding '{name}' {why}; to {field} its name is words");
                notices.not_applied(Class::Model, text)?;
            }
        }
        Ok(())
    }

    /// Of those that stand in these texts, as A1111 writes them behind "TI hashes": 12 digits of each file's SHA-256. Waits for
    /// hashes until `cancelled`.
    pub(super) fn hashes(
        &self,
        texts: &[String],
        reading: &Reading,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<String> {
        let mut names = HashSet::new();
        for text in texts {
            names.extend(self.found.used_in(text, reading)?);
        }
        let mut all = vec![];
        for (name, file) in self.used.iter().filter(|(name, _)| names.contains(name.as_str())) {
            let sha256 = file.sha256(cancelled)?;
            all.push(format!("{}: {}", name.replace([':', ','], ""), sha256.get(..12).unwrap_or(&sha256)));
        }
        Ok(all.join(", "))
    }
}
