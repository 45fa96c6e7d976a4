//! Log lines on their way to stderr, which may be a full disk, a pipe whose reader is gone, or one that nobody reads.
//!
//! They wait in a queue with an end and are written by a thread of their own: who logs never waits and never fails. What
//! finds no room, or cannot be written, is lost; the log says how many lines that were, once it can be written again.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::thread;

/// Bytes of lines that wait, with what keeping a line costs.
const WAITING_BYTES: usize = 1 << 20;
/// What a line costs beside its text.
const LINE_BYTES: usize = 64;

/// The queue. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct LogLines {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A line came, or all are written.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that were lost and not spoken of yet.
    lost: u64,
    /// One is being written.
    writing: bool,
}

impl LogLines {
    /// Writes lines to `out` from now on. `tell_lost` logs how many were lost.
    pub(super) fn start(
        &self,
        mut out: impl Write + Send + 'static,
        tell_lost: impl Fn(u64) + Send + 'static,
    ) -> io::Result<()> {
        let lines = self.clone();
        let write = move || {
            loop {
                let line = lines.next();
                let written = out.write_all(&line).and_then(|()| out.flush()).is_ok();
                if let Some(lost) = lines.written(written) {
                    tell_lost(lost);
                }
            }
        };
        thread::start("log", write).map(drop)
    }

    /// Waits until all is written, but no longer than this.
    pub(super) fn flush(&self, longest: Duration) {
        let state = self.lock();
        let busy = |state: &mut State| state.writing || !state.lines.is_empty();
        drop(self.shared.changed.wait_timeout_while(state, longest, busy));
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        let bytes = line.len() + LINE_BYTES;
        if state.bytes + bytes > WAITING_BYTES {
            state.lost += 1;
            return;
        }
        state.bytes += bytes;
        state.lines.push_back(line.to_vec());
        drop(state);
        self.shared.changed.notify_all();
    }

    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len() + LINE_BYTES;
                state.writing = true;
                return line;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives how many lines were lost, when that can be said.
    fn written(&self, well: bool) -> Option<u64> {
        let mut state = self.lock();
        state.writing = false;
        if !well {
            state.lost += 1;
        }
        // Not while others wait: there might be no room for it.
        let tells = well && state.lines.is_empty() && state.lost > 0;
        let lost = tells.then(|| std::mem::take(&mut state.lost));
        drop(state);
        self.shared.changed.notify_all();
        lost
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Each write is a line.
impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Says when it is written to, and then does as it is told.
    struct Outlet {
        came: mpsc::Sender<Vec<u8>>,
        may: mpsc::Receiver<io::Result<()>>,
    }

    impl Write for Outlet {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.came.send(line.to_vec()).ok();
            self.may.recv().unwrap_or(Ok(())).map(|()| line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_log_that_is_not_taken_and_what_was_lost_is_said() {
        let (lines, (came, comes), (lets, may)) = (LogLines::default(), mpsc::channel(), mpsc::channel());
        let told = lines.clone();
        let tell_lost = move |lost: u64| told.push(format!("{lost} lost").as_bytes());
        lines.start(Outlet { came, may }, tell_lost).expect("started");
        lines.push(b"first");
        assert_eq!(comes.recv().expect("written"), b"first");
        // It is stuck now.
        let room = WAITING_BYTES / (1000 + LINE_BYTES);
        for _ in 0..room + 5 {
            lines.push(&[b'x'; 1000]);
        }
        lets.send(Err(io::Error::from(io::ErrorKind::StorageFull))).expect("heard");
        for _ in 0..room {
            assert_eq!(comes.recv().expect("written").len(), 1000);
            lets.send(Ok(())).expect("heard");
        }
        assert_eq!(comes.recv().expect("written"), b"6 lost");
        lets.send(Ok(())).expect("heard");
        lines.flush(Duration::from_mins(1));
        assert!(lines.lock().lines.is_empty() && comes.try_recv().is_err());
    }
}
