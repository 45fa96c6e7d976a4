//! What waits to be sent to one client.
//!
//! Responses and last events are never dropped. Of progress and previews only the latest of each job waits, and they
//! are the first to go when a client reads too slowly.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use latentd_client::codec::{encode_notification, encode_response};
use latentd_client::protocol::{
    CONNECTION_ERROR_METHOD, DEFAULT_EVENT_METHOD, Event, EventKind, LIBRARY_EVENT_METHOD, LibraryEvent,
    WireError,
};
use serde::Serialize;
use tokio::sync::Notify;
use tracing::error;

use crate::jobs::Watcher;

/// The queue of one connection.
pub(super) struct Outbox {
    limit: usize,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    event_method: String,
    event_args: Vec<String>,
}

struct Frame {
    bytes: Vec<u8>,
    /// What may be dropped, and replaced by the next of its kind.
    passing: Option<Passing>,
}

#[derive(PartialEq, Eq)]
struct Passing {
    job: String,
    preview: bool,
}

impl Outbox {
    /// An empty one that holds about `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        let state = State {
            frames: VecDeque::new(),
            bytes: 0,
            event_method: DEFAULT_EVENT_METHOD.into(),
            event_args: Vec::new(),
        };
        Self { limit, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Queues the answer to request `id`.
    pub(super) fn respond(&self, id: u32, outcome: Result<Vec<u8>, WireError>) {
        let bytes = match outcome {
            Ok(result) => encode_response(id, Ok(&result)),
            Err(error) => {
                let error = rmp_serde::to_vec(&error).unwrap_or_else(|_| vec![0x90]);
                encode_response(id, Err(&error))
            }
        };
        self.push(bytes, None);
    }

    /// Queues the reason why the connection is about to end.
    pub(super) fn last_words(&self, reason: &WireError) {
        self.notify(CONNECTION_ERROR_METHOD, &[], reason, None);
    }

    /// The method name for job events from now on, and what stands before the event in their params.
    pub(super) fn set_event_method(&self, method: String, args: Vec<String>) {
        let mut state = self.lock();
        (state.event_method, state.event_args) = (method, args);
    }

    /// Takes the next frame.
    pub(super) fn pop(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let frame = state.frames.pop_front()?;
        state.bytes -= frame.bytes.len();
        Some(frame.bytes)
    }

    /// Whether so much waits that no more requests should be taken.
    pub(super) fn is_full(&self) -> bool {
        self.lock().bytes > self.limit / 2
    }

    /// Returns when something was queued since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn notify(&self, method: &str, args: &[String], params: &impl Serialize, passing: Option<Passing>) {
        match encode_notification(method, args, params) {
            Ok(bytes) => self.push(bytes, passing),
            Err(error) => error!(method, %error, "notification cannot be encoded"),
        }
    }

    fn push(&self, bytes: Vec<u8>, passing: Option<Passing>) {
        let mut state = self.lock();
        if passing.is_some() {
            // The new one goes to the end, so that numbers stay in order.
            state.drop_frames(|frame| frame.passing == passing);
        }
        state.bytes += bytes.len();
        state.frames.push_back(Frame { bytes, passing });
        if state.bytes > self.limit {
            state.drop_frames(|frame| frame.passing.as_ref().is_some_and(|passing| passing.preview));
        }
        if state.bytes > self.limit {
            state.drop_frames(|frame| frame.passing.is_some());
        }
        drop(state);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_frames(&mut self, dropped: impl Fn(&Frame) -> bool) {
        self.frames.retain(|frame| !dropped(frame));
        self.bytes = self.frames.iter().map(|frame| frame.bytes.len()).sum();
    }
}

impl Watcher for Outbox {
    fn event(&self, event: &Event) {
        let passing = match event.kind {
            EventKind::Progress { .. } => Some(Passing { job: event.job.clone(), preview: false }),
            EventKind::Preview { .. } => Some(Passing { job: event.job.clone(), preview: true }),
            EventKind::Queued
            | EventKind::Started
            | EventKind::Finished
            | EventKind::Failed { .. }
            | EventKind::Cancelled => None,
        };
        let state = self.lock();
        let (method, args) = (state.event_method.clone(), state.event_args.clone());
        drop(state);
        self.notify(&method, &args, event, passing);
    }

    fn library_event(&self, event: &LibraryEvent) {
        self.notify(LIBRARY_EVENT_METHOD, &[], event, None);
    }
}

#[cfg(test)]
mod tests {
    use latentd_client::protocol::{Bytes, ImageOut};

    use super::*;

    fn event(job: &str, seq: u64, kind: EventKind) -> Event {
        Event { job: job.into(), seq, kind }
    }

    fn progress(step: u32) -> EventKind {
        EventKind::Progress { stage: None, step, steps: 9, eta_s: None }
    }

    fn preview(bytes: usize) -> EventKind {
        let image = ImageOut { png: Some(Bytes(vec![7; bytes])), ..Default::default() };
        EventKind::Preview { step: 1, image: Box::new(image) }
    }

    fn count(outbox: &Outbox) -> usize {
        std::iter::from_fn(|| outbox.pop()).count()
    }

    #[test]
    fn only_the_latest_progress_of_a_job_waits() {
        let outbox = Outbox::new(1 << 20);
        for seq in 0..100 {
            outbox.event(&event("a", seq, progress(1)));
            outbox.event(&event("b", seq, progress(1)));
        }
        outbox.event(&event("a", 100, EventKind::Finished));
        assert_eq!(count(&outbox), 3);
    }

    #[test]
    fn previews_go_first_and_answers_never() {
        let outbox = Outbox::new(10_000);
        outbox.event(&event("a", 1, progress(1)));
        outbox.event(&event("a", 2, preview(8000)));
        outbox.respond(1, Ok(vec![0xc0; 5000]));
        assert_eq!(count(&outbox), 2, "the preview went");
        outbox.event(&event("a", 3, progress(2)));
        outbox.respond(2, Ok(vec![0xc0; 50_000]));
        outbox.respond(3, Ok(vec![0xc0; 50_000]));
        outbox.event(&event("a", 4, EventKind::Finished));
        assert_eq!(count(&outbox), 3, "answers and the last event stay");
    }
}
