//! Threads for what may wait for a disk: a few, of their own, so that nobody else waits with them.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tracing::error;

use crate::error::{Error, Result};

type Work = Box<dyn FnOnce() + Send>;

/// At most so many threads, started when there is work for them; what they cannot take up yet waits in its order.
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Workers {
    pub(crate) fn new(name: &'static str, most: usize) -> Self {
        let shared = Shared { name, most, state: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Does `work` on one of the threads; here, if there is none and none can be started: late is better than never.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        self.run_or_start(work, |shared| {
            std::thread::Builder::new().name(shared.name.into()).spawn(move || shared.work()).map(drop)
        });
    }

    fn run_or_start(
        &self,
        work: impl FnOnce() + Send + 'static,
        start: impl FnOnce(Arc<Shared>) -> io::Result<()>,
    ) {
        let mut state = self.shared.lock();
        state.queue.push_back(Box::new(work));
        let starts = state.idle < state.queue.len() && state.threads < self.shared.most;
        if starts {
            state.threads += 1;
        }
        drop(state);
        self.shared.changed.notify_one();
        if !starts {
            return;
        }
        let Err(error) = start(Arc::clone(&self.shared)) else {
            return;
        };
        error!(name = self.shared.name, %error, "a thread cannot be started");
        let mut state = self.shared.lock();
        state.threads -= 1;
        // Others will come to it, where there are any.
        while state.threads == 0
            && let Some(work) = state.queue.pop_front()
        {
            drop(state);
            self.shared.contain(work);
            state = self.shared.lock();
        }
    }

    /// The same, and waits for what `work` gives.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.run(move || {
            // Who asked may have gone.
            drop(sender.send(work()));
        });
        let lost = |_| Error::internal("the daemon failed at this request; please report it");
        receiver.await.map_err(lost)?
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        while let Some(work) = self.next() {
            self.contain(work);
        }
    }

    fn contain(&self, work: Work) {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            error!(name = self.name, "a request panicked");
        }
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                return Some(work);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn work_is_done_by_a_few_threads_and_a_panic_ends_none() {
        let workers = Workers::new("test", 2);
        let (sender, receiver) = mpsc::channel();
        for index in 0..100 {
            let sender = sender.clone();
            workers.run(move || {
                sender.send(std::thread::current().id()).expect("heard");
                assert!(index % 10 != 0, "on purpose");
            });
        }
        drop(sender);
        let threads: Vec<_> = receiver.iter().collect();
        let distinct: std::collections::HashSet<_> = threads.iter().collect();
        assert!(threads.len() == 100 && distinct.len() <= 2, "{} by {}", threads.len(), distinct.len());
    }
    #[test]
    fn work_for_which_no_thread_can_be_started_is_done_all_the_same() {
        let workers = Workers::new("test", 2);
        let (sender, receiver) = mpsc::channel();
        let fails = |_| Err(io::Error::from(io::ErrorKind::OutOfMemory));
        for index in 0..3 {
            let sender = sender.clone();
            let work = move || {
                sender.send(index).expect("heard");
                assert!(index != 1, "on purpose");
            };
            workers.run_or_start(work, fails);
        }
        workers.run(move || sender.send(3).expect("heard"));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
