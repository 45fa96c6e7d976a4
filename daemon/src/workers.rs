//! Threads for what may wait for a disk: a few, of their own, so that nobody else waits with them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::error;

use crate::error::{Error, Result};
use crate::thread;

type Work = Box<dyn FnOnce() + Send>;

/// More than that are not started, whatever they wait for.
const MOST: usize = 64;
/// Where nothing was taken up for so long although something waits, there is one thread more.
const TAKEN_WITHIN: Duration = Duration::from_millis(100);

/// So many threads; what they cannot take up yet waits in its order.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: usize,
}

struct Shared {
    name: &'static str,
    /// Threads that stay.
    few: usize,
    state: Mutex<State>,
    changed: Condvar,
    /// For who starts more threads: something waits.
    waiting: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    /// How much was ever taken up.
    taken: u64,
    /// Threads that there are, and how many of them have nothing to do.
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Workers {
    /// Starts them all: later there might not be the memory for it, and a thread that begins without is the process's end.
    pub(crate) fn new(name: &'static str, threads: usize) -> Self {
        Self::start(name, threads, Shared::spawn)
    }

    /// As [`Self::new`], of threads that may get stuck: where nothing goes on, there are more of them, up to 64. Those
    /// that are not needed end.
    pub(crate) fn growing(name: &'static str, threads: usize) -> Self {
        let workers = Self::new(name, threads);
        let shared = Arc::clone(&workers.shared);
        if let Err(error) = thread::start(name, move || shared.grow(&Shared::spawn)) {
            error!(name, %error, "a thread cannot be started; stuck ones are not replaced");
        }
        workers
    }

    fn start(name: &'static str, few: usize, spawn: impl Fn(Arc<Shared>) -> std::io::Result<()>) -> Self {
        let (state, changed, waiting) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { name, few, state, changed, waiting });
        let threads = (0..few).take_while(|_| shared.add(&spawn)).count();
        Self { shared, threads }
    }

    /// Does `work` on one of the threads; here, if none could be started: late is better than never.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        if self.threads == 0 {
            return self.shared.contain(Box::new(work));
        }
        let mut state = self.shared.lock();
        state.queue.push_back(Box::new(work));
        self.shared.changed.notify_one();
        if state.idle < state.queue.len() {
            self.shared.waiting.notify_one();
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
        self.shared.waiting.notify_all();
    }
}

impl Shared {
    fn spawn(self: Arc<Self>) -> std::io::Result<()> {
        thread::start(self.name, move || self.work()).map(drop)
    }

    /// One thread more, if one can be started.
    fn add(self: &Arc<Self>, spawn: &impl Fn(Arc<Self>) -> std::io::Result<()>) -> bool {
        self.lock().threads += 1;
        let started = spawn(Arc::clone(self));
        if let Err(error) = &started {
            self.lock().threads -= 1;
            error!(name = self.name, %error, "a thread cannot be started");
        }
        started.is_ok()
    }

    /// Adds threads where those that there are take nothing up.
    fn grow(self: &Arc<Self>, spawn: &impl Fn(Arc<Self>) -> std::io::Result<()>) {
        let mut state = self.lock();
        while !state.closed {
            if state.queue.is_empty() || state.threads >= MOST {
                state = self.waiting.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let taken = state.taken;
            state = self.waiting_for(state, taken);
            if state.taken == taken && !state.queue.is_empty() && !state.closed {
                drop(state);
                self.add(spawn);
                state = self.lock();
            }
        }
    }

    /// Waits until the threads had their time, or something was taken up.
    fn waiting_for<'a>(&self, state: MutexGuard<'a, State>, taken: u64) -> MutexGuard<'a, State> {
        let is_idle = |state: &mut State| state.taken == taken && !state.closed;
        let waited = self.waiting.wait_timeout_while(state, TAKEN_WITHIN, is_idle);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

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
                state.taken += 1;
                return Some(work);
            }
            // Enough others wait for work.
            if state.closed || state.idle >= self.few {
                state.threads -= 1;
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
    fn threads_that_are_stuck_are_replaced_up_to_a_bound() {
        let workers = Workers::growing("test", 2);
        let (begun, begins) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        for _ in 0..5 {
            let (begun, released) = (begun.clone(), Arc::clone(&released));
            workers.run(move || {
                begun.send(std::thread::current().id()).expect("heard");
                released.lock().expect("not poisoned").recv().expect_err("released");
            });
        }
        let stuck: std::collections::HashSet<_> = begins.iter().take(5).collect();
        assert_eq!(stuck.len(), 5, "each has a thread, although none of them ends");
        assert!(workers.shared.lock().threads <= MOST);
        drop(release);
        // All are through once as many as stay have nothing to do, and the others have ended.
        while workers.shared.lock().threads > 2 || workers.shared.lock().idle < 2 {
            std::thread::yield_now();
        }
        drop(begun);
        assert_eq!(begins.iter().count(), 0);
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
