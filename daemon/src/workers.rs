//! Threads for what may wait for a disk: a few, of their own, so that nobody else waits with them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tracing::error;

use crate::error::{Error, Result};
use crate::thread;

type Work = Box<dyn FnOnce() + Send>;

/// So many threads; what they cannot take up yet waits in its order.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: usize,
}

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    closed: bool,
}

impl Workers {
    /// Starts them all: later there might not be the memory for it, and a thread that begins without is the process's end.
    pub(crate) fn new(name: &'static str, threads: usize) -> Self {
        Self::start(name, threads, |shared| thread::start(shared.name, move || shared.work()).map(drop))
    }

    fn start(name: &'static str, threads: usize, spawn: impl Fn(Arc<Shared>) -> std::io::Result<()>) -> Self {
        let shared = Arc::new(Shared { name, state: Mutex::default(), changed: Condvar::new() });
        let started = (0..threads).map_while(|_| {
            let started = spawn(Arc::clone(&shared));
            started.inspect_err(|error| error!(name, %error, "a thread cannot be started")).ok()
        });
        let threads = started.count();
        Self { shared, threads }
    }

    /// Does `work` on one of the threads; here, if none could be started: late is better than never.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        if self.threads == 0 {
            return self.shared.contain(Box::new(work));
        }
        self.shared.lock().queue.push_back(Box::new(work));
        self.shared.changed.notify_one();
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
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
        let workers =
            Workers::start("test", 2, |_| Err(std::io::Error::from(std::io::ErrorKind::OutOfMemory)));
        let (sender, receiver) = mpsc::channel();
        for index in 0..3 {
            let sender = sender.clone();
            workers.run(move || {
                sender.send(index).expect("heard");
                assert!(index != 1, "on purpose");
            });
        }
        drop(sender);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2]);
    }
}
