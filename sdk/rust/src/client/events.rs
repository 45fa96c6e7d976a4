//! Events as a client reads them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::protocol::{Event, EventKind, LibraryEvent};

/// Where events wait until they are read. Progress and previews that wait are replaced by newer ones of the same
/// job, so a reader that is slow, or gone quiet, costs little memory and never blocks the connection.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    closed: bool,
}

impl EventQueue {
    pub(super) fn push(&self, event: Event) {
        let mut state = self.lock();
        let same = |other: &Event| {
            other.job == event.job
                && match event.kind {
                    EventKind::Progress { .. } => matches!(other.kind, EventKind::Progress { .. }),
                    EventKind::Preview { .. } => matches!(other.kind, EventKind::Preview { .. }),
                    _ => false,
                }
        };
        if let Some(place) = state.events.iter().position(same) {
            state.events.remove(place);
        }
        state.events.push_back(event);
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Library events that may wait for a reader; of more the oldest are lost, and a reader that is so slow lists anew.
const MOST_LIBRARY_EVENTS: usize = 1024;

/// Where library events wait until they are read.
#[derive(Debug, Default)]
pub(super) struct LibraryQueue {
    state: Mutex<LibraryState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct LibraryState {
    events: VecDeque<LibraryEvent>,
    closed: bool,
}

impl LibraryQueue {
    pub(super) fn push(&self, event: LibraryEvent) {
        let mut state = self.lock();
        if state.events.len() == MOST_LIBRARY_EVENTS {
            state.events.pop_front();
        }
        state.events.push_back(event);
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, LibraryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens to the library. Dropping it stops listening.
#[derive(Debug)]
pub struct LibraryStream {
    queue: Arc<LibraryQueue>,
}

impl LibraryStream {
    pub(super) fn new(queue: Arc<LibraryQueue>) -> Self {
        Self { queue }
    }

    /// The next event; `None` when the connection ended.
    pub async fn next(&mut self) -> Option<LibraryEvent> {
        loop {
            let changed = self.queue.changed.notified();
            {
                let mut state = self.queue.lock();
                let event = state.events.pop_front();
                if event.is_some() || state.closed {
                    return event;
                }
            }
            changed.await;
        }
    }
}

/// The events of one job, or of all. Dropping it stops listening.
#[derive(Debug)]
pub struct EventStream {
    queue: Arc<EventQueue>,
    one_job: bool,
    ended: bool,
}

impl EventStream {
    pub(super) fn new(queue: Arc<EventQueue>, one_job: bool) -> Self {
        Self { queue, one_job, ended: false }
    }

    /// The next event; `None` after the last one of the job this stream follows, or when the connection ended.
    pub async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            let changed = self.queue.changed.notified();
            {
                let mut state = self.queue.lock();
                if let Some(event) = state.events.pop_front() {
                    self.ended = self.one_job && event.kind.is_last();
                    return Some(event);
                }
                self.ended = state.closed;
            }
            if !self.ended {
                changed.await;
            }
        }
        None
    }
}
