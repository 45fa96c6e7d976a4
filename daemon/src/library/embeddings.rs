//! The names of all embeddings, to be found in prompts: taken apart once for each state of the library.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use latentd_client::protocol::LibraryKind;
use latentd_models::prompt::EmbeddingNames;

use super::item::Item;
use super::snapshot::Snapshot;
use crate::error::Result;

/// The names of a snapshot's embeddings.
struct Named {
    snapshot: Weak<Snapshot>,
    names: EmbeddingNames,
    items: Vec<Item>,
}

/// Those of the snapshot that was looked at last.
#[derive(Default)]
pub(super) struct KnownEmbeddings(Mutex<Option<Arc<Named>>>);

impl KnownEmbeddings {
    /// The embeddings of a snapshot whose names stand in one of these prompts, each file once.
    pub(super) fn mentioned(&self, snapshot: &Arc<Snapshot>, prompts: [&str; 2]) -> Result<Vec<Item>> {
        let named = self.of(snapshot)?;
        let mut places = vec![];
        for prompt in prompts {
            places.extend(named.names.mentioned(prompt)?);
        }
        places.sort_unstable();
        places.dedup();
        Ok(places.into_iter().filter_map(|place| named.items.get(place).cloned()).collect())
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
        let names = EmbeddingNames::new(items.iter().map(|item| item.name.as_str()))?;
        let named = Arc::new(Named { snapshot: Arc::downgrade(snapshot), names, items });
        *known = Some(Arc::clone(&named));
        Ok(named)
    }
}
