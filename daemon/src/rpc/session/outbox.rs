//! What waits to be sent to one client.
//!
//! Of progress and previews only the latest of each job waits, and they are the first to go when a client reads too
//! slowly. Answers and last events are never dropped: large answers are made one at a time, when there is room for
//! them ([`Outbox::turn`]), and a client that lets too many events pile up loses its connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use latentd_client::codec::{encode_error_response, encode_notification_head, encode_response_head};
use latentd_client::protocol::{
    CONNECTION_ERROR_METHOD, DEFAULT_EVENT_METHOD, Event, EventKind, LIBRARY_EVENT_METHOD, LibraryEvent,
};
use serde::Serialize;
use tokio::sync::{
    Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, Notify, OwnedSemaphorePermit, Semaphore,
    SemaphorePermit,
};
use tracing::error;

use super::buffers::{Buffers, PIECE};
use super::frame::Frame;
use crate::error::{Error, Result};
use crate::jobs::{Told, Watcher};

/// Slow requests of one connection that run at once, each with an answer in the making.
const SLOTS: usize = 16;

/// The queue of one connection. Whatever waits in it, a frame comes and goes in a moment: those who tell of events hold
/// locks meanwhile.
pub(crate) struct Outbox {
    limit: usize,
    /// Shared with all other connections.
    buffers: Buffers,
    state: Mutex<State>,
    changed: Notify,
    /// Bytes went out.
    taken: Notify,
    turns: AsyncMutex<()>,
    slots: Semaphore,
}

struct State {
    /// By a number that counts up, in whose order they go out.
    frames: BTreeMap<u64, Queued>,
    next: u64,
    /// The numbers of those that may be dropped, by their jobs.
    progress: HashMap<String, u64>,
    previews: HashMap<String, u64>,
    /// What all of them take.
    bytes: usize,
    /// Those of events and other notifications that must not be dropped.
    lasting_bytes: usize,
    /// Nothing more is taken in.
    overflowed: bool,
    /// What stands before an event.
    event_head: Vec<u8>,
}

struct Queued {
    frame: Frame,
    kind: Kind,
}

enum Kind {
    Answer,
    /// Stays until it is sent.
    Lasting,
    /// May be dropped, and is replaced by the next one of its job.
    Progress(String),
    /// The same.
    Preview(String),
}

/// The right to make and queue an answer of any size; nobody else has it meanwhile.
pub(crate) struct Turn<'a> {
    _alone: AsyncMutexGuard<'a, ()>,
}

impl Outbox {
    /// An empty one that holds about `limit` bytes, and fewer while `buffers` are crowded.
    pub(crate) fn new(limit: usize, buffers: Buffers) -> Self {
        let state = State {
            frames: BTreeMap::new(),
            next: 0,
            progress: HashMap::new(),
            previews: HashMap::new(),
            bytes: 0,
            lasting_bytes: 0,
            overflowed: false,
            event_head: encode_notification_head(DEFAULT_EVENT_METHOD, &[]),
        };
        Self {
            limit,
            buffers,
            state: Mutex::new(state),
            changed: Notify::new(),
            taken: Notify::new(),
            turns: AsyncMutex::default(),
            slots: Semaphore::new(SLOTS),
        }
    }

    /// Queues the answer to request `id`.
    pub(crate) fn respond(&self, id: u32, outcome: Result<Vec<u8>>) {
        self.respond_shared(id, outcome.map(Arc::new), None);
    }

    /// The same with bytes that others may hold too, for which there is `room`.
    pub(crate) fn respond_shared(
        &self,
        id: u32,
        outcome: Result<Arc<Vec<u8>>>,
        room: Option<OwnedSemaphorePermit>,
    ) {
        let frame = match outcome {
            Ok(result) => Frame::new(encode_response_head(id).to_vec(), &result),
            Err(error) => {
                let error = rmp_serde::to_vec(&error.to_wire()).unwrap_or_else(|_| vec![0x90]);
                Frame::new(encode_error_response(id, &error), &Arc::default())
            }
        };
        self.push(frame.holding(room), Kind::Answer);
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
        self.notify(CONNECTION_ERROR_METHOD, &reason.to_wire());
    }

    /// The method name for job events from now on, and what stands before the event in their params.
    pub(crate) fn set_event_method(&self, method: &str, args: &[String]) {
        self.lock().event_head = encode_notification_head(method, args);
    }

    /// Takes the next frame.
    pub(crate) fn pop(&self) -> Option<Frame> {
        let mut state = self.lock();
        let (&first, _) = state.frames.first_key_value()?;
        let before = state.bytes;
        let frame = state.remove(first);
        self.buffers.wait(before, state.bytes);
        drop(state);
        self.taken.notify_one();
        frame
    }

    /// Whether more events came than the client may leave waiting.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.lock().overflowed
    }

    /// Whether so much waits that no more requests should be taken.
    pub(crate) fn is_full(&self) -> bool {
        let bytes = self.lock().bytes;
        bytes > self.limit / 2 || (bytes > PIECE && self.buffers.is_crowded())
    }

    /// Returns when something was queued since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn notify(&self, method: &str, params: &impl Serialize) {
        if let Some(params) = encode(params) {
            self.push(Frame::new(encode_notification_head(method, &[]), &params), Kind::Lasting);
        }
    }

    fn push(&self, frame: Frame, kind: Kind) {
        self.push_into(&mut self.lock(), frame, kind);
        self.changed.notify_one();
    }

    fn push_into(&self, state: &mut State, frame: Frame, kind: Kind) {
        if state.overflowed {
            return;
        }
        let before = state.bytes;
        state.insert(frame, kind);
        if state.bytes > self.limit {
            state.drop_previews();
        }
        if state.bytes > self.limit {
            state.drop_progress();
        }
        if state.lasting_bytes > self.limit {
            state.overflow();
        }
        self.buffers.wait(before, state.bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.buffers.wait(self.lock().bytes, 0);
    }
}

impl State {
    /// At the end, so that numbers stay in order; instead of the one that it replaces.
    fn insert(&mut self, frame: Frame, kind: Kind) {
        let number = self.next;
        self.next += 1;
        let replaced = match &kind {
            Kind::Answer | Kind::Lasting => None,
            Kind::Progress(job) => self.progress.insert(job.clone(), number),
            Kind::Preview(job) => self.previews.insert(job.clone(), number),
        };
        if let Some(replaced) = replaced {
            self.take(replaced);
        }
        self.bytes += frame.cost();
        if matches!(kind, Kind::Lasting) {
            self.lasting_bytes += frame.cost();
        }
        self.frames.insert(number, Queued { frame, kind });
    }

    fn remove(&mut self, number: u64) -> Option<Frame> {
        let Queued { frame, kind } = self.take(number)?;
        match &kind {
            Kind::Answer | Kind::Lasting => (),
            Kind::Progress(job) => drop(self.progress.remove(job)),
            Kind::Preview(job) => drop(self.previews.remove(job)),
        }
        Some(frame)
    }

    /// Out of the queue, but not out of the numbers by jobs.
    fn take(&mut self, number: u64) -> Option<Queued> {
        let queued = self.frames.remove(&number)?;
        self.bytes -= queued.frame.cost();
        if matches!(queued.kind, Kind::Lasting) {
            self.lasting_bytes -= queued.frame.cost();
        }
        Some(queued)
    }

    fn drop_previews(&mut self) {
        for number in std::mem::take(&mut self.previews).into_values() {
            self.take(number);
        }
    }

    fn drop_progress(&mut self) {
        for number in std::mem::take(&mut self.progress).into_values() {
            self.take(number);
        }
    }

    /// Too much waits: nothing is kept.
    fn overflow(&mut self) {
        self.frames.clear();
        self.progress.clear();
        self.previews.clear();
        (self.bytes, self.lasting_bytes) = (0, 0);
        self.overflowed = true;
    }
}

fn encode(params: &impl Serialize) -> Option<Arc<Vec<u8>>> {
    let encoded = rmp_serde::to_vec_named(params);
    encoded.inspect_err(|error| error!(%error, "a notification cannot be encoded")).ok().map(Arc::new)
}

impl Watcher for Outbox {
    fn event(&self, told: &Told<'_>) {
        let event: &Event = told.event();
        let kind = match event.kind {
            EventKind::Progress { .. } => Kind::Progress(event.job.clone()),
            EventKind::Preview { .. } => Kind::Preview(event.job.clone()),
            EventKind::Queued
            | EventKind::Started
            | EventKind::Finished
            | EventKind::Failed { .. }
            | EventKind::Cancelled => Kind::Lasting,
        };
        let Some(params) = told.encoded(encode) else {
            return;
        };
        let mut state = self.lock();
        let frame = Frame::new(state.event_head.clone(), &params);
        self.push_into(&mut state, frame, kind);
        drop(state);
        self.changed.notify_one();
    }

    fn library_event(&self, event: &LibraryEvent) {
        self.notify(LIBRARY_EVENT_METHOD, event);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use latentd_client::protocol::{Bytes, ImageOut};

    use super::*;

    fn outbox(limit: usize) -> Outbox {
        Outbox::new(limit, Buffers::new(1 << 40))
    }

    fn tell(outbox: &Outbox, job: &str, seq: u64, kind: EventKind) {
        outbox.event(&Told::new(&Event { job: job.into(), seq, kind }));
    }

    fn progress(step: u32) -> EventKind {
        EventKind::Progress { stage: None, pass: None, step, steps: 9, eta_s: None, plugin: None }
    }

    fn preview(bytes: usize) -> EventKind {
        let image = ImageOut { png: Some(Bytes(vec![7; bytes])), ..Default::default() };
        EventKind::Preview { step: 1, pass: None, plugin: None, image: Box::new(image) }
    }

    fn count(outbox: &Outbox) -> usize {
        std::iter::from_fn(|| outbox.pop()).count()
    }

    #[test]
    fn only_the_latest_progress_of_a_job_waits() {
        let outbox = outbox(1 << 20);
        for seq in 0..100 {
            tell(&outbox, "a", seq, progress(1));
            tell(&outbox, "b", seq, progress(1));
        }
        tell(&outbox, "a", 100, EventKind::Finished);
        assert_eq!(count(&outbox), 3);
    }

    #[test]
    fn events_that_pile_up_end_the_connection() {
        let outbox = outbox(10_000);
        // One large answer alone does not.
        outbox.respond(1, Ok(vec![0xc0; 50_000]));
        tell(&outbox, "a", 1, EventKind::Finished);
        assert!(!outbox.has_overflowed());
        for seq in 0..1000 {
            tell(&outbox, "a", seq, EventKind::Queued);
        }
        assert!(outbox.has_overflowed());
        assert_eq!(count(&outbox), 0, "nothing is kept for it");
    }

    #[tokio::test]
    async fn answers_wait_for_room() {
        let outbox = outbox(10_000);
        drop(outbox.turn().await);
        outbox.respond(1, Ok(vec![0xc0; 50_000]));
        let mut turn = std::pin::pin!(outbox.turn());
        assert!(std::future::poll_fn(|context| Poll::Ready(turn.as_mut().poll(context).is_pending())).await);
        assert_eq!(count(&outbox), 1);
        drop(turn.await);
    }

    #[test]
    fn previews_go_first_and_answers_never() {
        let outbox = outbox(10_000);
        tell(&outbox, "a", 1, progress(1));
        tell(&outbox, "a", 2, preview(8000));
        outbox.respond(1, Ok(vec![0xc0; 5000]));
        assert_eq!(count(&outbox), 2, "the preview went");
        tell(&outbox, "a", 3, progress(2));
        outbox.respond(2, Ok(vec![0xc0; 50_000]));
        outbox.respond(3, Ok(vec![0xc0; 50_000]));
        tell(&outbox, "a", 4, EventKind::Finished);
        assert_eq!(count(&outbox), 3, "answers and the last event stay");
    }

    #[test]
    fn what_a_frame_costs_counts_however_small_it_is() {
        let outbox = outbox(1 << 20);
        let mut answers = 0;
        while !outbox.is_full() {
            outbox.respond(answers, Ok(vec![0x80]));
            answers += 1;
        }
        assert!(answers < (1 << 20) / 100, "{answers} answers of a byte");
        while outbox.pop().is_some() {}
        let state = outbox.lock();
        assert_eq!((state.bytes, state.lasting_bytes), (0, 0));
    }

    #[test]
    fn one_event_is_encoded_once_for_all_who_are_told() {
        let event = Event { job: "a".into(), seq: 1, kind: preview(100_000) };
        let told = Told::new(&event);
        let boxes: Vec<_> = (0..4).map(|_| outbox(1 << 20)).collect();
        for outbox in &boxes {
            outbox.event(&told);
        }
        let encoded = told.encoded(|_| panic!("it is encoded")).expect("encoded");
        assert_eq!(Arc::strong_count(&encoded), 1 + 1 + boxes.len());
        boxes[1].set_event_method("other", &["before".into()]);
        boxes[1].event(&told);
        let frames: Vec<_> = std::iter::from_fn(|| boxes[1].pop()).collect();
        assert_eq!(frames.len(), 1, "the one before is replaced");
        let mut bytes = frames[0].rest(0).to_vec();
        bytes.extend_from_slice(frames[0].rest(bytes.len()));
        let args = ["before".to_owned()];
        assert!(
            bytes == latentd_client::codec::encode_notification("other", &args, &event).expect("encodes")
        );
    }

    #[test]
    fn what_waits_makes_nobody_wait() {
        let outbox = outbox(1 << 30);
        for id in 0..200_000 {
            outbox.respond(id, Ok(vec![0x80]));
        }
        // Each of these once walked along all the answers: minutes, where this takes less than a second.
        let started = std::time::Instant::now();
        for seq in 0..20_000 {
            tell(&outbox, "a", seq, progress(1));
        }
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }

    #[test]
    fn what_waits_for_all_is_counted_however_it_goes() {
        let buffers = Buffers::new(4 << 20);
        let other = Outbox::new(1 << 30, buffers.clone());
        other.respond(1, Ok(vec![0xc0; PIECE]));
        let outbox = Outbox::new(1 << 30, buffers.clone());
        for id in 0..10 {
            outbox.respond(id, Ok(vec![0xc0; 200_000]));
        }
        assert!(buffers.is_crowded() && outbox.is_full() && other.is_full());
        assert_eq!(count(&other), 1);
        other.respond(2, Ok(vec![0xc0]));
        assert!(!other.is_full(), "small answers always pass");
        assert_eq!(count(&outbox), 10);
        assert!(!buffers.is_crowded());
        outbox.respond(1, Ok(vec![0xc0; 2 << 20]));
        assert!(buffers.is_crowded());
        drop(outbox);
        assert!(!buffers.is_crowded());
        let small = Outbox::new(1000, buffers.clone());
        small.respond(1, Ok(vec![0xc0; 2 << 20]));
        for seq in 0..100 {
            tell(&small, "a", seq, EventKind::Queued);
        }
        assert!(small.has_overflowed() && !buffers.is_crowded(), "nothing is kept for it");
    }
}
