//! SHA-256 of large files, and of what follows their headers, computed while something else goes on.

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

/// What a file is called by, in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hashes {
    /// Of all of it.
    pub sha256: String,
    /// Of what follows its header, where that was asked for.
    pub addon: Option<String>,
}

/// Digests that are known, or being computed. Clones wait for the same ones.
#[derive(Clone, Default)]
pub(super) struct Sha256Task {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    hashes: Mutex<Option<Result<Hashes, String>>>,
    done: Condvar,
    /// Bytes that were read so far.
    bytes: AtomicU64,
}

impl Sha256Task {
    /// One that is known.
    pub(super) fn done(hashes: Hashes) -> Self {
        let task = Self::default();
        task.set(Ok(hashes));
        task
    }

    /// Reads the open file on a thread of `workers` and hands its hashes to `keep`; that of what follows the header only
    /// with `addon`. Nothing is read once nobody holds the file any more.
    pub(super) fn spawn(
        workers: &Workers,
        file: Weak<File>,
        addon: bool,
        keep: impl FnOnce(&File, &Hashes) + Send + 'static,
    ) -> Self {
        let task = Self::default();
        let worker = Finally(task.clone());
        workers.run(move || {
            let hashes = hash_file(&file, addon, &worker.0.shared.bytes).map_err(|error| error.to_string());
            if let (Ok(hashes), Some(file)) = (&hashes, file.upgrade()) {
                keep(&file, hashes);
            }
            worker.0.set(hashes);
        });
        task
    }

    /// The digests. Waits for them unless `cancelled`, in which case there are none.
    pub(super) fn wait(&self, cancelled: &dyn Fn() -> bool) -> Option<Result<Hashes, String>> {
        let mut hashes = self.shared.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if hashes.is_some() || cancelled() {
                return hashes.clone();
            }
            let waited = self.shared.done.wait_timeout(hashes, LOOK_EVERY);
            hashes = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Bytes that were read so far; none where the digest was known.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Only the first outcome counts.
    fn set(&self, outcome: Result<Hashes, String>) {
        self.shared.hashes.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome);
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

/// Both digests of a file while it is read.
pub(super) struct Hasher {
    whole: Sha256,
    payload: Option<Sha256>,
    /// Bytes of this part that were read.
    position: u64,
    /// Where this part's header ends.
    begin: Option<u64>,
}

impl Hasher {
    /// With `addon` also of what follows the header.
    pub(super) fn new(addon: bool) -> Self {
        Self { whole: Sha256::new(), payload: addon.then(Sha256::new), position: 0, begin: None }
    }

    /// Another part begins, with what stands before it.
    pub(super) fn part(&mut self, before: &str) {
        self.whole.update(before);
        (self.position, self.begin) = (0, None);
    }

    /// The next piece of a part; the first one has the header's length in it.
    pub(super) fn add(&mut self, piece: &[u8]) {
        self.whole.update(piece);
        let length = || piece.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)).saturating_add(8);
        let begin = *self.begin.get_or_insert_with(length);
        if let Some(payload) = &mut self.payload {
            let skipped = usize::try_from(begin.saturating_sub(self.position)).unwrap_or(usize::MAX);
            payload.update(piece.get(skipped..).unwrap_or_default());
        }
        self.position += piece.len() as u64;
    }

    pub(super) fn finish(self) -> Hashes {
        let addon = self.payload.map(|payload| hex(&payload.finalize()));
        Hashes { sha256: hex(&self.whole.finalize()), addon }
    }
}

fn hash_file(file: &Weak<File>, addon: bool, done: &AtomicU64) -> io::Result<Hashes> {
    let mut hasher = Hasher::new(addon);
    let held = || file.upgrade().ok_or_else(|| io::Error::other("nobody needs its hash any more"));
    let parts = {
        let file = held()?;
        parts(&file)?
    };
    for (before, part) in &parts {
        hasher.part(before);
        let read = |bytes: &mut [u8], at: u64| {
            let whole = held()?;
            part.as_ref().unwrap_or(&whole).read_at(bytes, at)
        };
        add(&mut hasher, read, done)?;
    }
    Ok(hasher.finish())
}

/// All that `read` gives, from its beginning. It holds the file for one piece at a time: when the last job that wanted the
/// digest is gone, so is the work.
fn add(
    hasher: &mut Hasher,
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
        hasher.add(bytes.get(..length).unwrap_or_default());
    }
}

/// A digest's digits.
pub(crate) fn hex(digest: &[u8]) -> String {
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
        let task = Sha256Task::spawn(&workers, Arc::downgrade(&file), true, |_, _| panic!("it has no end"));
        let queued = Sha256Task::spawn(&workers, Arc::downgrade(&file), true, |_, _| panic!("nor this"));
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
