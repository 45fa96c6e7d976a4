//! SHA-256 of large files, computed while something else goes on.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::model_folder;
use crate::workers::Workers;

/// How often somebody who waits looks whether it still should.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A digest that is known, or being computed. Clones wait for the same one.
#[derive(Clone, Default)]
pub(super) struct Sha256Task {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    digest: Mutex<Option<Result<String, String>>>,
    done: Condvar,
    /// Bytes that were read so far.
    bytes: AtomicU64,
}

impl Sha256Task {
    /// One that is known.
    pub(super) fn done(digest: String) -> Self {
        let task = Self::default();
        task.set(Ok(digest));
        task
    }

    /// Reads the open file on a thread of `workers` and hands the digest to `keep`. Nothing is read once nobody holds the
    /// file any more.
    pub(super) fn spawn(
        workers: &Workers,
        file: Weak<File>,
        keep: impl FnOnce(&File, &str) + Send + 'static,
    ) -> Self {
        let task = Self::default();
        let worker = Finally(task.clone());
        workers.run(move || {
            let digest = file_sha256(&file, &worker.0.shared.bytes).map_err(|error| error.to_string());
            if let (Ok(digest), Some(file)) = (&digest, file.upgrade()) {
                keep(&file, digest);
            }
            worker.0.set(digest);
        });
        task
    }

    /// The digest in hex. Waits for it unless `cancelled`, in which case there is none.
    pub(super) fn wait(&self, cancelled: &dyn Fn() -> bool) -> Option<Result<String, String>> {
        let mut digest = self.shared.digest.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if digest.is_some() || cancelled() {
                return digest.clone();
            }
            let waited = self.shared.done.wait_timeout(digest, LOOK_EVERY);
            digest = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Bytes that were read so far; none where the digest was known.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Only the first outcome counts.
    fn set(&self, outcome: Result<String, String>) {
        self.shared.digest.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome);
        self.shared.done.notify_all();
    }
}

/// Work that is lost or panics must not leave anybody waiting.
struct Finally(Sha256Task);

impl Drop for Finally {
    fn drop(&mut self) {
        self.0.set(Err("the daemon failed at its hash; please report it".into()));
    }
}

/// What a hash is of, piece by piece: what stands before it, and the file; `None` for the one that is open itself.
pub(super) type Parts = Vec<(String, Option<File>)>;

/// Of a file that is open, all that is in it. Of a model's folder each file's name, its size, and what is in it, in the order
/// of the names.
pub(super) fn parts(file: &File) -> io::Result<Parts> {
    if !file.metadata()?.is_dir() {
        return Ok(vec![(String::new(), None)]);
    }
    let files = model_folder::files(file)?.into_iter();
    files
        .map(|(path, part)| Ok((format!("{}\0{}\0", path.display(), part.metadata()?.len()), Some(part))))
        .collect()
}

fn file_sha256(file: &Weak<File>, done: &AtomicU64) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let held = || file.upgrade().ok_or_else(|| io::Error::other("nobody needs its hash any more"));
    let parts = {
        let file = held()?;
        parts(&file)?
    };
    for (before, part) in &parts {
        hasher.update(before);
        let read = |bytes: &mut [u8], at: u64| {
            let whole = held()?;
            part.as_ref().unwrap_or(&whole).read_at(bytes, at)
        };
        add(&mut hasher, read, done)?;
    }
    Ok(hex(&hasher.finalize()))
}

/// All that `read` gives, from its beginning. It holds the file for one piece at a time: when the last job that wanted the
/// digest is gone, so is the work.
fn add(
    hasher: &mut Sha256,
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    done: &AtomicU64,
) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 20];
    let mut position = 0;
    loop {
        let length = read(&mut bytes, position)?;
        if length == 0 {
            return Ok(());
        }
        position += length as u64;
        done.fetch_add(length as u64, Ordering::Relaxed);
        hasher.update(bytes.get(..length).unwrap_or_default());
    }
}

/// A digest's digits.
pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// A file that takes hours to read, and no place on the disk.
    fn endless() -> Arc<File> {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 40).expect("set");
        Arc::new(file)
    }

    #[test]
    fn who_waits_goes_when_cancelled_and_the_work_ends_with_the_last_who_needs_it() {
        let workers = Workers::new("test", 1);
        let file = endless();
        let task = Sha256Task::spawn(&workers, Arc::downgrade(&file), |_, _| panic!("it has no end"));
        let queued = Sha256Task::spawn(&workers, Arc::downgrade(&file), |_, _| panic!("nor this"));
        let cancelled = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for task in [&task, &queued] {
                scope.spawn(|| assert_eq!(task.wait(&|| cancelled.load(Ordering::Relaxed)), None));
            }
            while task.bytes() == 0 {
                std::thread::yield_now();
            }
            cancelled.store(true, Ordering::Relaxed);
        });
        drop(file);
        for task in [&task, &queued] {
            let outcome = task.wait(&|| false).expect("an end");
            assert!(outcome.is_err_and(|error| error.contains("nobody needs")));
        }
        assert!(task.bytes() < 1 << 40 && queued.bytes() == 0);
    }
}
