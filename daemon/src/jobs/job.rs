//! One job: its state, its events, and who watches it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use latentd_client::protocol::{Event, EventKind, JobState, JobView, Txt2ImgParams};
use tokio::sync::watch;

use super::watcher::Watcher;
use crate::clock;
use crate::error::Error;

/// Events kept for those who subscribe late. Progress and previews are kept only in their latest form, so a job has
/// a handful.
const KEPT_EVENTS: usize = 64;

/// SHA-256 of an encoded request.
pub(super) type RequestDigest = [u8; 32];

/// What was asked for.
pub(crate) struct Job {
    pub id: String,
    pub method: &'static str,
    pub request: Txt2ImgParams,
    /// Tells a repeated submit from a different one.
    pub digest: RequestDigest,
    pub created_at: f64,
    cancelled: AtomicBool,
    ended: watch::Sender<bool>,
    inner: Mutex<Inner>,
}

/// What became of it so far.
pub(super) struct Inner {
    pub state: JobState,
    pub started_at: Option<f64>,
    pub finished_at: Option<f64>,
    pub step: u32,
    pub steps: u32,
    pub eta_s: Option<f64>,
    pub error: Option<Error>,
    /// The encoded result, while it is not on the disk.
    pub result: Option<Arc<Vec<u8>>>,
    pub last_seq: u64,
    events: VecDeque<Event>,
    watchers: Vec<Weak<dyn Watcher>>,
}

impl Job {
    pub(super) fn new(
        id: String,
        method: &'static str,
        request: Txt2ImgParams,
        digest: RequestDigest,
    ) -> Self {
        let steps = request.steps.saturating_mul(request.n_iter);
        Self {
            id,
            method,
            request,
            digest,
            created_at: clock::now(),
            cancelled: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            inner: Mutex::new(Inner {
                state: JobState::Queued,
                started_at: None,
                finished_at: None,
                step: 0,
                steps,
                eta_s: None,
                error: None,
                result: None,
                last_seq: 0,
                events: VecDeque::new(),
                watchers: Vec::new(),
            }),
        }
    }

    /// Whether it should stop.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn request_cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Waits until nothing more happens to it.
    pub(super) async fn wait_ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives in the job, which we hold: waiting cannot fail.
        ended.wait_for(|ended| *ended).await.ok();
    }

    pub(super) fn tell_ended(&self) {
        self.ended.send_replace(true);
    }

    /// Replays what is kept after `since`, then follows.
    pub(super) fn watch(&self, watcher: &Arc<dyn Watcher>, since: u64) {
        let mut inner = self.lock();
        for event in inner.events.iter().filter(|event| event.seq > since) {
            watcher.event(event);
        }
        let watcher = Arc::downgrade(watcher);
        inner.watchers.retain(|other| other.strong_count() > 0);
        if !inner.state.is_terminal() && !inner.watchers.iter().any(|other| Weak::ptr_eq(other, &watcher)) {
            inner.watchers.push(watcher);
        }
    }

    /// Changes the state and tells those who watch, in one step: events go out in the order of their numbers.
    /// `change` gives the event, or nothing if there is nothing to tell.
    pub(super) fn update(
        &self,
        everyone: &[Weak<dyn Watcher>],
        change: impl FnOnce(&mut Inner) -> Option<EventKind>,
    ) {
        let mut inner = self.lock();
        let Some(kind) = change(&mut inner) else {
            return;
        };
        inner.last_seq += 1;
        let event = Event { job: self.id.clone(), seq: inner.last_seq, kind };
        let global = everyone.iter();
        let own = inner.watchers.iter().filter(|own| !everyone.iter().any(|each| Weak::ptr_eq(each, own)));
        for watcher in global.chain(own).filter_map(Weak::upgrade) {
            watcher.event(&event);
        }
        if event.kind.is_last() {
            inner.watchers.clear();
        }
        inner.keep(event);
    }

    pub(super) fn view(&self, position: Option<u32>) -> JobView {
        let inner = self.lock();
        JobView {
            job: self.id.clone(),
            state: inner.state,
            method: self.method.to_owned(),
            created_at: self.created_at,
            started_at: inner.started_at,
            finished_at: inner.finished_at,
            step: inner.step,
            steps: inner.steps,
            eta_s: inner.eta_s,
            error: inner.error.as_ref().map(Error::to_wire),
            position,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Keeps an event for late subscribers; an older one of the same passing kind goes.
    fn keep(&mut self, event: Event) {
        let passing = |kind: &EventKind| match kind {
            EventKind::Progress { .. } => 1,
            EventKind::Preview { .. } => 2,
            _ => 0,
        };
        let kind = passing(&event.kind);
        if kind != 0 {
            self.events.retain(|old| passing(&old.kind) != kind);
        }
        self.events.push_back(event);
        if self.events.len() > KEPT_EVENTS {
            self.events.pop_front();
        }
    }
}
