//! Files that are written on a thread of their own, for which whoever asked waits only as long as is good.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Folders, advice};

/// How often a cancel is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwritten {
    #[error("cancelled while a picture was written")]
    Cancelled,
    #[error("it does not answer; see whether its disk or server is there")]
    Silent,
    #[error("{error}; {}", advice(.error))]
    Failed { error: io::Error },
}

/// What becomes of the work, for both who does it and who waits.
#[derive(Default)]
enum Fate {
    #[default]
    Open,
    Done(io::Result<()>),
    /// Nobody waits any more.
    Left,
}

impl Folders {
    /// Writes `path` in `folder`, as `work` does it. Ends soon after `cancelled` says so, and where `folder` does not
    /// answer; what is written all the same later is removed then.
    pub(crate) fn write(
        &self,
        folder: &Path,
        path: PathBuf,
        work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), Unwritten> {
        if self.under_way.is_silent(folder, self.written_within) {
            return Err(Unwritten::Silent);
        }
        let shared = Arc::new((Mutex::new(Fate::Open), Condvar::new()));
        let (theirs, under_way, folder) =
            (Arc::clone(&shared), Arc::clone(&self.under_way), folder.to_owned());
        self.writers.run(move || {
            let operation = under_way.note(&folder);
            let (fate, changed) = &*theirs;
            // It may have been given up before its turn.
            if matches!(*fate.lock().unwrap_or_else(PoisonError::into_inner), Fate::Left) {
                return;
            }
            let written = work(&path);
            let mut fate = fate.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(*fate, Fate::Left) {
                *fate = Fate::Done(written);
                changed.notify_one();
            } else if written.is_ok() {
                std::fs::remove_file(&path).ok();
            }
            drop(operation);
        });
        let (fate, changed) = &*shared;
        let begun = Instant::now();
        let mut fate = fate.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Fate::Done(written) = std::mem::take(&mut *fate) {
                return written.map_err(|error| Unwritten::Failed { error });
            }
            let why = if cancelled() {
                Some(Unwritten::Cancelled)
            } else {
                (begun.elapsed() >= self.written_within).then_some(Unwritten::Silent)
            };
            if let Some(why) = why {
                *fate = Fate::Left;
                return Err(why);
            }
            fate = changed.wait_timeout(fate, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Removes files, whenever their folders answer; nobody waits for it.
    pub(crate) fn remove(&self, paths: Vec<PathBuf>) {
        self.writers.run(move || {
            for path in paths {
                std::fs::remove_file(path).ok();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;

    /// A write that ends once what it gets is dropped.
    fn blocked(until: mpsc::Receiver<()>) -> impl FnOnce(&Path) -> io::Result<()> + Send + 'static {
        move |path| {
            until.recv().ok();
            fs::write(path, "late")
        }
    }

    #[test]
    fn who_waits_for_a_file_is_free_at_a_cancel_and_at_the_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let folders = Folders::new();
        let (release, until) = mpsc::channel();
        let cancelled = folders.write(folder.path(), at("a"), blocked(until), &|| true);
        assert!(matches!(cancelled, Err(Unwritten::Cancelled)), "{cancelled:?}");
        // The next is written, although the first hangs.
        let written = folders.write(folder.path(), at("b"), |path| fs::write(path, "b"), &|| false);
        assert!(written.is_ok() && at("b").exists(), "{written:?}");
        drop(release);

        let folders = Folders::written_within(Duration::from_millis(50));
        let (releases, untils): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel()).unzip();
        for until in untils {
            let silent = folders.write(Path::new("/share"), at("c"), blocked(until), &|| false);
            assert!(matches!(silent, Err(Unwritten::Silent)), "{silent:?}");
        }
        let third = folders.write(Path::new("/share"), at("d"), |_| panic!("not begun"), &|| false);
        assert!(matches!(third, Err(Unwritten::Silent)), "{third:?}");
        drop(releases);
    }

    #[test]
    fn what_is_written_after_all_does_not_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("late");
        let folders = Folders::new();
        let (begun, begins) = mpsc::channel();
        let (release, until) = mpsc::channel::<()>();
        let (told, tells) = mpsc::channel::<()>();
        let work = move |path: &Path| {
            begun.send(()).expect("heard");
            until.recv().ok();
            fs::write(path, "late")?;
            told.send(()).expect("heard");
            Ok(())
        };
        let cancelled = folders.write(folder.path(), path.clone(), work, &|| begins.try_recv().is_ok());
        assert!(matches!(cancelled, Err(Unwritten::Cancelled)), "{cancelled:?}");
        drop(release);
        tells.recv().expect("written");
        while path.exists() {
            std::thread::yield_now();
        }
    }
}
