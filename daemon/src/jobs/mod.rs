//! The queue, what became of jobs, and their results. What a job does is its task's affair.
//!
//! A job lives in memory while it waits and runs, and a while after; its row and its result are on the disk and
//! outlive the daemon. What becomes of it is stored before anybody hears of it: result, row, event, those who wait, in
//! this order. Where the disk refuses, memory keeps what it can and writes it once there is room; the log says so.

mod abandon;
mod admission;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod id;
mod job;
mod results;
mod saving;
mod store;
mod wanted;
mod watcher;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use latentd_client::protocol::{
    Event, EventKind, ImageOut, JobListParams, JobState, JobView, LibraryEvent, Pass, PluginProgress,
    QueueStatus,
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock;
use crate::error::{Class, Error, Result};
use crate::live::Live;
use crate::state_dir::StateDir;
use crate::tasks::DeviceId;
pub(crate) use admission::Reserved;
use job::{Admission, Standing};
pub(crate) use job::{Answer, Job};
use results::{ReadError, Results};
pub(crate) use store::StoreError;
use store::{NewRow, Ready, Store, StoredJob};
pub(crate) use wanted::Wanted;
use wanted::WantedResults;
pub(crate) use watcher::{Told, Watcher};

/// Jobs in a list when nobody says how many.
const LIST_LIMIT: u32 = 100;

/// What jobs may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobLimits {
    /// Jobs that may wait.
    pub queue: usize,
    /// Bytes that the requests of waiting jobs may take.
    pub queue_bytes: u64,
    /// Ended jobs that are remembered.
    pub history: u32,
    /// Seconds a job and its result are kept.
    pub ttl_s: u64,
    /// Bytes of all kept results.
    pub total_bytes: u64,
    /// Bytes of results that the disk refused. While so many wait to be read, no more jobs are taken.
    pub memory_bytes: u64,
}

/// A job that nothing more happens to, if there ever was one of this id. Its result is kept for as long as this is held.
pub(crate) struct Ended {
    wanted: Wanted,
    job: Option<Arc<Job>>,
}

/// All jobs.
pub(crate) struct Jobs {
    limits: Live<JobLimits>,
    state: Mutex<State>,
    /// The queue changed; the engines wait on it.
    queued: Condvar,
    /// Never taken together with `state`.
    store: Mutex<Store>,
    /// Apart from the store, so that nobody who asks for a row waits for a large file.
    results: Results,
    wanted: WantedResults,
    /// Held while what the disk refused is written again.
    saving: Mutex<()>,
    unsaved: Mutex<Unsaved>,
    state_dir: Arc<StateDir>,
    everyone: Mutex<Vec<Weak<dyn Watcher>>>,
    /// Goes on with each change of what jobs leave on the disk.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    jobs: HashMap<String, Arc<Job>>,
    queue: VecDeque<Arc<Job>>,
    /// With the devices that do them.
    running: Vec<(DeviceId, Arc<Job>)>,
    /// Ended jobs that are still in `jobs`, the oldest first: a few, and those that are not on the disk.
    recent: VecDeque<Arc<Job>>,
    stopping: bool,
}

/// Bytes of ended jobs that are not on the disk.
#[derive(Clone, Copy, Default)]
struct Unsaved {
    bytes: u64,
    /// Those that stay until they are read: of jobs whose id was promised to be known.
    kept_bytes: u64,
}

impl Jobs {
    /// Opens the history; what a daemon before this one left unfinished is interrupted.
    pub(crate) fn open(state_dir: Arc<StateDir>, limits: JobLimits) -> Result<Self, StoreError> {
        let results = Results::open(state_dir.results());
        let store = Store::open(Arc::clone(&state_dir), results.clone())?;
        match store.interrupt_unfinished(&interrupted(), clock::now()) {
            Ok(0) => (),
            Ok(count) => warn!(count, "jobs of an earlier daemon were interrupted"),
            Err(error) => warn!(%error, "unfinished jobs could not be marked"),
        }
        let jobs = Self {
            limits: Live::new(limits),
            state: Mutex::default(),
            queued: Condvar::new(),
            store: Mutex::new(store),
            results,
            wanted: WantedResults::default(),
            saving: Mutex::default(),
            unsaved: Mutex::default(),
            state_dir,
            everyone: Mutex::default(),
            changes: watch::Sender::new(0),
        };
        jobs.purge();
        Ok(jobs)
    }

    /// The next job for a device, now running. Waits for one; `None` when the daemon stops. Jobs that are still being
    /// resolved are passed by.
    pub(crate) fn next(&self, device: DeviceId) -> Option<Arc<Job>> {
        let mut state = self.lock();
        let job = loop {
            if state.stopping {
                return None;
            }
            let ready = self.ready(&state, device);
            if let Some(job) = ready.and_then(|place| state.queue.remove(place)) {
                state.running.push((device, Arc::clone(&job)));
                break job;
            }
            state = self.queued.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        self.advance(&job, Some(EventKind::Started), |standing| {
            standing.state = JobState::Running;
            standing.started_at = Some(clock::now());
        });
        Some(job)
    }

    /// The place in the queue of the job whose turn it is.
    fn ready(&self, state: &State, device: DeviceId) -> Option<usize> {
        let has_room = !self.is_full();
        let may_run = |job: &Job| has_room || self.wanted.contains(&job.id);
        state.queue.iter().position(|job| job.is_ready(device) && may_run(job))
    }

    /// Where a running job stands: `step` of `steps`, which some samplers make more or fewer than were asked for. Of one
    /// that is being resolved, once somebody was told that there is such a job.
    pub(crate) fn progress(
        &self,
        job: &Job,
        pass: Option<Pass>,
        stage: &str,
        (step, steps): (u32, u32),
        eta_s: Option<f64>,
    ) {
        if !job.is_listed() {
            return;
        }
        self.tell(job, |inner| {
            (inner.standing.step, inner.standing.steps) = (step, steps);
            inner.eta_s = eta_s;
            inner.stage = Some((stage.to_owned(), pass));
            let stage = Some(stage.to_owned());
            Some(EventKind::Progress { stage, pass, step, steps, eta_s, plugin: None })
        });
    }

    /// A plugin goes on with what it does within the stage or step that was told of last.
    pub(crate) fn plugin_progress(&self, job: &Job, plugin: PluginProgress) {
        if !job.is_listed() {
            return;
        }
        self.tell(job, |inner| {
            let (stage, pass) = inner.stage.clone().unzip();
            let (step, steps, eta_s) = (inner.standing.step, inner.standing.steps, inner.eta_s);
            let (pass, plugin) = (pass.flatten(), Some(plugin));
            Some(EventKind::Progress { stage, pass, step, steps, eta_s, plugin })
        });
    }

    /// A plugin's picture of a running job.
    pub(crate) fn plugin_preview(&self, job: &Job, plugin: &str, image: ImageOut) {
        self.tell(job, |inner| {
            let pass = inner.stage.as_ref().and_then(|(_, pass)| *pass);
            let (step, plugin) = (inner.standing.step, Some(plugin.to_owned()));
            Some(EventKind::Preview { step, pass, plugin, image: Box::new(image) })
        });
    }

    /// A picture of a running job.
    pub(crate) fn preview(&self, job: &Job, pass: Pass, step: u32, image: ImageOut) {
        self.tell(job, |_| {
            Some(EventKind::Preview { step, pass: Some(pass), plugin: None, image: Box::new(image) })
        });
    }

    /// A running job ended, with its encoded result or an error.
    pub(crate) fn finish(&self, job: &Arc<Job>, outcome: Result<Vec<u8>>) {
        let outcome = match outcome {
            Err(error) if error.class == Class::Cancelled && job.is_interrupted() => Err(interrupted()),
            outcome => outcome,
        };
        self.end(job, outcome);
        self.lock().running.retain(|(_, other)| !Arc::ptr_eq(other, job));
    }

    /// The engine of this device failed at what it was doing.
    pub(crate) fn fail_running(&self, device: DeviceId) {
        let state = self.lock();
        let mine = state.running.iter().filter(|(other, _)| *other == device);
        let mine: Vec<_> = mine.map(|(_, job)| Arc::clone(job)).collect();
        drop(state);
        for job in mine {
            self.finish(&job, Err(Error::internal("the daemon failed at this job; please report it")));
        }
    }

    /// Stops a job: at once while it waits, within a step while it runs. One that has ended stays as it is.
    pub(crate) fn cancel(&self, id: &str) -> Result<JobView> {
        let job = self.lock().listed(id).cloned();
        if let Some(job) = job {
            job.request_cancel();
            self.end_waiting(&job, Error::new(Class::Cancelled, "the job was cancelled before its turn"));
        }
        self.get(id)
    }

    /// A job as it stands.
    pub(crate) fn get(&self, id: &str) -> Result<JobView> {
        let state = self.lock();
        if let Some(job) = state.listed(id) {
            return Ok(job.view(state.position(job)));
        }
        drop(state);
        self.stored(id).map(|stored| stored.view)
    }

    /// The newest jobs.
    pub(crate) fn list(&self, params: &JobListParams) -> Result<Vec<JobView>> {
        let limit = params.limit.unwrap_or(LIST_LIMIT);
        let look = || self.in_store("the list of jobs", |store| store.list(params.state, limit));
        // As in `look_for`.
        let stored = look().or_else(|_| look()).map_err(|error| unreadable(&error))?;
        let state = self.lock();
        let mut views: Vec<JobView> = stored
            .into_iter()
            .map(|stored| stored.view)
            .filter(|view| !state.jobs.contains_key(&view.job))
            .collect();
        let places: HashMap<&str, usize> =
            state.queue.iter().enumerate().map(|(place, job)| (job.id.as_str(), place)).collect();
        let position = |job: &Job| places.get(job.id.as_str()).map(|place| state.position_at(*place));
        let listed = state.jobs.values().filter(|job| job.is_listed());
        views.extend(listed.map(|job| job.view(position(job))));
        views.retain(|view| params.state.is_none_or(|wanted| view.state == wanted));
        views.sort_by(|a, b| b.created_at.total_cmp(&a.created_at));
        views.truncate(limit as usize);
        Ok(views)
    }

    /// The result of this job is kept from now on, for as long as what is given is held.
    pub(crate) fn want(&self, id: &str) -> Wanted {
        let wanted = self.wanted.want(id);
        if self.is_full() {
            // It is done though there is no room to keep it.
            let _state = self.lock();
            self.queued.notify_all();
        }
        wanted
    }

    /// Waits for a job's end.
    pub(crate) async fn wait(&self, wanted: Wanted) -> Ended {
        let job = self.lock().listed(wanted.id()).cloned();
        if let Some(job) = &job {
            job.wait_ended().await;
        }
        Ended { wanted, job }
    }

    /// Bytes that the result of a job that has ended takes, where that is known without looking at the disk.
    pub(crate) fn result_bytes(&self, ended: &Ended) -> u64 {
        let Some(job) = &ended.job else {
            // One of before: as large as any may be.
            return self.limits.get().memory_bytes;
        };
        let inner = job.lock();
        inner.result.as_ref().map_or(inner.standing.result_bytes.unwrap_or_default(), |_| 0)
    }

    /// The encoded result of a job that has ended. Reads a file.
    pub(crate) fn result(&self, ended: &Ended) -> Result<Arc<Vec<u8>>> {
        let id = ended.wanted.id();
        if let Some(job) = &ended.job {
            let mut inner = job.lock();
            if let Some(error) = &inner.standing.error {
                return Err(error.clone());
            }
            inner.read = true;
            if let Some(result) = &inner.result {
                return Ok(Arc::clone(result));
            }
            let bytes = inner.standing.result_bytes;
            drop(inner);
            return self.read_result(id, &job.request.method, bytes);
        }
        let stored = self.stored(id)?;
        match stored.error {
            Some(error) => Err(error),
            None => self.read_result(id, &stored.view.method, stored.result_bytes),
        }
    }

    /// Tells `watcher` what is kept of a job's events after `since`, and what comes.
    pub(crate) fn watch(&self, id: &str, watcher: &Arc<dyn Watcher>, since: u64) -> Result<JobView> {
        let state = self.lock();
        if let Some(job) = state.listed(id) {
            job.watch(watcher, since);
            return Ok(job.view(state.position(job)));
        }
        drop(state);
        let stored = self.stored(id)?;
        // Of a job from before only how it ended is known.
        let kind = match (stored.view.state, &stored.error) {
            (JobState::Finished, _) => EventKind::Finished,
            (JobState::Cancelled, _) => EventKind::Cancelled,
            (_, Some(error)) => EventKind::Failed { error: error.to_wire() },
            (_, None) => EventKind::Failed { error: interrupted().to_wire() },
        };
        if stored.last_seq > since {
            watcher.event(&Told::new(&Event { job: id.to_owned(), seq: stored.last_seq, kind }));
        }
        Ok(stored.view)
    }

    /// Tells `watcher` what happens to any job, and to the library, from now on.
    pub(crate) fn watch_all(&self, watcher: &Arc<dyn Watcher>) {
        let watcher = Arc::downgrade(watcher);
        let mut everyone = self.everyone();
        everyone.retain(|other| other.strong_count() > 0);
        if !everyone.iter().any(|other| Weak::ptr_eq(other, &watcher)) {
            everyone.push(watcher);
        }
    }

    /// Tells when what jobs leave on the disk may have changed: one has ended, or old ones were forgotten.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Hands a library event to those who watch everything.
    pub(crate) fn library_event(&self, event: &LibraryEvent) {
        let everyone = self.everyone().clone();
        for watcher in everyone.iter().filter_map(Weak::upgrade) {
            watcher.library_event(event);
        }
    }

    /// Takes no more jobs; those that wait are interrupted, the running one goes on.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        let waiting: Vec<_> = state.queue.iter().cloned().collect();
        drop(state);
        self.queued.notify_all();
        if !waiting.is_empty() {
            info!(count = waiting.len(), "waiting jobs are interrupted");
        }
        for job in waiting {
            if !self.refuse(&job, Err(stopping())) {
                self.give_up(&job, interrupted());
            }
        }
    }

    /// Has the jobs that run end soon, as interrupted.
    pub(crate) fn interrupt_running(&self) {
        for (_, job) in &self.lock().running {
            warn!(job = job.id, "the daemon waits no longer for it");
            job.request_interrupt();
        }
    }

    /// Whether the daemon stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Other limits from now on; jobs that wait go on waiting.
    pub(crate) fn set_limits(&self, limits: JobLimits) {
        self.limits.set(limits);
    }

    /// Whether nothing waits or runs.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.queue.is_empty() && state.running.is_empty()
    }

    /// The queue in numbers.
    pub(crate) fn queue_status(&self) -> QueueStatus {
        let state = self.lock();
        QueueStatus {
            queued: state.queue.len() as u32,
            running: state.running.first().map(|(_, job)| job.id.clone()),
            limit: self.limits.get().queue as u32,
        }
    }

    /// Ends a job that waits, or says that there is none if nobody was told of it yet.
    fn give_up(&self, job: &Arc<Job>, error: Error) {
        if !self.refuse(job, Err(error.clone())) {
            self.end_waiting(job, error);
        }
    }

    /// Ends a job, if it still waits and is nobody else's to end.
    fn end_waiting(&self, job: &Arc<Job>, error: Error) {
        // Once it is queued, or told to wait, as far as that has come.
        let _admission = job.admission();
        let waited = self.lock().leave_queue(job);
        if waited {
            self.end(job, Err(error));
        }
    }

    /// There is no such job, as far as nobody was told of it; gives whether that is so.
    fn refuse(&self, job: &Arc<Job>, outcome: Result<()>) -> bool {
        let mut admission = job.admission();
        if *admission == Admission::Listed {
            return false;
        }
        *admission = Admission::Refused;
        drop(admission);
        self.forget(job, outcome);
        true
    }

    /// What is refused never was a job.
    fn forget(&self, job: &Arc<Job>, outcome: Result<()>) {
        let mut state = self.lock();
        state.leave_queue(job);
        if state.jobs.get(&job.id).is_some_and(|other| Arc::ptr_eq(other, job)) {
            state.jobs.remove(&job.id);
        }
        drop(state);
        job.tell_submitted(outcome);
    }

    /// A job's last change: result to the disk, row, event, those who wait, in this order.
    fn end(&self, job: &Arc<Job>, outcome: Result<Vec<u8>>) {
        // What failed after that only has to be brought to its end.
        if !job.is_terminal() {
            self.settle(job, outcome);
        }
        job.drop_task();
        // Those who wait come last: what they look at next is settled.
        let mut state = self.lock();
        if !state.recent.iter().any(|other| Arc::ptr_eq(other, job)) {
            state.recent.push_back(Arc::clone(job));
        }
        drop(state);
        self.purge();
        job.tell_ended();
    }

    fn settle(&self, job: &Arc<Job>, outcome: Result<Vec<u8>>) {
        let (state, kind, error, result) = match outcome {
            Ok(bytes) => (JobState::Finished, EventKind::Finished, None, Some(bytes)),
            Err(error) if error.class == Class::Cancelled => {
                (JobState::Cancelled, EventKind::Cancelled, Some(error), None)
            }
            Err(error) => {
                let state = if error == interrupted() { JobState::Interrupted } else { JobState::Failed };
                (state, EventKind::Failed { error: error.to_wire() }, Some(error), None)
            }
        };
        let result_bytes = result.and_then(|bytes| self.keep_result(job, bytes));
        info!(job = job.id, %state, error = error.as_ref().map(tracing::field::display), "ended");
        job.lock().eta_s = None;
        self.advance(job, Some(kind), |standing| {
            standing.state = state;
            standing.finished_at = Some(clock::now());
            standing.error = error;
            standing.result_bytes = result_bytes;
        });
    }

    /// Stores how a job stands after `change`; then it stands so, and those who watch are told: what anybody hears of is
    /// there after a restart.
    fn advance(&self, job: &Job, kind: Option<EventKind>, change: impl FnOnce(&mut Standing)) {
        let inner = job.lock();
        let (mut standing, last_seq) = (inner.standing.clone(), inner.last_seq);
        drop(inner);
        change(&mut standing);
        let row = NewRow { job, standing: &standing, last_seq: last_seq + u64::from(kind.is_some()) };
        let stored = self.in_store("a job", |store| store.put(&row)).is_ok();
        self.tell(job, |inner| {
            inner.unsaved = !stored || inner.result.is_some();
            inner.standing = standing;
            kind
        });
    }

    fn tell(&self, job: &Job, change: impl FnOnce(&mut job::Inner) -> Option<EventKind>) {
        let everyone = self.everyone().clone();
        job.update(&everyone, change);
    }

    /// A job of before, as its row says.
    fn stored(&self, id: &str) -> Result<StoredJob> {
        let first = self.look_for(id);
        let second = if first.is_ok() { Ok(None) } else { self.look_for(id) };
        match (first, second) {
            (Ok(Some(found)), _) | (_, Ok(Some(found))) => Ok(found),
            (Ok(None), _) => Err(unknown(id)),
            // Of what was damaged it cannot be told whether there was such a job.
            (Err(error), _) => Err(unreadable(&error)),
        }
    }

    fn look_up(&self, id: &str) -> Result<Option<StoredJob>> {
        let found = self.look_for(id).or_else(|_| self.look_for(id));
        found.map_err(|error| unreadable(&error))
    }

    /// What is found to be damaged is put aside, and begun anew with the results, at the second look.
    fn look_for(&self, id: &str) -> Result<Option<StoredJob>, StoreError> {
        self.in_store("to look for a job", |store| store.get(id))
    }

    /// A result of as many bytes as its row says, if it says so.
    fn read_result(&self, id: &str, method: &str, bytes: Option<u64>) -> Result<Arc<Vec<u8>>> {
        let bytes = bytes.ok_or_else(|| expired(id))?;
        self.results.read(id, method, bytes).map(Arc::new).map_err(|error| {
            warn!(job = id, %error, "result cannot be read");
            match error {
                ReadError::Io(error) if error.kind() == io::ErrorKind::NotFound => expired(id),
                error => Error::internal(format!(
                    "the result of job '{id}' cannot be sent: {error}; submit the request again, with a new id"
                )),
            }
        })
    }

    /// Does `work` with the rows. Nobody who calls this holds the state.
    fn in_store<T>(
        &self,
        what: &str,
        work: impl FnOnce(&Store) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut store = self.store();
        let ready = store.ready();
        let begun_anew = matches!(ready, Ok(Ready::Anew));
        let done = ready.and_then(|_| work(&store).map_err(|error| store.refused(error)));
        match &done {
            Ok(_) => store.succeeded(),
            Err(error) if store.failed(error) => warn!(%error, "the job history refused {what}"),
            Err(_) => (),
        }
        // What is damaged again is begun anew again, and stored then.
        let begun_anew = begun_anew && store.is_open();
        drop(store);
        if begun_anew {
            self.store_all();
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn everyone(&self) -> MutexGuard<'_, Vec<Weak<dyn Watcher>>> {
        self.everyone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a job out of the queue; false if it is not there, and so somebody else's to end.
    fn leave_queue(&mut self, job: &Arc<Job>) -> bool {
        let place = self.queue.iter().position(|other| Arc::ptr_eq(other, job));
        place.and_then(|place| self.queue.remove(place)).is_some()
    }

    /// The job of this id, if anybody was told that there is one.
    fn listed(&self, id: &str) -> Option<&Arc<Job>> {
        self.jobs.get(id).filter(|job| job.is_listed())
    }

    /// Jobs before this one, while it waits.
    fn position(&self, job: &Arc<Job>) -> Option<u32> {
        let place = self.queue.iter().position(|other| Arc::ptr_eq(other, job));
        place.map(|place| self.position_at(place))
    }

    fn position_at(&self, place: usize) -> u32 {
        (place + self.running.len()) as u32
    }
}

fn unknown(id: &str) -> Error {
    let shown = crate::schema::shorten(id);
    Error::new(Class::NotFound, format!("job '{shown}' is not known; it may be too old, see jobs.list"))
}

fn unreadable(error: &StoreError) -> Error {
    error.refusal("the job history cannot be read")
}

fn expired(id: &str) -> Error {
    Error::new(
        Class::NotFound,
        format!("the result of job '{id}' is no longer kept; submit the request again, with a new id"),
    )
}

fn stopping() -> Error {
    Error::new(Class::Busy, "the daemon is stopping; start it again and retry")
}

/// What is said of a job that the daemon did not live to finish.
fn interrupted() -> Error {
    Error::new(
        Class::Internal,
        "the job was interrupted: the daemon ended before it did; submit the request again, with a new id",
    )
}
