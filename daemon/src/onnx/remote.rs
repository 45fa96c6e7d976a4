//! A graph, as the daemon has it: a confined process runs it, one that has the file and nothing else.
//!
//! What the file says of itself is read here, by [`header`](super::header). All else happens there: reading weights, planning,
//! running. That may crash, hang, or ask for all memory there is; it costs that run, and the next begins a new process.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::array::{Array, Failure, Numbers};
use super::header::{self, Header};
use super::messages::{self, Answer, Run};
use super::segment::Segment;
use crate::sandbox::{Confined, Ended, Process};

/// The subcommand that [`serve`](super::serve) stands behind.
pub(crate) const SUBCOMMAND: &str = "onnx-host";

/// Bytes that a process takes beside its graph.
const OWN_BYTES: u64 = 24 << 20;
/// Bytes of address space of a thread: its stack, of which little is used.
const THREAD_BYTES: u64 = 3 << 20;
/// How often is looked whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How much more room a run gets that had too little.
const MORE: u64 = 4;
/// Bytes of what a process wrote before its end that are looked at.
const LAST_WORDS: usize = 4096;

/// What running a graph may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Threads that compute.
    pub threads: usize,
    /// Time for reading the file, and for each run.
    pub time: Duration,
    /// Bytes for a run, beside the graph itself.
    pub bytes: u64,
}

/// The file of a graph.
pub(crate) struct GraphFile {
    pub file: Arc<File>,
    pub size: u64,
    /// Whether its bytes are still those that it had.
    pub is_same: Box<dyn Fn() -> bool + Send + Sync>,
}

/// A graph that is open.
pub(crate) struct Graph {
    pub header: Header,
    file: GraphFile,
    worker: Mutex<Option<Worker>>,
    /// Bytes that runs took beyond what was thought.
    more: AtomicU64,
}

/// Whether a run is still wanted.
type Cancelled<'a> = &'a dyn Fn() -> bool;

impl Graph {
    /// Bytes that a file takes in memory: itself while it is read, its numbers in 32 bits, and a process for it.
    pub(crate) fn bytes(file: u64) -> u64 {
        // Halves become twice as large.
        file.saturating_mul(4).saturating_add(OWN_BYTES)
    }

    /// Reads a file, of which these are the bytes.
    pub(crate) fn open(
        file: GraphFile,
        bytes: Vec<u8>,
        limits: Limits,
        cancelled: Cancelled<'_>,
    ) -> Result<Self, Failure> {
        let header = header::read(&bytes).map_err(Failure::File)?;
        drop(bytes);
        let worker = Worker::start(&file, limits, cancelled)?;
        Ok(Self { header, file, worker: Mutex::new(Some(worker)), more: AtomicU64::new(0) })
    }

    /// Bytes that those numbers take.
    pub(crate) fn kept_bytes(&self, name: &str) -> Result<usize, Failure> {
        // As many as the file has at most.
        let kept = self.header.find(name).map_err(Failure::Input)?;
        Ok(kept.count() as usize * size_of::<f32>())
    }

    /// Numbers that are kept in the file, by their name.
    pub(crate) fn kept(&self, name: &str) -> Result<Array, Failure> {
        let kept = self.header.find(name).map_err(Failure::Input)?;
        let part = |from: usize, until: usize| {
            let mut bytes = vec![0; until - from];
            let read = self.file.file.read_exact_at(&mut bytes, from as u64);
            read.map(|()| bytes).map_err(|error| error.to_string())
        };
        let numbers = kept.numbers(&part).map_err(Failure::File)?;
        self.file.check()?;
        let dims = kept.dims.iter().map(|size| usize::try_from(*size).unwrap_or(usize::MAX)).collect();
        Ok(Array { dims, numbers: Numbers::F32(numbers) })
    }

    /// Bytes that a run with these inputs is thought to take, and those that the next try may have if so many were too few:
    /// `None` if there are no more.
    pub(crate) fn room(
        &self,
        inputs: &[(String, Array)],
        limits: Limits,
        too_few: Option<u64>,
    ) -> Option<u64> {
        let sizes = inputs.iter().map(|(_, array)| array.dims.as_slice());
        let twice = messages::bytes(inputs.iter().map(|(_, array)| array)).saturating_mul(2);
        let thought = self.header.estimate(sizes).saturating_add(twice).saturating_add(OWN_BYTES);
        match too_few {
            None => Some(thought.saturating_add(self.more.load(Ordering::Relaxed)).min(limits.bytes)),
            Some(few) if few >= limits.bytes => None,
            Some(few) => {
                let room = few.saturating_mul(MORE).min(limits.bytes);
                self.more.fetch_max(room.saturating_sub(thought), Ordering::Relaxed);
                Some(room)
            }
        }
    }

    /// Runs the whole graph, which may take so many bytes; its outputs by their names, in its order, of no more than
    /// `most_bytes`.
    ///
    /// Fails with [`Failure::Memory`] if it needs more than `room`: another try may be made with more.
    pub(crate) fn run(
        &self,
        inputs: &[(String, Array)],
        most_bytes: u64,
        room: u64,
        limits: Limits,
        cancelled: Cancelled<'_>,
    ) -> Result<Vec<(String, Array)>, Failure> {
        let mut place = self.worker(cancelled)?;
        let mut worker = if let Some(worker) = place.take().filter(Worker::lives) {
            worker
        } else {
            self.file.check()?;
            Worker::start(&self.file, limits, cancelled)?
        };
        let outputs = worker.run(inputs, most_bytes, room, limits, cancelled)?;
        let names = outputs.iter().map(|(name, _)| name);
        if !names.eq(self.header.outputs.iter().map(|port| &port.name)) {
            return Err(Failure::Ended("its process gave other outputs than the graph has".to_owned()));
        }
        // One that failed is ended, whatever it says: what it has left is not known.
        *place = Some(worker);
        Ok(outputs)
    }

    /// Its process, once no other run needs it.
    fn worker(&self, cancelled: Cancelled<'_>) -> Result<MutexGuard<'_, Option<Worker>>, Failure> {
        loop {
            match self.worker.try_lock() {
                Ok(worker) => return Ok(worker),
                Err(TryLockError::Poisoned(worker)) => return Ok(worker.into_inner()),
                Err(TryLockError::WouldBlock) if cancelled() => return Err(Failure::Cancelled),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }
}

impl GraphFile {
    fn check(&self) -> Result<(), Failure> {
        if (self.is_same)() {
            return Ok(());
        }
        Err(Failure::File("its file was written to meanwhile; submit again once it is whole".to_owned()))
    }
}

/// A process that has read the graph.
struct Worker {
    process: Process,
    segment: Segment,
}

impl Worker {
    fn start(file: &GraphFile, limits: Limits, cancelled: Cancelled<'_>) -> Result<Self, Failure> {
        let cannot = |error: io::Error| Failure::Ended(format!("no process can be started for it: {error}"));
        let segment = Segment::new().map_err(cannot)?;
        let room = Graph::bytes(file.size);
        let threads = THREAD_BYTES.saturating_mul(limits.threads as u64);
        let confined = Confined {
            arguments: vec![SUBCOMMAND.into(), limits.threads.to_string().into(), room.to_string().into()],
            reads: vec![],
            runs: vec![],
            writes: vec![],
            network: false,
            memory: room.saturating_add(limits.bytes).saturating_add(threads),
            inherited: vec![
                file.file.as_fd().try_clone_to_owned().map_err(cannot)?,
                segment.descriptor().map_err(cannot)?,
            ],
            variables: vec![],
        };
        let process = confined.start().map_err(cannot)?;
        process.socket.set_read_timeout(Some(LOOK_EVERY)).map_err(cannot)?;
        let mut worker = Self { process, segment };
        match worker.hear(limits.time, room, cancelled) {
            Ok(_) => Ok(worker),
            // Nothing makes it smaller.
            Err(Failure::Memory(_)) => {
                Err(Failure::File(format!("reading it takes more than the {room} bytes that are allowed")))
            }
            Err(failure) => Err(failure),
        }
    }

    fn lives(&self) -> bool {
        self.process.ended().is_none()
    }

    fn run(
        &mut self,
        inputs: &[(String, Array)],
        most_bytes: u64,
        room: u64,
        limits: Limits,
        cancelled: Cancelled<'_>,
    ) -> Result<Vec<(String, Array)>, Failure> {
        let given = messages::bytes(inputs.iter().map(|(_, array)| array));
        if given > self.segment.bytes() {
            let text = format!("its inputs take {given} bytes, {} are possible", self.segment.bytes());
            return Err(Failure::TooLarge(text));
        }
        let ended = |error: io::Error| Failure::Ended(format!("its process cannot be told: {error}"));
        let (told, end) = messages::put(&self.segment, inputs).map_err(ended)?;
        let threads = THREAD_BYTES.saturating_mul(limits.threads as u64);
        let run = Run { inputs: told, most_bytes, room: room.saturating_add(threads) };
        // If it ended meanwhile, that is heard below.
        messages::say(&mut self.process.socket, &run).ok();
        let told = self.hear(limits.time, room, cancelled)?;
        let taken = messages::take(&self.segment, told, most_bytes);
        let (outputs, behind) = taken.map_err(|error| {
            Failure::Ended(format!("its process told of outputs that are not there: {error}"))
        })?;
        self.segment.let_go(end.max(behind));
        Ok(outputs)
    }

    /// Waits for an answer, which may take so much time.
    fn hear(
        &mut self,
        time: Duration,
        room: u64,
        cancelled: Cancelled<'_>,
    ) -> Result<Vec<messages::Told>, Failure> {
        let (begun, mut stopped) = (Instant::now(), None);
        let mut wait = || {
            if cancelled() {
                stopped = Some(Failure::Cancelled);
            } else if begun.elapsed() > time {
                let seconds = time.as_secs_f64();
                let text = format!("it took more than {seconds} s and was ended (onnx_time_s)");
                stopped = Some(Failure::Ended(text));
            } else {
                return Ok(());
            }
            Err(io::ErrorKind::TimedOut.into())
        };
        let heard = messages::hear::<Answer>(&mut self.process.socket, &mut wait);
        match (heard, stopped) {
            (_, Some(stopped)) => Err(stopped),
            (Ok(answer), None) => answer,
            (Err(error), None) => Err(self.end(&error, room)),
        }
    }

    /// Why it says nothing any more.
    fn end(&self, error: &io::Error, room: u64) -> Failure {
        if error.kind() != io::ErrorKind::UnexpectedEof && error.kind() != io::ErrorKind::ConnectionReset {
            return Failure::Ended(format!("its process does not say what it should: {error}"));
        }
        // It closes what it has as it ends.
        self.process.kill();
        let (ended, words) = (self.process.wait(), self.last_words());
        if ended == Ended::Signal(libc::SIGABRT) && words.contains("memory allocation of") {
            return Failure::Memory(format!("it needs more than {room} bytes"));
        }
        let words = words.lines().next_back().map_or_else(String::new, |line| format!(": {line}"));
        Failure::Ended(format!("its process ended by {ended}{words}"))
    }

    /// The end of what it wrote.
    fn last_words(&self) -> String {
        let mut words = vec![];
        if let Ok(copied) = self.process.stderr.try_clone() {
            // Reading does not wait: what was read until an error is there.
            io::Read::read_to_end(&mut File::from(copied), &mut words).ok();
        }
        let from = words.len().saturating_sub(LAST_WORDS);
        let text = String::from_utf8_lossy(words.get(from..).unwrap_or_default()).into_owned();
        text.trim().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }
}
