//! Who is told what happens.

use latentd_client::protocol::{Event, LibraryEvent};

/// Somebody who is told what happens. Must not wait: it is called while jobs go on.
pub(crate) trait Watcher: Send + Sync {
    /// Something happened to a job.
    fn event(&self, event: &Event);
    /// Something happened to the library.
    fn library_event(&self, event: &LibraryEvent);
}
