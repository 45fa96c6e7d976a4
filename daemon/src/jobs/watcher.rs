//! Who is told what happens.

use std::cell::OnceCell;
use std::sync::Arc;

use latentd_client::protocol::{Event, LibraryEvent};

/// Somebody who is told what happens. Must not wait: it is called while jobs go on.
pub(crate) trait Watcher: Send + Sync {
    /// Something happened to a job.
    fn event(&self, told: &Told<'_>);
    /// Something happened to the library.
    fn library_event(&self, event: &LibraryEvent);
}

/// An event that several are told of. Who needs it in another form makes that for all of them.
pub(crate) struct Told<'a> {
    event: &'a Event,
    encoded: OnceCell<Option<Arc<Vec<u8>>>>,
}

impl<'a> Told<'a> {
    pub(crate) fn new(event: &'a Event) -> Self {
        Self { event, encoded: OnceCell::new() }
    }

    pub(crate) fn event(&self) -> &'a Event {
        self.event
    }

    /// What `encode` made of it for the first who asked; `None` if it could not.
    pub(crate) fn encoded(
        &self,
        encode: impl FnOnce(&Event) -> Option<Arc<Vec<u8>>>,
    ) -> Option<Arc<Vec<u8>>> {
        self.encoded.get_or_init(|| encode(self.event)).clone()
    }
}
