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
use sha2::{Digest as _, Sha256};
use tracing::debug;

use super::hash::hex;
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
            std::thread::park_timeout(ASK_EVERY);
        }
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
            Ok((sha256, addon)) => {
                let name = format!("{}/{}", item.kind, item.name);
                done.push(Hashed { path: path.clone(), stamp: seen.file, sha256, addon, name });
            }
            Err(error) => {
                debug!(path = %path.display(), %error, "not hashed");
                failed.insert((path.clone(), seen.file));
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

/// The SHA-256 of a file, and of what follows its header.
fn hash(path: &Path, stamp: Stamp, addon: bool, pace: &Pace) -> io::Result<(String, Option<String>)> {
    let changed = || io::Error::other("it is another file by now");
    let file = open_without_waiting(path)?;
    let check = || if Stamp::of(&file.metadata()?) == stamp { Ok(()) } else { Err(changed()) };
    check()?;
    let (mut whole, mut payload) = (Sha256::new(), addon.then(Sha256::new));
    let (passing, mut bytes, mut position, mut begin) = (Passing::new(&file), vec![0; PIECE], 0_u64, None);
    loop {
        pace.give_way();
        let length = passing.read_at(&mut bytes, position)?;
        let piece = bytes.get(..length).unwrap_or_default();
        if length == 0 {
            break;
        }
        whole.update(piece);
        if begin.is_none() {
            // The header's length stands before it.
            let header = piece.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
            begin = Some(header.saturating_add(8));
        }
        if let (Some(payload), Some(begin)) = (&mut payload, begin) {
            let skipped = usize::try_from(begin.saturating_sub(position)).unwrap_or(usize::MAX);
            payload.update(piece.get(skipped..).unwrap_or_default());
        }
        position += length as u64;
    }
    check()?;
    Ok((hex(&whole.finalize()), payload.map(|payload| hex(&payload.finalize()))))
}
