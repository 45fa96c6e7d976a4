//! Which operations are under way, by folder.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An operation that has heard nothing for so long is waiting.
const WAITING: Duration = Duration::from_millis(300);
/// So many that wait, and a folder does not answer.
const ENOUGH: usize = 2;
/// What is begun in one folder at once: of many requests that come together no more are lost to one that is silent.
const AT_ONCE: usize = 4;

/// All that are under way.
#[derive(Default)]
pub(super) struct UnderWay {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    noted: Vec<Noted>,
}

struct Noted {
    number: u64,
    folder: PathBuf,
    heard: Instant,
}

impl State {
    /// How long each operation has been heard nothing of that says how `folder` is: those in it and in what it lies in.
    fn silences(&self, folder: &Path) -> impl Iterator<Item = Duration> {
        self.noted.iter().filter(|noted| folder.starts_with(&noted.folder)).map(|noted| noted.heard.elapsed())
    }

    fn is_silent(&self, folder: &Path, waiting: Duration) -> bool {
        self.silences(folder).filter(|silence| *silence >= waiting).count() >= ENOUGH
    }

    fn note(&mut self, all: &Arc<UnderWay>, folder: &Path) -> Operation {
        let number = self.next;
        self.next += 1;
        self.noted.push(Noted { number, folder: folder.to_owned(), heard: Instant::now() });
        Operation { all: Arc::clone(all), number }
    }
}

impl UnderWay {
    /// One more, in its turn; `None` where the folder does not answer.
    pub(super) fn begin(self: &Arc<Self>, folder: &Path) -> Option<Operation> {
        let mut state = self.lock();
        loop {
            if state.is_silent(folder, WAITING) {
                return None;
            }
            if state.silences(folder).count() < AT_ONCE {
                return Some(state.note(self, folder));
            }
            let waited = self.ended.wait_timeout(state, WAITING / 4);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One more, whatever else there is.
    pub(super) fn note(self: &Arc<Self>, folder: &Path) -> Operation {
        self.lock().note(self, folder)
    }

    /// Whether operations in that folder have been waiting for so long.
    pub(super) fn is_silent(&self, folder: &Path, waiting: Duration) -> bool {
        self.lock().is_silent(folder, waiting)
    }

    /// Two operations, which have been waiting for so long.
    #[cfg(test)]
    pub(super) fn wait_in(self: &Arc<Self>, folder: &Path, waiting: Duration) -> [Operation; ENOUGH] {
        let operations = std::array::from_fn(|_| self.note(folder));
        let mut state = self.lock();
        for noted in state.noted.iter_mut().filter(|noted| noted.folder == folder) {
            noted.heard -= waiting;
        }
        operations
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An operation, under way until this goes.
pub(crate) struct Operation {
    all: Arc<UnderWay>,
    number: u64,
}

impl Operation {
    /// The folder has answered: what is long is not silent.
    pub(crate) fn heard(&self) {
        let mut state = self.all.lock();
        if let Some(noted) = state.noted.iter_mut().find(|noted| noted.number == self.number) {
            noted.heard = Instant::now();
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.all.lock().noted.retain(|noted| noted.number != self.number);
        self.all.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_folder_for_which_others_wait_is_refused_until_it_answers() {
        let all = Arc::new(UnderWay::default());
        let (share, below) = (Path::new("/share"), Path::new("/share/below"));
        let young = [all.begin(share).expect("begun"), all.begin(share).expect("begun")];
        drop((all.begin(share).expect("they have only begun"), young));
        let blocked = all.wait_in(share, WAITING);
        assert!(all.begin(share).is_none() && all.begin(below).is_none());
        assert!(all.begin(Path::new("/")).is_some() && all.begin(Path::new("/shared")).is_some());
        let [one, other] = blocked;
        one.heard();
        assert!(all.begin(share).is_some(), "one is heard of");
        drop((one, other));
        assert!(all.begin(below).is_some() && all.lock().noted.is_empty());
    }

    #[test]
    fn of_many_at_once_few_are_begun() {
        let all = Arc::new(UnderWay::default());
        let share = Path::new("/share");
        let (begun, begins) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        thread::scope(|scope| {
            for _ in 0..20 {
                let begun = begun.clone();
                let (all, released) = (&all, &released);
                scope.spawn(move || {
                    let operation = all.begin(share);
                    begun.send(operation.is_some()).expect("heard");
                    if operation.is_some() {
                        released.lock().expect("not poisoned").recv().expect_err("released");
                    }
                });
            }
            // Who is begun is held here; the others are told, all of them.
            let outcomes: Vec<_> = begins.iter().take(20).collect();
            assert_eq!(outcomes.iter().filter(|begun| **begun).count(), AT_ONCE);
            drop(release);
        });
    }
}
