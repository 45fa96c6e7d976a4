//! Computes the hashes of all files while nothing else is to be done: one file at a time, checkpoints first. What is done is
//! kept, so that the next daemon goes on behind it.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use latentd_client::protocol::LibraryKind;
use latentd_models::files::open_without_waiting;
use tracing::debug;

use super::hash::{Hasher, Hashes, parts};
use super::item::{Item, Source};
use super::low_priority::Passing;
use super::stamp::Stamp;

/// Bytes that are read at once.
const PIECE: usize = 4 << 20;

/// How often it is asked whether others are still busy.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How long what is done may wait to be kept and told, and how much of it.
const KEEP_EVERY: Duration = Duration::from_secs(2);
const MOST_UNKEPT: usize = 256;

/// The hashes of one file.
pub(super) struct Hashed {
    pub path: PathBuf,
    pub stamp: Stamp,
    pub sha256: String,
    /// Of what follows the header, where that is asked for.
    pub addon: Option<String>,
    /// The entry, as events call it.
    pub name: String,
}

/// When to work.
#[derive(Default)]
pub(super) struct Pace {
    /// Whether something may have come since it was looked.
    news: Mutex<bool>,
    came: Condvar,
    /// Whether others have work to do.
    busy: AtomicBool,
    /// Whether something waits because they have.
    gives_way: AtomicBool,
}

impl Pace {
    /// Something may have come.
    pub(super) fn tell(&self) {
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.came.notify_all();
    }

    /// Others have work to do, or have none any more.
    pub(super) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Waits until something may have come.
    pub(super) fn wait_for_news(&self) {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.came.wait_while(news, |news| !*news);
        *waited.unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Waits while others are busy.
    fn give_way(&self) {
        while self.busy.load(Ordering::Relaxed) {
            self.gives_way.store(true, Ordering::Relaxed);
            std::thread::park_timeout(ASK_EVERY);
        }
        self.gives_way.store(false, Ordering::Relaxed);
    }

    /// Whether something waits because others are busy.
    #[cfg(test)]
    pub(super) fn gives_way(&self) -> bool {
        self.gives_way.load(Ordering::Relaxed)
    }
}

/// Files that could not be hashed as they were.
pub(super) type Failed = HashSet<(PathBuf, Stamp)>;

/// Hashes the files of `items`, of which `is_known` says which need it not, in their order. What is done is handed to `keep`
/// now and then; what comes after it is not begun while `is_old` says that there is another library by now.
pub(super) fn hash_all<'a>(
    items: impl Iterator<Item = &'a Item>,
    pace: &Pace,
    failed: &mut Failed,
    is_old: impl Fn() -> bool,
    keep: impl Fn(Vec<Hashed>),
) {
    let (mut done, mut kept) = (Vec::new(), Instant::now());
    for item in items {
        let Source::File { path, seen } = &item.source else {
            continue;
        };
        if failed.contains(&(path.clone(), seen.file)) {
            continue;
        }
        match hash(path, seen.file, wants_addon(item), pace) {
            Ok(Some(Hashes { sha256, addon })) => {
                let name = format!("{}/{}", item.kind, item.name);
                done.push(Hashed { path: path.clone(), stamp: seen.file, sha256, addon, name });
            }
            Ok(None) => {
                debug!(path = %path.display(), "not hashed: it is another file by now");
                failed.insert((path.clone(), seen.file));
            }
            Err(error) => {
                debug!(path = %path.display(), %error, "not hashed");
                if lasts(error.kind()) {
                    failed.insert((path.clone(), seen.file));
                }
            }
        }
        if done.len() >= MOST_UNKEPT || kept.elapsed() >= KEEP_EVERY {
            keep(std::mem::take(&mut done));
            kept = Instant::now();
        }
        if is_old() {
            break;
        }
    }
    if !done.is_empty() {
        keep(done);
    }
}

/// Whether the hash of what follows the header is asked for: infotexts name such files by it.
pub(super) fn wants_addon(item: &Item) -> bool {
    item.kind != LibraryKind::Checkpoint
        && item.facts.addon_hash.is_none()
        && item.facts.format.as_deref() == Some("safetensors")
}

/// The SHA-256 of a file, or a model's folder, and of what follows a file's header; none if it is another one by now.
fn hash(path: &Path, stamp: Stamp, addon: bool, pace: &Pace) -> io::Result<Option<Hashes>> {
    let file = open_without_waiting(path)?;
    if Stamp::of_open(&file)? != stamp {
        return Ok(None);
    }
    let mut hasher = Hasher::new(addon);
    let mut bytes = vec![0; PIECE];
    for (before, part) in parts(&file)? {
        hasher.part(&before);
        let (passing, mut position) = (Passing::new(part.as_ref().unwrap_or(&file)), 0_u64);
        loop {
            pace.give_way();
            let length = passing.read_at(&mut bytes, position)?;
            if length == 0 {
                break;
            }
            hasher.add(bytes.get(..length).unwrap_or_default());
            position += length as u64;
        }
    }
    Ok((Stamp::of_open(&file)? == stamp).then(|| hasher.finish()))
}

/// Whether what failed so fails again until the file is another: not what this machine or a share failed at.
fn lasts(error: io::ErrorKind) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error, NotFound | NotADirectory | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::sync::Arc;

    use super::*;
    use crate::library::hash::Sha256Task;
    use crate::workers::Workers;

    #[test]
    fn a_models_folder_has_the_hash_that_who_waits_for_it_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("unet")).expect("made");
        for (name, bytes) in [("model_index.json", &b"{}"[..]), ("unet/x.safetensors", b"weights")] {
            fs::write(folder.path().join(name), bytes).expect("written");
        }
        let file = Arc::new(File::open(folder.path()).expect("opened"));
        let told = Sha256Task::spawn(&Workers::new("test", 1), Arc::downgrade(&file), false, |_, _| ());
        let told = told.wait(&|| false).expect("an end").expect("hashed");
        let stamp = Stamp::of_open(&file).expect("looked at");
        let hash = |stamp| hash(folder.path(), stamp, false, &Pace::default()).expect("read");
        assert_eq!(hash(stamp), Some(told));
        assert_eq!(hash(Stamp { size: 1, ..stamp }), None, "another one");
    }

    #[test]
    fn what_failed_for_a_moment_is_tried_again() {
        use io::ErrorKind as E;
        for (kind, expected) in [
            (E::NotFound, true),
            (E::PermissionDenied, true),
            (E::Other, false),
            (E::StaleNetworkFileHandle, false),
            (E::TimedOut, false),
            (E::OutOfMemory, false),
        ] {
            assert_eq!(lasts(kind), expected, "{kind}");
        }
    }
}
