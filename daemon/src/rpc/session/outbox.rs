//! What waits to be sent to one client.
//!
//! Of progress and previews only the latest of each job waits, and they are the first to go when a client reads too
//! slowly. Answers and last events are never dropped: large answers are made one at a time, when there is room for
//! them ([`Outbox::turn`]), and a client that lets too many events pile up loses its connection.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use latentd_client::codec::{encode_notification, encode_response};
use latentd_client::protocol::{
    CONNECTION_ERROR_METHOD, DEFAULT_EVENT_METHOD, Event, EventKind, LIBRARY_EVENT_METHOD, LibraryEvent,
};
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, Notify, Semaphore, SemaphorePermit};
use tracing::error;

use crate::error::{Error, Result};
use crate::jobs::Watcher;

/// Slow requests of one connection that run at once, each with an answer in the making.
const SLOTS: usize = 16;

/// The queue of one connection.
pub(crate) struct Outbox {
    limit: usize,
    state: Mutex<State>,
    changed: Notify,
    /// Bytes went out.
    taken: Notify,
    turns: AsyncMutex<()>,
    slots: Semaphore,
}

struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Those of events and other notifications that must not be dropped.
    lasting_bytes: usize,
    /// Nothing more is taken in.
    overflowed: bool,
    event_method: String,
    event_args: Vec<String>,
}

struct Frame {
    bytes: Vec<u8>,
    kind: Kind,
}

#[derive(PartialEq, Eq)]
enum Kind {
    Answer,
    /// Stays until it is sent.
    Lasting,
    /// May be dropped, and is replaced by the next of its kind.
    Passing {
        job: String,
        preview: bool,
    },
}

/// The right to make and queue an answer of any size; nobody else has it meanwhile.
pub(crate) struct Turn<'a> {
    _alone: AsyncMutexGuard<'a, ()>,
}

impl Outbox {
    /// An empty one that holds about `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        let state = State {
            frames: VecDeque::new(),
            bytes: 0,
            lasting_bytes: 0,
            overflowed: false,
            event_method: DEFAULT_EVENT_METHOD.into(),
            event_args: Vec::new(),
        };
        Self {
            limit,
            state: Mutex::new(state),
            changed: Notify::new(),
            taken: Notify::new(),
            turns: AsyncMutex::default(),
            slots: Semaphore::new(SLOTS),
        }
    }

    /// Queues the answer to request `id`.
    pub(crate) fn respond(&self, id: u32, outcome: Result<Vec<u8>>) {
        let bytes = match outcome {
            Ok(result) => encode_response(id, Ok(&result)),
            Err(error) => {
                let error = rmp_serde::to_vec(&error.to_wire()).unwrap_or_else(|_| vec![0x90]);
                encode_response(id, Err(&error))
            }
        };
        self.push(bytes, Kind::Answer);
    }

    /// Waits until little waits to be sent. So however many answers a client has asked for, there are about `limit`
    /// bytes of them and one more in memory.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let alone = self.turns.lock().await;
        while self.is_full() {
            self.taken.notified().await;
        }
        Turn { _alone: alone }
    }

    /// Waits for the right to run one of a few slow requests, whose answers are of modest size.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        let slot = self.slots.acquire().await.ok();
        drop(self.turn().await);
        slot
    }

    /// Queues the reason why the connection is about to end.
    pub(crate) fn last_words(&self, reason: &Error) {
        self.notify(CONNECTION_ERROR_METHOD, &[], &reason.to_wire(), Kind::Lasting);
    }

    /// The method name for job events from now on, and what stands before the event in their params.
    pub(crate) fn set_event_method(&self, method: String, args: Vec<String>) {
        let mut state = self.lock();
        (state.event_method, state.event_args) = (method, args);
    }

    /// Takes the next frame.
    pub(crate) fn pop(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let frame = state.frames.pop_front()?;
        state.bytes -= frame.bytes.len();
        state.lasting_bytes -= frame.lasting_bytes();
        drop(state);
        self.taken.notify_one();
        Some(frame.bytes)
    }

    /// Whether more events came than the client may leave waiting.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.lock().overflowed
    }

    /// Whether so much waits that no more requests should be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().bytes > self.limit / 2
    }

    /// Returns when something was queued since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn notify(&self, method: &str, args: &[String], params: &impl Serialize, kind: Kind) {
        match encode_notification(method, args, params) {
            Ok(bytes) => self.push(bytes, kind),
            Err(error) => error!(method, %error, "notification cannot be encoded"),
        }
    }

    fn push(&self, bytes: Vec<u8>, kind: Kind) {
        let mut state = self.lock();
        if state.overflowed {
            return;
        }
        if matches!(kind, Kind::Passing { .. }) {
            // The new one goes to the end, so that numbers stay in order.
            state.drop_frames(|other| *other == kind);
        }
        let frame = Frame { bytes, kind };
        state.bytes += frame.bytes.len();
        state.lasting_bytes += frame.lasting_bytes();
        state.frames.push_back(frame);
        if state.bytes > self.limit {
            state.drop_frames(|kind| matches!(kind, Kind::Passing { preview: true, .. }));
        }
        if state.bytes > self.limit {
            state.drop_frames(|kind| matches!(kind, Kind::Passing { .. }));
        }
        if state.lasting_bytes > self.limit {
            state.drop_frames(|_| true);
            state.overflowed = true;
        }
        drop(state);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frame {
    fn lasting_bytes(&self) -> usize {
        if self.kind == Kind::Lasting { self.bytes.len() } else { 0 }
    }
}

impl State {
    fn drop_frames(&mut self, dropped: impl Fn(&Kind) -> bool) {
        self.frames.retain(|frame| !dropped(&frame.kind));
        self.bytes = self.frames.iter().map(|frame| frame.bytes.len()).sum();
        self.lasting_bytes = self.frames.iter().map(Frame::lasting_bytes).sum();
    }
}

impl Watcher for Outbox {
    fn event(&self, event: &Event) {
        let kind = match event.kind {
            EventKind::Progress { .. } => Kind::Passing { job: event.job.clone(), preview: false },
            EventKind::Preview { .. } => Kind::Passing { job: event.job.clone(), preview: true },
            EventKind::Queued
            | EventKind::Started
            | EventKind::Finished
            | EventKind::Failed { .. }
            | EventKind::Cancelled => Kind::Lasting,
        };
        let state = self.lock();
        let (method, args) = (state.event_method.clone(), state.event_args.clone());
        drop(state);
        self.notify(&method, &args, event, kind);
    }

    fn library_event(&self, event: &LibraryEvent) {
        self.notify(LIBRARY_EVENT_METHOD, &[], event, Kind::Lasting);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

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
    fn events_that_pile_up_end_the_connection() {
        let outbox = Outbox::new(10_000);
        // One large answer alone does not.
        outbox.respond(1, Ok(vec![0xc0; 50_000]));
        outbox.event(&event("a", 1, EventKind::Finished));
        assert!(!outbox.has_overflowed());
        for seq in 0..1000 {
            outbox.event(&event("a", seq, EventKind::Queued));
        }
        assert!(outbox.has_overflowed());
        assert_eq!(count(&outbox), 0, "nothing is kept for it");
    }

    #[tokio::test]
    async fn answers_wait_for_room() {
        let outbox = Outbox::new(10_000);
        drop(outbox.turn().await);
        outbox.respond(1, Ok(vec![0xc0; 50_000]));
        let mut turn = std::pin::pin!(outbox.turn());
        assert!(std::future::poll_fn(|context| Poll::Ready(turn.as_mut().poll(context).is_pending())).await);
        assert_eq!(count(&outbox), 1);
        drop(turn.await);
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
