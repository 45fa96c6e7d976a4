//! The children of one plugin: started when they are needed, kept for the next job, set aside with it if they end too often.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rmpv::ValueRef;

use super::child::Child;
use super::coding::{Arena, Fields};
use super::mapping::Mappings;
use super::messages::{self, Message};
use super::process;
use super::segment::Side;
use crate::plugins::call::Job;
use crate::plugins::settings::Limits;
use crate::plugins::tables::ENTRY;

/// Children that wait for the next job: one may draw while another plans.
const MOST_WAITING: usize = 2;
/// How often those that wait are looked after.
const LOOKED_AFTER: Duration = Duration::from_secs(10);
/// What the end of an instance may take.
pub(super) const ENDING: Duration = Duration::from_secs(5);
/// After so long none waits any longer.
const WAITING: Duration = Duration::from_mins(5);
/// What loading a library may take.
const LOADING: Duration = Duration::from_secs(10);
/// How often in a row children may end by themselves before the plugin is set aside.
const MOST_CRASHES: u32 = 5;
/// After so long a crash is forgotten.
const FORGOTTEN: Duration = Duration::from_mins(10);
/// The longest that the next start waits after a crash.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A plugin that runs in processes of its own.
pub(in crate::plugins) struct Remote {
    name: String,
    /// Its library, as nobody changes it.
    library: PathBuf,
    limits: Mutex<Limits>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<(Instant, Arc<Child>)>,
    /// How often in a row the plugin ended one, by the functions that it did so in.
    crashes: BTreeMap<String, u32>,
    /// When last, and how.
    crashed: Option<(Instant, String)>,
    /// How often what processes may was changed: those of before are not used any more.
    generation: u64,
}

impl State {
    fn most_crashes(&self) -> u32 {
        self.crashes.values().copied().max().unwrap_or_default()
    }
}

/// A child that is somebody's for a while.
pub(super) struct Lent {
    pub(super) child: Arc<Child>,
    pub(super) remote: Arc<Remote>,
    generation: u64,
}

thread_local! {
    /// Children whose functions run on this thread, one within the other: a job within a job is given its outer one's.
    static RUNNING: RefCell<Vec<Arc<Lent>>> = const { RefCell::new(vec![]) };
}

/// What a plugin has of the ABI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::plugins) struct Has {
    /// Ids of its tables.
    pub tables: Vec<String>,
    /// Functions of those tables that have more than one, as `ID.function`.
    pub functions: Vec<String>,
}

impl Remote {
    /// Starts a first child, which loads the library; what that has.
    pub(in crate::plugins) fn begin(
        name: &str,
        library: PathBuf,
        limits: Limits,
    ) -> Result<(Arc<Self>, Has), String> {
        let remote = Arc::new(Self {
            name: name.to_owned(),
            library,
            limits: Mutex::new(limits),
            state: Mutex::default(),
        });
        let (child, has) = remote.start()?;
        remote.state().waiting.push((Instant::now(), Arc::new(child)));
        look_after(&remote);
        Ok((remote, has))
    }

    /// What its next processes may, and functions from now on.
    pub(in crate::plugins) fn limit(&self, limits: Limits) {
        let before = std::mem::replace(
            &mut *self.limits.lock().unwrap_or_else(PoisonError::into_inner),
            limits.clone(),
        );
        if (Limits { deadline: None, ..before }) != (Limits { deadline: None, ..limits }) {
            let mut state = self.state();
            state.generation += 1;
            let ended = std::mem::take(&mut state.waiting);
            drop(state);
            drop(ended);
        }
    }

    fn limits(&self) -> Limits {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a child, and has it load the library.
    fn start(&self) -> Result<(Child, Has), String> {
        let failed =
            |what: &str, error: &dyn std::fmt::Display| format!("a process for it cannot be {what}: {error}");
        let mappings = Mappings::new().map_err(|error| failed("given memory", &error))?;
        let both = [(&mappings.read, Side::Read), (&mappings.written, Side::Written)];
        let inherited = both.into_iter().map(|(segment, side)| segment.inherited(side));
        let inherited =
            inherited.collect::<Result<_, _>>().map_err(|error| failed("given memory", &error))?;
        let process = process::start(&self.library, &self.limits(), inherited)
            .map_err(|error| failed("started", &error))?;
        let child = Child::new(process, mappings).map_err(|error| failed("spoken to", &error))?;
        let nobody = std::ptr::null_mut();
        let write = |out: &mut Vec<u8>| {
            rmp::encode::write_nil(out).ok();
        };
        let answered = child.call(nobody, (ENTRY, "init"), 0, write, LOADING)?;
        if answered.status != 0 {
            return Err(answered.error.unwrap_or_else(|| "it could not be loaded".to_owned()));
        }
        let has = match messages::read(&answered.frame)? {
            Message::Answer { results, .. } => has(&results)?,
            _ => Has::default(),
        };
        Ok((child, has))
    }

    /// A child for a while: on a thread where one of this plugin's waits, that one.
    pub(super) fn lend_within(self: &Arc<Self>, job: &dyn Job) -> Result<Arc<Lent>, String> {
        let running = RUNNING.with_borrow(|running| {
            running.iter().rev().find(|lent| Arc::ptr_eq(&lent.remote, self)).map(Arc::clone)
        });
        match running {
            Some(lent) => Ok(lent),
            None => self.lend(job),
        }
    }

    /// A child that nobody else has.
    pub(super) fn lend(self: &Arc<Self>, job: &dyn Job) -> Result<Arc<Lent>, String> {
        // Before: one of which it is not sure has the rights of before.
        let generation = self.state().generation;
        let child = if let Some(child) = self.waiting()? {
            child
        } else {
            self.wait_after_crash(job)?;
            Arc::new(self.start()?.0)
        };
        Ok(Arc::new(Lent { child, remote: Arc::clone(self), generation }))
    }

    /// One that waits; none are kept for long.
    fn waiting(&self) -> Result<Option<Arc<Child>>, String> {
        let mut state = self.state();
        let crashes = state.most_crashes();
        if crashes >= MOST_CRASHES {
            let (_, how) = state.crashed.clone().unwrap_or_else(|| (Instant::now(), String::new()));
            return Err(format!(
                "it is set aside, for its process ended {} times in a row, at last so: {how}; `latentd plugins enable {}` tries it again",
                crashes, self.name
            ));
        }
        let mut gone = vec![];
        let mut found = None;
        while let Some((since, child)) = state.waiting.pop() {
            if since.elapsed() < WAITING && child.may_wait() {
                found = Some(child);
                break;
            }
            gone.push(child);
        }
        drop(state);
        Ok(found)
    }

    /// Ends those that wait for long, or ended themselves.
    fn look_after(&self) {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        let (kept, gone): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(since, child)| since.elapsed() < WAITING && child.may_wait());
        state.waiting = kept;
        drop(state);
        drop(gone);
    }

    /// After a crash the next start waits, longer each time.
    fn wait_after_crash(&self, job: &dyn Job) -> Result<(), String> {
        let until = {
            let state = self.state();
            let Some((when, _)) = &state.crashed else { return Ok(()) };
            let crashes = state.most_crashes();
            if crashes == 0 {
                return Ok(());
            }
            let wait = Duration::from_millis(50) * 2u32.saturating_pow(crashes - 1);
            *when + wait.min(LONGEST_WAIT)
        };
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if job.is_cancelled() {
                return Err("cancelled".to_owned());
            }
            thread::sleep(left.min(Duration::from_millis(20)));
        }
        Ok(())
    }

    /// Counts that a function ended a child.
    fn crashed(&self, function: (&str, &str), why: &str) {
        let mut state = self.state();
        if state.crashed.as_ref().is_some_and(|(when, _)| when.elapsed() > FORGOTTEN) {
            state.crashes.clear();
        }
        *state.crashes.entry(format!("{}.{}", function.0, function.1)).or_default() += 1;
        state.crashed = Some((Instant::now(), why.to_owned()));
    }

    /// Tries it again, however often it ended.
    pub(in crate::plugins) fn enable(&self) {
        let mut state = self.state();
        state.crashes.clear();
        state.crashed = None;
    }

    /// Why it is not used any more, if it is not.
    pub(in crate::plugins) fn set_aside(&self) -> Option<String> {
        let state = self.state();
        let crashes = state.most_crashes();
        let (_, how) = state.crashed.as_ref().filter(|_| crashes >= MOST_CRASHES)?;
        Some(format!("its process ended {crashes} times in a row: {how}"))
    }
}

impl Lent {
    /// Calls a function of the plugin. See [`Child::call`].
    pub(super) fn call(
        self: &Arc<Self>,
        call: *mut latentd_plugin_api::abi::latentd_call,
        function: (&str, &str),
        instance: u64,
        write: impl FnOnce(&mut Vec<u8>),
        within: Duration,
    ) -> Result<super::child::Answered, String> {
        RUNNING.with_borrow_mut(|running| running.push(Arc::clone(self)));
        let asked = self.remote.limits().deadline;
        // An instance's end is short in any case.
        let within = asked.map_or(within, |asked| if within == ENDING { within.min(asked) } else { asked });
        let answered = self.child.call(call, function, instance, write, within);
        RUNNING.with_borrow_mut(Vec::pop);
        match &answered {
            Err(why) if self.child.take_blame() => self.remote.crashed(function, why),
            Err(_) => (),
            // What it did just now it does not fail at each time.
            Ok(_) => {
                let mut state = self.remote.state();
                if !state.crashes.is_empty() {
                    state.crashes.remove(&format!("{}.{}", function.0, function.1));
                }
            }
        }
        answered
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.child.uncount();
        if !self.child.may_wait() {
            return;
        }
        let mut state = self.remote.state();
        if state.waiting.len() < MOST_WAITING && state.generation == self.generation {
            state.waiting.push((Instant::now(), Arc::clone(&self.child)));
        }
    }
}

/// Looks after children that wait, as long as the daemon runs.
fn look_after(remote: &Arc<Remote>) {
    static REMOTES: Mutex<Vec<Weak<Remote>>> = Mutex::new(vec![]);
    static LOOKING: Once = Once::new();
    REMOTES.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(remote));
    LOOKING.call_once(|| {
        thread::spawn(|| {
            loop {
                thread::sleep(LOOKED_AFTER);
                let mut remotes = REMOTES.lock().unwrap_or_else(PoisonError::into_inner);
                remotes.retain(|remote| remote.strong_count() > 0);
                let all: Vec<Arc<Remote>> = remotes.iter().filter_map(Weak::upgrade).collect();
                drop(remotes);
                for remote in all {
                    remote.look_after();
                }
            }
        });
    });
}

/// What a child says that the library has.
fn has(results: &ValueRef<'_>) -> Result<Has, String> {
    let (fields, arena) = (Fields::of(results)?, Arena::default());
    let texts = |name: &str| -> Result<Vec<String>, String> {
        let list = fields.list::<latentd_plugin_api::abi::latentd_text>(name, &arena)?;
        let texts = (0..if list.items.is_null() { 0 } else { list.count as usize }).map(|index| {
            // SAFETY: so many were read, and the message is there still.
            unsafe {
                crate::plugins::host::read_text(
                    *list.items.cast::<latentd_plugin_api::abi::latentd_text>().add(index),
                )
            }
        });
        Ok(texts.collect())
    };
    Ok(Has { tables: texts("tables")?, functions: texts("functions")? })
}
