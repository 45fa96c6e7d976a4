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
        Self { workers: Workers::growing("folders", 1), silent: Mutex::default() }
    }

    /// What `look` finds in the folder; `None` if that does not answer, or has not since it was asked before. Whatever
    /// `look` hears of it it notes.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        root: &Root,
        look: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Option<T> {
        self.ask_within(SILENT, root, look)
    }

    /// As [`Self::ask`], with another time that the folder may be silent for.
    fn ask_within<T: Send + 'static>(
        &self,
        silent_after: Duration,
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
        let found = hear(&progress, || answer.recv_timeout(silent_after));
        let mut silent = self.lock();
        if found.is_some() {
            silent.remove(&root.path);
        } else {
            silent.insert(root.path.clone(), ended);
        }
        found
    }

    /// Whether one that did not answer has answered meanwhile, and was not asked again.
    pub(super) fn have_answers(&self) -> bool {
        self.lock().values().any(|ended| ended.load(Ordering::Acquire))
    }

    /// Whether it did not answer, and has not meanwhile.
    pub(super) fn is_silent(&self, folder: &Path) -> bool {
        self.lock().get(folder).is_some_and(|ended| !ended.load(Ordering::Acquire))
    }

    /// Makes a folder one that does not answer until what this gives is set.
    #[cfg(test)]
    pub(super) fn silence(&self, folder: &Path) -> Arc<AtomicBool> {
        let ended = Arc::new(AtomicBool::new(false));
        self.lock().insert(folder.to_owned(), Arc::clone(&ended));
        ended
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<AtomicBool>>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What comes of it: who is slow and goes on is waited for. `next` waits for it once.
fn hear<T>(progress: &Progress, mut next: impl FnMut() -> Result<T, RecvTimeoutError>) -> Option<T> {
    loop {
        let before = progress.get();
        match next() {
            Ok(found) => return Some(found),
            Err(RecvTimeoutError::Timeout) if progress.get() != before => (),
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_asked_again_once_it_has_and_others_are_not_held_up() {
        let askers = Askers::new();
        let (dead, alive) = (Root::of_models("/dead".into()), Root::of_models("/alive".into()));
        let (release, released) = mpsc::channel::<()>();
        let hang = move |_: &Progress| released.recv().ok();
        assert_eq!(askers.ask_within(Duration::ZERO, &dead, hang), None);
        assert_eq!(askers.ask(&alive, |_| 7), Some(7));
        assert_eq!(askers.ask(&dead, |_| 7), None, "nothing more is begun there");
        assert!(!askers.have_answers());
        drop(release);
        while !askers.have_answers() {
            std::thread::yield_now();
        }
        assert_eq!(askers.ask(&alive, |_| 7), Some(7));
        assert!(askers.have_answers(), "whoever else is asked");
        assert_eq!(askers.ask(&dead, |_| 7), Some(7));
        assert!(!askers.have_answers());
        // A panic is no answer, and no end.
        assert_eq!(askers.ask(&dead, |_| panic!("on purpose")), None::<u8>);
        while askers.ask(&dead, |_| 9) != Some(9) {}
    }

    #[test]
    fn who_is_slow_and_goes_on_is_not_silent() {
        use RecvTimeoutError::{Disconnected, Timeout};
        // Whether it went on before each look, and what that gave.
        type Look = (bool, Result<u8, RecvTimeoutError>);
        let rows: [(&[Look], Option<u8>); 4] = [
            (&[(true, Err(Timeout)), (true, Err(Timeout)), (false, Ok(8))], Some(8)),
            (&[(true, Err(Timeout)), (false, Err(Timeout)), (false, Ok(8))], None),
            (&[(false, Err(Timeout))], None),
            (&[(true, Err(Disconnected))], None),
        ];
        for (looks, expected) in rows {
            let (progress, mut looks) = (Progress::default(), looks.iter());
            let next = || {
                let (goes_on, outcome) = looks.next().expect("no more looks");
                if *goes_on {
                    progress.step();
                }
                *outcome
            };
            assert_eq!(hear(&progress, next), expected);
        }
    }
}
