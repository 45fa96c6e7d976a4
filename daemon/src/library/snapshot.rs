//! What a scan found, and what changed from one to the next.

use latentd_client::protocol::{LibraryEvent, LibraryEventKind, LibraryProblem};

use super::item::Item;

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// What can be used, by kind and name, then path.
    pub entries: Vec<Item>,
    /// Files that cannot be used.
    pub problems: Vec<LibraryProblem>,
}

/// What changed from one scan to the next, if anything did.
pub(super) fn difference(before: &Snapshot, after: &Snapshot) -> Option<LibraryEvent> {
    let shown = |item: &Item| format!("{}/{}", item.kind, item.name);
    let at = |snapshot: &Snapshot, item: &Item| {
        snapshot.entries.iter().find(|other| other.is_same_place(item)).cloned()
    };
    let mut event = LibraryEvent {
        kind: LibraryEventKind::Changed,
        added: Vec::new(),
        changed: Vec::new(),
        removed: Vec::new(),
    };
    for item in &after.entries {
        match at(before, item) {
            None => event.added.push(shown(item)),
            Some(old) if old != *item => event.changed.push(shown(item)),
            Some(_) => (),
        }
    }
    event.removed = before.entries.iter().filter(|item| at(after, item).is_none()).map(shown).collect();
    let nothing = event.added.is_empty() && event.changed.is_empty() && event.removed.is_empty();
    (!nothing).then_some(event)
}
