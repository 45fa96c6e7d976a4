//! Scans again when the models folders change.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use notify_debouncer_full::notify::{EventKind, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, new_debouncer};
use tracing::{debug, warn};

/// Changes this close together are looked at once.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// Scans, then waits for changes, for as long as the process lives. Watching starts before the first scan, so that
/// nothing is missed in between.
pub(super) fn run(folders: &[PathBuf], rescan: impl Fn()) {
    let (sender, changes) = mpsc::channel::<DebounceEventResult>();
    let mut debouncer = new_debouncer(DEBOUNCE, None, sender)
        .inspect_err(|error| warn!(%error, "folders are not watched; use `latentd models rescan`"))
        .ok();
    for folder in folders {
        if let Some(debouncer) = &mut debouncer
            && let Err(error) = debouncer.watch(folder, RecursiveMode::Recursive)
        {
            debug!(folder = %folder.display(), %error, "folder is not watched");
        }
    }
    rescan();
    while let Ok(change) = changes.recv() {
        // Reading a file is an event too; what a scan does must not cause the next one.
        let matters = match change {
            Ok(events) => events
                .iter()
                .any(|event| !matches!(event.kind, EventKind::Access(access) if !is_close(access))),
            Err(errors) => {
                warn!(?errors, "watching the models folders");
                true
            }
        };
        if matters {
            rescan();
        }
    }
}

/// A file that was written is closed: the moment a copy is whole.
fn is_close(access: notify_debouncer_full::notify::event::AccessKind) -> bool {
    use notify_debouncer_full::notify::event::{AccessKind, AccessMode};
    matches!(access, AccessKind::Close(AccessMode::Write))
}
