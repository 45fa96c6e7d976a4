//! One job: its state, its events, and who watches it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use latentd_client::protocol::{Event, EventKind, JobState, JobView, Pass};
use tokio::sync::watch;

use super::watcher::{Told, Watcher};
use crate::clock;
use crate::error::{Error, Result};
use crate::tasks::{DeviceId, Request, Task};

/// Events kept for those who subscribe late. Progress and previews are kept only in their latest form, so a job has
/// a handful.
const KEPT_EVENTS: usize = 64;

/// A request with an id, and what becomes of it.
pub(crate) struct Job {
    pub id: String,
    pub request: Request,
    pub created_at: f64,
    /// What its request is answered with.
    pub answer: Answer,
    /// What it does, once that is resolved and until it has ended: it holds files open and whatever was given.
    task: Mutex<Option<Arc<dyn Task>>>,
    /// How far it is on its way into the queue. Held while that changes.
    admission: Mutex<Admission>,
    /// As that says, for those who cannot wait for it.
    listed: AtomicBool,
    /// How the submit came out.
    submitted: watch::Sender<Option<Result<()>>>,
    cancelled: AtomicBool,
    /// It was told to stop because the daemon ends.
    interrupted: AtomicBool,
    ended: watch::Sender<bool>,
    inner: Mutex<Inner>,
}

/// What a request that becomes a job is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With the job's id, which must be known for as long as is promised: a job that cannot be stored is refused.
    Id,
    /// With its result. It is done also where it cannot be stored.
    Result,
}

/// How far a job is on its way into the queue. It has its place there from the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Nobody was told of it yet, and it may turn out that there is no such job.
    Reserved,
    /// It is refused, unless it is one that is stored under its id.
    Doubtful(Error),
    /// It is stored, and those who watch were told.
    Listed,
    /// There is no such job.
    Refused,
}

/// How a job stands, as its row says it.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub state: JobState,
    pub started_at: Option<f64>,
    pub finished_at: Option<f64>,
    pub step: u32,
    pub steps: u32,
    pub error: Option<Error>,
    /// Bytes of the file that holds its result.
    pub result_bytes: Option<u64>,
}

/// What became of it so far.
pub(super) struct Inner {
    pub standing: Standing,
    /// It is stored, and those who watch were told of it. Before its submit is answered: who then submits another comes
    /// after it.
    pub told: bool,
    pub eta_s: Option<f64>,
    /// The stage that was told of last, and what is drawn.
    pub stage: Option<(String, Option<Pass>)>,
    /// The encoded result, while it is not on the disk.
    pub result: Option<Arc<Vec<u8>>>,
    /// Its row does not say how it stands, or there is a result that is not on the disk.
    pub unsaved: bool,
    /// Somebody was given the result.
    pub read: bool,
    pub last_seq: u64,
    events: VecDeque<Event>,
    watchers: Vec<Weak<dyn Watcher>>,
}

impl Job {
    pub(super) fn new(id: String, request: Request, answer: Answer, admission: Admission) -> Self {
        Self {
            id,
            request,
            created_at: clock::now(),
            answer,
            task: Mutex::default(),
            admission: Mutex::new(admission),
            listed: AtomicBool::new(false),
            submitted: watch::Sender::new(None),
            cancelled: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            inner: Mutex::new(Inner {
                standing: Standing {
                    state: JobState::Resolving,
                    started_at: None,
                    finished_at: None,
                    step: 0,
                    steps: 0,
                    error: None,
                    result_bytes: None,
                },
                told: false,
                eta_s: None,
                stage: None,
                result: None,
                unsaved: false,
                read: false,
                last_seq: 0,
                events: VecDeque::new(),
                watchers: Vec::new(),
            }),
        }
    }

    /// What it does; `None` while that is not resolved, and once it has ended.
    pub(crate) fn task(&self) -> Option<Arc<dyn Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing more is to be done.
    pub(super) fn drop_task(&self) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn set_task(&self, task: Arc<dyn Task>) {
        let mut inner = self.lock();
        // What was counted while it was resolved were no steps of it.
        (inner.standing.step, inner.standing.steps, inner.eta_s) = (0, task.steps(), None);
        drop(inner);
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Whether its turn may come on this device.
    pub(super) fn is_ready(&self, device: DeviceId) -> bool {
        let is_due = |inner: &Inner| inner.told && inner.standing.state == JobState::Queued;
        self.task().is_some_and(|task| task.device() == device) && is_due(&self.lock())
    }

    /// Waits until it is known how the submit came out.
    pub(crate) async fn submitted(&self) -> Result<()> {
        let mut submitted = self.submitted.subscribe();
        let known = submitted.wait_for(Option::is_some).await;
        // The sender lives in the job, which we hold: waiting cannot fail.
        known.ok().and_then(|known| known.clone()).unwrap_or(Ok(()))
    }

    pub(super) fn tell_submitted(&self, outcome: Result<()>) {
        self.submitted.send_replace(Some(outcome));
    }

    pub(super) fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_listed(&self) {
        self.listed.store(true, Ordering::Release);
    }

    /// Whether anybody was told of it.
    pub(super) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// Whether it should stop.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Has it stop because the daemon ends.
    pub(super) fn request_interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.request_cancel();
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
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

    /// Whether nothing more happens to it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.lock().standing.state.is_terminal()
    }

    /// Bytes of memory that it takes while it is not on the disk.
    pub(super) fn held_bytes(&self) -> u64 {
        const ITSELF: u64 = 1024;
        self.lock().result.as_ref().map_or(0, |result| result.len() as u64) + ITSELF
    }

    pub(super) fn tell_ended(&self) {
        self.ended.send_replace(true);
    }

    /// Replays what is kept after `since`, then follows.
    pub(super) fn watch(&self, watcher: &Arc<dyn Watcher>, since: u64) {
        let mut inner = self.lock();
        for event in inner.events.iter().filter(|event| event.seq > since) {
            watcher.event(&Told::new(event));
        }
        let watcher = Arc::downgrade(watcher);
        inner.watchers.retain(|other| other.strong_count() > 0);
        if !inner.standing.state.is_terminal()
            && !inner.watchers.iter().any(|other| Weak::ptr_eq(other, &watcher))
        {
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
        let told = Told::new(&event);
        let global = everyone.iter();
        let own = inner.watchers.iter().filter(|own| !everyone.iter().any(|each| Weak::ptr_eq(each, own)));
        for watcher in global.chain(own).filter_map(Weak::upgrade) {
            watcher.event(&told);
        }
        if event.kind.is_last() {
            inner.watchers.clear();
        }
        inner.keep(event);
    }

    pub(super) fn view(&self, position: Option<u32>) -> JobView {
        let inner = self.lock();
        let standing = &inner.standing;
        JobView {
            job: self.id.clone(),
            state: standing.state,
            method: self.request.method.to_string(),
            created_at: self.created_at,
            started_at: standing.started_at,
            finished_at: standing.finished_at,
            step: standing.step,
            steps: standing.steps,
            eta_s: inner.eta_s,
            error: standing.error.as_ref().map(Error::to_wire),
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
