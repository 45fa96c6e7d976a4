//! The names of all embeddings, to be found in prompts: taken apart once for each state of the library.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use latentd_client::protocol::LibraryKind;
use latentd_models::prompt::{EmbeddingNames, Reading};

use super::item::Item;
use super::places::{may_carry, outermost_kind};
use super::snapshot::{Problem, Snapshot};
use crate::error::Result;

/// A file whose name stands in a prompt as an embedding's.
#[derive(Clone)]
pub(crate) enum Mentioned {
    Entry(Box<Item>),
    /// One in a folder for embeddings that cannot be used, and its name.
    Broken(String, Problem),
}

impl Mentioned {
    /// What a prompt calls it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Entry(item) => &item.name,
            Self::Broken(name, _) => name,
        }
    }
}

/// The names of a snapshot's embeddings.
struct Named {
    snapshot: Weak<Snapshot>,
    names: EmbeddingNames,
    files: Vec<Mentioned>,
}

/// Those of the snapshot that was looked at last.
#[derive(Default)]
pub(super) struct KnownEmbeddings(Mutex<Option<Arc<Named>>>);

impl KnownEmbeddings {
    /// The files of a snapshot whose names stand in one of these texts as embeddings', each once: those that can be used before
    /// the others.
    pub(super) fn mentioned(
        &self,
        snapshot: &Arc<Snapshot>,
        texts: &[String],
        reading: &Reading,
    ) -> Result<Vec<Mentioned>> {
        let named = self.of(snapshot)?;
        let mut places = vec![];
        for text in texts {
            places.extend(named.names.mentioned(text, reading)?);
        }
        places.sort_unstable();
        places.dedup();
        Ok(places.into_iter().filter_map(|place| named.files.get(place).cloned()).collect())
    }

    fn of(&self, snapshot: &Arc<Snapshot>) -> Result<Arc<Named>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(named) = known.as_ref().filter(|named| named.snapshot.ptr_eq(&Arc::downgrade(snapshot))) {
            return Ok(Arc::clone(named));
        }
        let is_embedding = |item: &&Item| item.kind == LibraryKind::Embedding;
        let mut items: Vec<Item> = snapshot.entries.iter().filter(is_embedding).cloned().collect();
        // Of files of one name that which cannot be anything else comes first.
        items.sort_by_key(|item| item.facts.format.as_deref() != Some("safetensors"));
        // A picture there is mostly a preview.
        let kind = Some(LibraryKind::Embedding);
        let is_meant = |problem: &&Problem| {
            outermost_kind(&snapshot.roots, &problem.path) == kind && !may_carry(&problem.path, kind)
        };
        let broken = snapshot.problems.iter().filter(is_meant).filter_map(|problem| {
            let name = problem.path.file_stem()?.to_string_lossy().into_owned();
            Some(Mentioned::Broken(name, problem.clone()))
        });
        let files: Vec<Mentioned> =
            items.into_iter().map(|item| Mentioned::Entry(Box::new(item))).chain(broken).collect();
        let names = EmbeddingNames::new(files.iter().map(Mentioned::name))?;
        let named = Arc::new(Named { snapshot: Arc::downgrade(snapshot), names, files });
        *known = Some(Arc::clone(&named));
        Ok(named)
    }
}
