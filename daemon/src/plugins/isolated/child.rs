//! The host's end of a child: calls its functions, and serves what it asks meanwhile.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use latentd_plugin_api::abi::{
    LATENTD_CANCELLED, LATENTD_ERROR, LATENTD_FAILED, LATENTD_INFO, LATENTD_JOBS, LATENTD_MEMORY,
    LATENTD_MISUSE, LATENTD_OPS, LATENTD_TENSORS, latentd_call, latentd_jobs, latentd_op, latentd_ops,
    latentd_status, latentd_tensors, latentd_text,
};
use rmp::encode;
use rmpv::ValueRef;

use super::asking::HOST;
use super::asks;
use super::coding::{Arena, Fields, Wrong, key};
use super::frames::{Came, Frames};
use super::mapping::Mappings;
use super::messages::{self, Message};
use crate::error::Class;
use crate::memory::Lease;
use crate::plugins::host::{self, call_of, on_one_line, service_of, text};
use crate::sandbox::Process;

/// How often it is looked whether the job was cancelled, or a deadline passed.
const TICK: Duration = Duration::from_millis(20);
/// What a child has to notice that its job was cancelled.
const GRACE: Duration = Duration::from_secs(2);
/// What a process takes at most from its last word to its end.
const ENDING: Duration = Duration::from_millis(200);
/// What a child has to read what it is told: it waits for that.
const READING: Duration = Duration::from_secs(5);
/// After so long a function may have taken memory that is worth to be looked at.
const LONG: Duration = Duration::from_millis(2);
/// Steps in which a child's memory is counted.
const COUNTED: u64 = 1 << 20;
/// Characters of what is told of its end.
const LONGEST: usize = 2048;
/// Lines that are told of one that ended.
const LAST_LINES: usize = 5;
/// Lines of a child that are logged within a second.
const LINES_A_SECOND: usize = 100;
/// Calls within calls.
const DEEPEST: usize = 64;

/// A child.
pub(super) struct Child {
    frames: Frames,
    errors: File,
    /// Whether more may come there.
    has_errors: AtomicBool,
    state: Mutex<State>,
}

struct State {
    process: Process,
    /// What of a line came so far.
    line: Vec<u8>,
    /// What it wrote last.
    lines: VecDeque<String>,
    /// When lines were counted from, and how many came since.
    logged: (Instant, usize),
    /// Calls that go on, one within the other.
    calls: Vec<Outer>,
    mappings: Mappings,
    /// What of its memory is counted, and what counts it.
    counted: (u64, Vec<Lease>),
    /// Why it is no more.
    ended: Option<String>,
    /// Whether that is the plugin's fault, and was not counted yet.
    is_blamed: bool,
}

#[derive(Clone, Copy)]
struct Outer(*mut latentd_call);

// SAFETY: a call is used on its own thread, which waits here meanwhile.
unsafe impl Send for Outer {}

/// What a function answered: its status, and the message with its results.
pub(super) struct Answered {
    pub(super) status: latentd_status,
    pub(super) frame: Vec<u8>,
    /// What was wrong before it was called.
    pub(super) error: Option<String>,
}

impl Child {
    pub(super) fn new(process: Process, mappings: Mappings) -> io::Result<Self> {
        let frames = Frames::new(process.socket.try_clone()?);
        let errors = File::from(process.stderr.try_clone()?);
        let state = State {
            process,
            line: vec![],
            lines: VecDeque::new(),
            logged: (Instant::now(), 0),
            calls: vec![],
            mappings,
            counted: (0, vec![]),
            ended: None,
            is_blamed: false,
        };
        Ok(Self { frames, errors, has_errors: AtomicBool::new(true), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is no more.
    pub(super) fn ended(&self) -> Option<String> {
        self.state().ended.clone()
    }

    /// Whether it ended by the plugin's fault; once.
    pub(super) fn take_blame(&self) -> bool {
        std::mem::take(&mut self.state().is_blamed)
    }

    /// Whether it may wait for another job, or goes on to wait.
    pub(super) fn may_wait(&self) -> bool {
        let state = self.state();
        let is_small = state.mappings.is_small() && !state.mappings.written.is_grown();
        state.ended.is_none() && is_small && state.process.ended().is_none()
    }

    /// Calls a function of the plugin, which may take so long by itself; else why the child is no more.
    pub(super) fn call(
        &self,
        call: *mut latentd_call,
        (table, function): (&str, &str),
        instance: u64,
        write: impl FnOnce(&mut Vec<u8>),
        within: Duration,
    ) -> Result<Answered, String> {
        let level = {
            let mut state = self.state();
            if let Some(why) = &state.ended {
                return Err(why.clone());
            }
            if state.calls.len() >= DEEPEST {
                return Err(format!("more than {DEEPEST} of its functions run one within the other"));
            }
            if state.calls.is_empty() {
                state.mappings.read.cancel(is_cancelled(call));
            }
            state.calls.push(Outer(call));
            state.calls.len() - 1
        };
        let mut message = messages::call(level, table, function, instance);
        write(&mut message);
        let answered = match self.frames.send(message, Some(READING)) {
            Ok(()) => self.wait(call, within),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(error.to_string()),
            Err(error) => Err(self.unsent(call, &error)),
        };
        let mut state = self.state();
        // What it wrote and did not unmap counts, too.
        state.mappings.end_level(level);
        state.calls.truncate(level);
        answered
    }

    /// Waits for the answer, and serves meanwhile.
    fn wait(&self, call: *mut latentd_call, within: Duration) -> Result<Answered, String> {
        // What it took by itself; while the host works for it, its clock stands still.
        let (begun, mut served) = (Instant::now(), Duration::ZERO);
        let mut cancelled = None;
        loop {
            let errors = self.has_errors.load(Ordering::Relaxed).then(|| self.errors.as_fd());
            let came = self.frames.receive(Some(TICK), errors);
            let took = begun.elapsed().saturating_sub(served);
            let frame = match came {
                Ok(Came::Frame(frame)) => frame,
                Ok(Came::Nothing) => {
                    self.hear(call);
                    if let Some(why) = self.overdue(call, took, within, &mut cancelled) {
                        return Err(why);
                    }
                    if let Err(why) = self.count(call) {
                        return Err(self.end(call, &why, false));
                    }
                    continue;
                }
                Ok(Came::End) => return Err(self.died(call)),
                Err(error) => return Err(self.end(call, &format!("it sent {error}"), true)),
            };
            let handled = match messages::read(&frame) {
                Ok(Message::Answer { status, error, .. }) => {
                    let error = error.map(str::to_owned);
                    self.hear(call);
                    if took > LONG
                        && let Err(why) = self.count(call)
                    {
                        return Err(self.end(call, &why, false));
                    }
                    return Ok(Answered { status, frame, error });
                }
                Ok(Message::Ask { level, table, function, args }) => {
                    let since = Instant::now();
                    let asked = self.asked(level, (table, function), &args);
                    served += since.elapsed();
                    asked
                }
                Ok(Message::Note { level, table, function, args }) => {
                    self.told(level, (table, function), &args)
                }
                Ok(Message::Call { .. }) => Err("a call, which are the host's".to_owned()),
                Err(wrong) => Err(wrong),
            };
            if let Err(wrong) = handled {
                if let Some(why) = self.ended() {
                    return Err(why);
                }
                return Err(self.end(call, &format!("it sent {wrong}"), true));
            }
            if let Some(why) = self.overdue(call, took, within, &mut cancelled) {
                return Err(why);
            }
        }
    }

    /// Ends a child that takes too long, does not notice that its job was cancelled, or takes memory that it was not given.
    fn overdue(
        &self,
        call: *mut latentd_call,
        took: Duration,
        within: Duration,
        cancelled: &mut Option<Instant>,
    ) -> Option<String> {
        if is_cancelled(call) {
            self.state().mappings.read.cancel(true);
            if cancelled.get_or_insert_with(Instant::now).elapsed() > GRACE {
                let why = "it did not notice for two seconds that its job was cancelled";
                return Some(self.end(call, why, false));
            }
        }
        if took > within {
            let text = format!("it took longer than {} s by itself", within.as_secs_f64());
            return Some(self.end(call, &text, true));
        }
        let is_grown = self.state().mappings.written.is_grown();
        is_grown.then(|| self.end(call, "it took shared memory that it was not given", true))
    }

    /// Counts the memory that it has by now beyond what was counted; an error if there is no room for it.
    fn count(&self, call: *mut latentd_call) -> Result<(), String> {
        // SAFETY: it is null or goes on.
        let Some(call) = (unsafe { call_of(call) }) else { return Ok(()) };
        let mut state = self.state();
        let has = memory_of(state.process.id());
        let more = has.saturating_sub(state.counted.0);
        // By and by, not with every page.
        if more < COUNTED {
            return Ok(());
        }
        match call.job.reserve(more, call.plugin) {
            Ok(lease) => {
                state.counted.0 = has;
                state.counted.1.push(lease);
                Ok(())
            }
            Err(error) if error.class == Class::Memory => Err(format!(
                "it has {has} bytes of memory by now, for which there is no room: {}",
                error.text
            )),
            // Where nothing is counted.
            Err(_) => Ok(()),
        }
    }

    /// Its job is done: what it has is counted anew by the next.
    pub(super) fn uncount(&self) {
        self.state().counted = (0, vec![]);
    }

    /// The call of a level, if it goes on.
    fn of_level(&self, level: usize) -> Result<*mut latentd_call, Wrong> {
        let state = self.state();
        state
            .calls
            .get(level)
            .map(|outer| outer.0)
            .ok_or_else(|| format!("level {level}, where no call goes on"))
    }

    /// Serves a question, and answers it.
    fn asked(&self, level: usize, (table, function): (&str, &str), args: &ValueRef<'_>) -> Result<(), Wrong> {
        let call = self.of_level(level)?;
        // What an outer call has would end before this does.
        if level + 1 != self.state().calls.len() {
            let text = "a service is asked within the innermost call alone";
            let answer = messages::answer(LATENTD_MISUSE, &[], Some(text));
            return self.sent(call, answer);
        }
        // SAFETY: the call goes on.
        let of = unsafe { call_of(call) };
        let lent = of.map_or(0, |call| call.with(|state| state.lent.len()));
        let served = self.serve(call, level, (table, function), args)?;
        // Its end may be why a service of an outer call fails.
        if let Some(why) = self.ended() {
            return Err(why);
        }
        let (status, results) = served;
        let error = (status != 0).then(|| last_error(call));
        let answer = messages::answer(status, &results, error.as_deref());
        // It is in the answer; the call need not keep it.
        if let Some(call) = of {
            call.with(|state| state.lent.truncate(lent));
        }
        match self.frames.send(answer, Some(READING)) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.sent(call, messages::answer(LATENTD_MEMORY, &[], Some(&error.to_string())))
            }
            Err(error) => Err(self.unsent(call, &error)),
            Ok(()) => Ok(()),
        }
    }

    fn sent(&self, call: *mut latentd_call, answer: Vec<u8>) -> Result<(), Wrong> {
        self.frames.send(answer, Some(READING)).map_err(|error| self.unsent(call, &error))
    }

    /// What it is told cannot be sent: it reads nothing, or is no more.
    fn unsent(&self, call: *mut latentd_call, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::TimedOut => self.end(call, "it does not read what it is told", true),
            _ => self.died(call),
        }
    }

    fn serve(
        &self,
        call: *mut latentd_call,
        level: usize,
        (table, function): (&str, &str),
        args: &ValueRef<'_>,
    ) -> Result<(latentd_status, Vec<u8>), Wrong> {
        let fields = Fields::of(args)?;
        let arena = Arena::default();
        let tensors = service_of::<latentd_tensors>(LATENTD_TENSORS).ok_or("there are no tensors")?;
        match (table, function) {
            (LATENTD_TENSORS, "map") => self.state().mappings.map(call, level, &fields),
            (LATENTD_TENSORS, "unmap") => {
                let handle = fields.read("handle", &arena)?;
                Ok((self.state().mappings.unmap(call, handle), vec![]))
            }
            (LATENTD_TENSORS, "release") => {
                let handle = fields.read("handle", &arena)?;
                // SAFETY: the call goes on.
                let status =
                    tensors.release.map_or(LATENTD_MISUSE, |release| unsafe { release(call, handle) });
                Ok((status, vec![]))
            }
            (LATENTD_TENSORS, "digest") => {
                let (handle, is_null) =
                    (fields.read("handle", &arena)?, fields.read::<u32>("is_null", &arena)?);
                let mut hash = [0u8; 32];
                let place = if is_null != 0 { std::ptr::null_mut() } else { hash.as_mut_ptr() };
                // SAFETY: the call goes on, and there are 32 bytes.
                let status =
                    tensors.digest.map_or(LATENTD_MISUSE, |digest| unsafe { digest(call, handle, place) });
                let mut out = vec![];
                encode::write_map_len(&mut out, 1).ok();
                key(&mut out, "sha256");
                encode::write_bin(&mut out, &hash).ok();
                Ok((status, out))
            }
            (LATENTD_OPS, "run") => ops_run(call, &fields, &arena),
            // SAFETY: the call goes on.
            _ => match unsafe { asks::serve((table, function), call, args) }? {
                Some(served) => Ok(served),
                None => Err(format!("a question that nobody answers: {table}.{function}")),
            },
        }
    }

    /// Takes what is told.
    fn told(&self, level: usize, (table, function): (&str, &str), args: &ValueRef<'_>) -> Result<(), Wrong> {
        let (fields, arena) = (Fields::of(args)?, Arena::default());
        let call = self.of_level(level)?;
        match (table, function) {
            (HOST, "log") => {
                let line: latentd_text = fields.read("line", &arena)?;
                // SAFETY: it is of this message.
                let line = unsafe { host::read_text(line) };
                self.log(call, fields.read("level", &arena)?, &line);
            }
            (HOST, "fail") => {
                if let Some(fail) = host::TABLE.fail {
                    // SAFETY: the call goes on; the text is of this message.
                    unsafe { fail(call, fields.read("status", &arena)?, fields.read("text", &arena)?) };
                }
            }
            (LATENTD_JOBS, "progress") => {
                let progress = service_of::<latentd_jobs>(LATENTD_JOBS).and_then(|jobs| jobs.progress);
                if let Some(progress) = progress {
                    // SAFETY: as above.
                    unsafe { progress(call, fields.read("done", &arena)?, fields.read("what", &arena)?) };
                }
            }
            _ => return Err(format!("what nobody takes: {table}.{function}")),
        }
        Ok(())
    }

    /// Logs a line, unless there are too many.
    fn log(&self, call: *mut latentd_call, level: u32, line: &str) {
        let count = {
            let mut state = self.state();
            if state.lines.len() == LAST_LINES {
                state.lines.pop_front();
            }
            state.lines.push_back(line.to_owned());
            if state.logged.0.elapsed() >= Duration::from_secs(1) {
                state.logged = (Instant::now(), 0);
            }
            state.logged.1 += 1;
            state.logged.1
        };
        let tell = |level, line: &str| {
            if let Some(log) = host::TABLE.log {
                // SAFETY: the call goes on, or is null; the text is lent.
                unsafe { log(call, level, text(line)) };
            }
        };
        if count < LINES_A_SECOND {
            tell(level, line);
        } else if count == LINES_A_SECOND {
            tell(LATENTD_INFO, "it logs more than can be kept, which is left out");
        }
    }

    /// Takes what it wrote to its standard error.
    fn hear(&self, call: *mut latentd_call) {
        let mut lines = vec![];
        {
            let mut state = self.state();
            let mut chunk = [0; 4096];
            // A flood is looked at again later.
            for _ in 0..16 {
                let Ok(read) = (&self.errors).read(&mut chunk) else { break };
                let bytes = chunk.get(..read).unwrap_or_default();
                if bytes.is_empty() {
                    self.has_errors.store(false, Ordering::Relaxed);
                    break;
                }
                for byte in bytes {
                    if *byte == b'\n' || state.line.len() >= 4096 {
                        let line = std::mem::take(&mut state.line);
                        lines.push(String::from_utf8_lossy(&line).into_owned());
                    } else {
                        state.line.push(*byte);
                    }
                }
            }
        }
        // More are not told, and would only take time.
        let first = lines.len().saturating_sub(LINES_A_SECOND);
        for line in lines.into_iter().skip(first).filter(|line| !line.trim().is_empty()) {
            self.log(call, LATENTD_ERROR, &line);
        }
    }

    /// Ends it, because of that; whether the plugin is to blame.
    fn end(&self, call: *mut latentd_call, why: &str, is_to_blame: bool) -> String {
        self.state().process.kill();
        self.gone(call, Some(why), is_to_blame)
    }

    /// It ended by itself; or it closed the socket, and is ended now.
    fn died(&self, call: *mut latentd_call) -> String {
        let begun = Instant::now();
        while self.state().process.ended().is_none() {
            if begun.elapsed() > ENDING {
                return self.end(call, "it closed its socket", true);
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.gone(call, None, true)
    }

    fn gone(&self, call: *mut latentd_call, why: Option<&str>, is_to_blame: bool) -> String {
        let how = self.state().process.wait();
        self.hear(call);
        let mut state = self.state();
        if let Some(why) = &state.ended {
            return why.clone();
        }
        let rest = std::mem::take(&mut state.line);
        if !rest.is_empty() {
            state.lines.push_back(String::from_utf8_lossy(&rest).into_owned());
        }
        let mut told = match why {
            Some(why) => format!("{why}, and was ended"),
            None => format!("its process ended: {how}"),
        };
        if !state.lines.is_empty() {
            let lines: Vec<String> = state.lines.iter().cloned().collect();
            told = format!("{told}; it last wrote: {}", lines.join(" | "));
        }
        // Whoever reads it has a terminal.
        let told: String = on_one_line(&told).chars().take(LONGEST).collect();
        state.ended = Some(told.clone());
        state.is_blamed = is_to_blame;
        told
    }
}

/// Bytes of a process's own that are in memory.
fn memory_of(process: u32) -> u64 {
    let told = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let mut pages = told.split_whitespace().skip(1).map(|pages| pages.parse().unwrap_or(0u64));
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    // SAFETY: it asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    resident.saturating_sub(shared) * u64::try_from(page).unwrap_or(4096)
}

/// Whether the job of a call was cancelled.
fn is_cancelled(call: *mut latentd_call) -> bool {
    // SAFETY: it is null or goes on.
    unsafe { call_of(call) }.is_some_and(|call| call.job.is_cancelled())
}

/// Why the last service of a call failed.
fn last_error(call: *mut latentd_call) -> String {
    let Some(error) = host::TABLE.error else { return String::new() };
    // SAFETY: the call goes on, and lends the text.
    unsafe { host::read_text(error(call)) }
}

/// A program of operations, of which it is counted how many results it keeps.
fn ops_run(
    call: *mut latentd_call,
    fields: &Fields<'_, '_>,
    arena: &Arena,
) -> Result<(latentd_status, Vec<u8>), Wrong> {
    let run =
        service_of::<latentd_ops>(LATENTD_OPS).and_then(|ops| ops.run).ok_or("there are no operations")?;
    let ops = fields.list::<latentd_op>("ops", arena)?;
    // What is no list is for the service to look at.
    let count = if ops.items.is_null() { 0 } else { ops.count as usize };
    let kept = (0..count).filter(|index| {
        // SAFETY: so many were read.
        unsafe { (*ops.items.cast::<latentd_op>().add(*index)).keep != 0 }
    });
    let mut results = vec![0u64; kept.count().max(1)];
    let is_null = fields.read::<u32>("is_null", arena)? != 0;
    let place = if is_null { std::ptr::null_mut() } else { results.as_mut_ptr() };
    // SAFETY: the call goes on, and there is a place for each that is kept.
    let status = unsafe { run(call, ops, place) };
    let mut out = vec![];
    encode::write_map_len(&mut out, 1).ok();
    key(&mut out, "results");
    encode::write_array_len(&mut out, results.len() as u32).ok();
    for result in results {
        encode::write_uint(&mut out, result).ok();
    }
    Ok((status, out))
}

/// What a function answers whose child is no more.
pub(super) fn gone(call: *mut latentd_call, why: &str) -> latentd_status {
    if is_cancelled(call) {
        return LATENTD_CANCELLED;
    }
    match host::TABLE.fail {
        // SAFETY: the call goes on, or is null.
        Some(fail) => unsafe { fail(call, LATENTD_FAILED, text(why)) },
        None => LATENTD_FAILED,
    }
}
