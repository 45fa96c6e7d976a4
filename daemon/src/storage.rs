//! How much lies in the folders that the daemon writes into. They may be large, so they are counted elsewhere, not all the
//! time: when jobs have changed them, and, as others may have, when somebody asks; who asks is told what was counted last.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use latentd_client::protocol::FolderStatus;

use crate::workers::Workers;

/// What was counted this long ago is told again.
const FRESH: Duration = Duration::from_secs(1);
/// Counting takes at most one part in so many of the time.
const SHARE: u32 = 20;
/// Folders inside each other that are looked into.
const DEPTH: usize = 8;

/// One folder.
pub(crate) struct CountedFolder {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counted: FolderStatus,
    /// From when on it is counted again; `None` while it is not yet, or just being counted.
    next: Option<Instant>,
    is_counting: bool,
}

impl CountedFolder {
    /// Nothing is counted yet.
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        let counted = FolderStatus { path: path.display().to_string(), ..FolderStatus::default() };
        let state = Mutex::new(State { counted, ..State::default() });
        Arc::new(Self { path, state })
    }

    /// As it was counted last, which one of the threads does again if that was a while ago. Waits for no disk.
    pub(crate) fn status(self: &Arc<Self>, threads: &Workers) -> FolderStatus {
        let mut state = self.lock();
        let counted = state.counted.clone();
        let is_due = state.next.is_none_or(|next| next <= Instant::now());
        if is_due && !state.is_counting {
            state.is_counting = true;
            drop(state);
            let folder = Arc::clone(self);
            threads.run(move || folder.count());
        }
        counted
    }

    /// Has it counted as it is from now on, as soon as it may be counted again.
    pub(crate) async fn count_again(self: &Arc<Self>, threads: &Workers) {
        while let Some(wait) = self.must_wait() {
            tokio::time::sleep(wait).await;
        }
        self.status(threads);
    }

    fn must_wait(&self) -> Option<Duration> {
        let state = self.lock();
        if state.is_counting {
            // It began before now, and may have passed by what is new.
            return Some(FRESH);
        }
        state.next.and_then(|next| next.checked_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    fn count(&self) {
        let started = Instant::now();
        let (files, bytes) = count(&self.path, DEPTH);
        let mut state = self.lock();
        state.is_counting = false;
        state.next = Some(Instant::now() + FRESH.max(started.elapsed() * SHARE));
        (state.counted.files, state.counted.bytes) = (files, bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files, and the bytes in them.
fn count(folder: &Path, depth: usize) -> (u64, u64) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.fold((0, 0), |(files, bytes), entry| match entry.metadata() {
        Ok(found) if found.is_file() => (files + 1, bytes + found.len()),
        Ok(found) if found.is_dir() && depth > 0 => {
            let (more_files, more_bytes) = count(&entry.path(), depth - 1);
            (files + more_files, bytes + more_bytes)
        }
        _ => (files, bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_counted_once_somebody_asks() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("inner")).expect("made");
        for (name, bytes) in [("a", 10), ("inner/b", 20)] {
            fs::write(folder.path().join(name), vec![0; bytes]).expect("written");
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).expect("linked");
        let threads = Workers::new("count", 1);
        let counted = CountedFolder::new(folder.path().to_owned());
        assert_eq!(counted.lock().counted.path, folder.path().display().to_string());
        while counted.status(&threads).files == 0 {
            std::thread::yield_now();
        }
        assert_eq!((counted.status(&threads).files, counted.status(&threads).bytes), (2, 30));
        // Once more, without anybody asking.
        fs::write(folder.path().join("c"), [0; 5]).expect("written");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("started");
        runtime.block_on(counted.count_again(&threads));
        while counted.lock().is_counting {
            std::thread::yield_now();
        }
        let told = counted.lock().counted.clone();
        assert_eq!((told.files, told.bytes), (3, 35));
        // What is not there is empty.
        let none = CountedFolder::new(folder.path().join("none"));
        none.status(&threads);
        while none.lock().is_counting {
            std::thread::yield_now();
        }
        assert_eq!(none.status(&threads).files, 0);
    }
}
