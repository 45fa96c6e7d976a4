//! The children of one plugin: started when they are needed, kept for the next job, set aside with it if they end too often.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rmpv::ValueRef;

use super::called::ENTRY;
use super::child::Child;
use super::coding::{Arena, Fields};
use super::mapping::Mappings;
use super::messages::{self, Message};
use super::process;
use super::segment::Side;
use crate::plugins::call::Job;
use crate::plugins::settings::Limits;

/// Children that wait for the next job: one may draw while another plans.
const MOST_WAITING: usize = 2;
/// After so long none waits any longer.
const WAITING: Duration = Duration::from_mins(5);
/// What loading a library may take.
const LOADING: Duration = Duration::from_secs(30);
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
    /// How often in a row one ended by itself, when last, and how.
    crashes: u32,
    crashed: Option<(Instant, String)>,
}

/// A child that is somebody's for a while.
pub(super) struct Lent {
    pub(super) child: Arc<Child>,
    pub(super) remote: Arc<Remote>,
    /// Whether it does what was asked for, not only what comes before.
    does_work: bool,
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
        Ok((remote, has))
    }

    /// What its next processes may, and functions from now on.
    pub(in crate::plugins) fn limit(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
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
            None => self.lend(job, true),
        }
    }

    /// A child that nobody else has.
    pub(super) fn lend(self: &Arc<Self>, job: &dyn Job, does_work: bool) -> Result<Arc<Lent>, String> {
        let child = if let Some(child) = self.waiting()? {
            child
        } else {
            self.wait_after_crash(job)?;
            Arc::new(self.start().map_err(|why| self.crashed(&why))?.0)
        };
        Ok(Arc::new(Lent { child, remote: Arc::clone(self), does_work }))
    }

    /// One that waits; none are kept for long.
    fn waiting(&self) -> Result<Option<Arc<Child>>, String> {
        let mut state = self.state();
        if state.crashes >= MOST_CRASHES {
            let (_, how) = state.crashed.clone().unwrap_or_else(|| (Instant::now(), String::new()));
            return Err(format!(
                "it is set aside, for its process ended {} times in a row, at last so: {how}; `latentd plugins enable {}` tries it again",
                state.crashes, self.name
            ));
        }
        state.waiting.retain(|(since, _)| since.elapsed() < WAITING);
        Ok(state.waiting.pop().map(|(_, child)| child))
    }

    /// After a crash the next start waits, longer each time.
    fn wait_after_crash(&self, job: &dyn Job) -> Result<(), String> {
        let until = {
            let state = self.state();
            let Some((when, _)) = &state.crashed else { return Ok(()) };
            let wait = Duration::from_millis(50) * 2u32.saturating_pow(state.crashes.saturating_sub(1));
            if state.crashes == 0 {
                return Ok(());
            }
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

    /// Counts that a child ended by itself.
    fn crashed(&self, why: &str) -> String {
        let mut state = self.state();
        if state.crashed.as_ref().is_some_and(|(when, _)| when.elapsed() > FORGOTTEN) {
            state.crashes = 0;
        }
        state.crashes += 1;
        state.crashed = Some((Instant::now(), why.to_owned()));
        why.to_owned()
    }

    /// Tries it again, however often it ended.
    pub(in crate::plugins) fn enable(&self) {
        let mut state = self.state();
        (state.crashes, state.crashed) = (0, None);
    }

    /// Why it is not used any more, if it is not.
    pub(in crate::plugins) fn set_aside(&self) -> Option<String> {
        let state = self.state();
        let (_, how) = state.crashed.as_ref().filter(|_| state.crashes >= MOST_CRASHES)?;
        Some(format!("its process ended {} times in a row: {how}", state.crashes))
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
        let was_there = self.child.ended().is_none();
        let within = self.remote.limits().deadline.unwrap_or(within);
        let answered = self.child.call(call, function, instance, write, within);
        RUNNING.with_borrow_mut(Vec::pop);
        if let Err(why) = &answered
            && was_there
            && self.child.ended().is_some()
        {
            self.remote.crashed(why);
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
        // It did what it was asked for.
        if self.does_work {
            state.crashes = 0;
        }
        if state.waiting.len() < MOST_WAITING {
            state.waiting.push((Instant::now(), Arc::clone(&self.child)));
        }
    }
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
