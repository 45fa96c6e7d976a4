//! Asks the folders of the settings what is in them, each on a thread of its own: one that does not answer, such as a share
//! whose server is gone, holds up nobody. Nothing can end what is asked of it, so it is asked again only once it answered.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::places::Root;
use super::walk::Progress;
use crate::workers::Workers;

/// A folder of which nothing was heard for so long does not answer. A disk that slept needs some seconds.
const SILENT: Duration = Duration::from_secs(5);

/// Those who ask.
pub(super) struct Askers {
    workers: Workers,
    silent_after: Duration,
    /// Folders that did not answer, and whether they did meanwhile.
    silent: Mutex<HashMap<PathBuf, Arc<AtomicBool>>>,
}

/// Sets its flag at its end, whatever that is.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Askers {
    pub(super) fn new() -> Self {
        Self::silent_after(SILENT)
    }

    /// As [`Self::new`], with another time that a folder may be silent for.
    pub(super) fn silent_after(silent_after: Duration) -> Self {
        Self { workers: Workers::growing("folders", 1), silent_after, silent: Mutex::default() }
    }

    /// What `look` finds in the folder; `None` if that does not answer, or has not since it was asked before. Whatever
    /// `look` hears of it it notes.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        root: &Root,
        look: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Option<T> {
        if self.is_silent(&root.path) {
            return None;
        }
        let (sender, answer) = mpsc::channel();
        let (progress, ended) = (Arc::new(Progress::default()), Arc::new(AtomicBool::new(false)));
        let (steps, end) = (Arc::clone(&progress), Ended(Arc::clone(&ended)));
        self.workers.run(move || {
            let _end = end;
            // Nobody may wait for it any more.
            sender.send(look(&steps)).ok();
        });
        loop {
            let before = progress.get();
            match answer.recv_timeout(self.silent_after) {
                Ok(found) => return Some(found),
                Err(RecvTimeoutError::Timeout) if progress.get() != before => (),
                Err(_) => break,
            }
        }
        self.lock().insert(root.path.clone(), ended);
        None
    }

    /// Whether one that did not answer has answered meanwhile.
    pub(super) fn have_answers(&self) -> bool {
        self.lock().values().any(|ended| ended.load(Ordering::Acquire))
    }

    fn is_silent(&self, folder: &Path) -> bool {
        let mut silent = self.lock();
        silent.retain(|_, ended| !ended.load(Ordering::Acquire));
        silent.contains_key(folder)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<AtomicBool>>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_asked_again_once_it_has_and_others_are_not_held_up() {
        let askers = Askers::silent_after(Duration::from_millis(500));
        let (dead, alive) = (Root::of_models("/dead".into()), Root::of_models("/alive".into()));
        let (release, released) = mpsc::channel::<()>();
        let hang = move |_: &Progress| released.recv().ok();
        assert_eq!(askers.ask(&dead, hang), None);
        assert_eq!(askers.ask(&alive, |_| 7), Some(7));
        assert_eq!(askers.ask(&dead, |_| 7), None, "nothing more is begun there");
        assert!(!askers.have_answers());
        drop(release);
        while !askers.have_answers() {
            std::thread::yield_now();
        }
        assert_eq!(askers.ask(&dead, |_| 7), Some(7));
        // One that is slow and goes on is not silent; a panic is no answer, and no end.
        let (step, steps) = mpsc::channel::<()>();
        let slow = move |progress: &Progress| {
            while steps.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
                progress.step();
            }
            8
        };
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| askers.ask(&alive, slow));
            assert_eq!(askers.ask(&dead, |_| panic!("on purpose")), None::<u8>);
            while askers.ask(&dead, |_| 9) != Some(9) {}
            drop(step);
            assert_eq!(slow.join().expect("no panic"), Some(8));
        });
    }
}
