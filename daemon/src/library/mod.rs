//! The models folders: which files are there, what they hold, how they are named.
//!
//! A background thread scans them once after the daemon listens, and again whenever they change. Readers get a
//! [`Snapshot`], which never changes under them. Tensors are not read here.
//!
//! The demo model is listed beside the files where the program carries it. A file of the same name takes its place.

mod hash;
mod index;
mod item;
mod lookup;
mod pinned;
mod scan;
mod snapshot;
mod watch;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use latentd_client::protocol::{LibraryEntry, LibraryEvent, LibraryKind};

use crate::contain::{contain, keep_going};
use crate::error::{Class, Error, Result};
use crate::workers::Workers;
use hash::Sha256Task;
use index::Index;
pub(crate) use item::Item;
use item::{Source, Stamp};
use pinned::PinError;
pub(crate) use pinned::{Identity, Pinned};
pub(crate) use scan::NO_FOLDER;
use snapshot::{Snapshot, difference};

/// Files that are hashed at once.
const HASHING_THREADS: usize = 2;

/// Times a file that is being replaced is looked up again before that is an error.
const LOOKS: usize = 5;

/// The folders and what is in them.
pub(crate) struct Library {
    folders: Vec<PathBuf>,
    index: Arc<Index>,
    state: Mutex<State>,
    scanned: Condvar,
    /// Held while a scan runs, so that two do not overlap.
    scanning: Mutex<()>,
    on_change: Box<dyn Fn(&LibraryEvent) + Send + Sync>,
    /// Files that jobs hold open.
    pinned: Mutex<HashMap<PathBuf, Weak<Pinned>>>,
    /// Computes hashes.
    hashing: Workers,
}

#[derive(Default)]
struct State {
    /// `None` until the first scan is done.
    snapshot: Option<Arc<Snapshot>>,
}

impl Library {
    /// A library over `folders` with its index in `state_dir`. Nothing is read yet; `on_change` is told of every
    /// change after the first scan.
    pub(crate) fn open(
        folders: Vec<PathBuf>,
        state_dir: &Path,
        on_change: impl Fn(&LibraryEvent) + Send + Sync + 'static,
    ) -> Self {
        Self {
            folders: folders
                .into_iter()
                .map(|folder| std::path::absolute(&folder).unwrap_or(folder))
                .collect(),
            index: Arc::new(Index::open(&state_dir.join("library.db"))),
            state: Mutex::default(),
            scanned: Condvar::new(),
            scanning: Mutex::default(),
            on_change: Box::new(on_change),
            pinned: Mutex::default(),
            hashing: Workers::new("sha256", HASHING_THREADS),
        }
    }

    /// Scans and watches on threads of their own, for as long as somebody else holds the library.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let library = Arc::clone(self);
        std::thread::Builder::new().name("library".into()).spawn(move || {
            let watch = || watch::run(&library.folders, || library.rescan_or_go_on());
            keep_going("library", watch, || ());
        })?;
        Ok(())
    }

    /// A scan that fails leaves what was known before, be it nothing: nobody waits for it for ever.
    fn rescan_or_go_on(&self) {
        let scanned = contain(|| Ok(self.rescan()));
        if scanned.is_err() {
            self.lock().snapshot.get_or_insert_default();
            self.scanned.notify_all();
        }
    }

    /// What is there. Waits for the first scan.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        let mut state = self.lock();
        loop {
            if let Some(snapshot) = &state.snapshot {
                return Arc::clone(snapshot);
            }
            state = self.scanned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Scans now and gives the result.
    pub(crate) fn rescan(&self) -> Arc<Snapshot> {
        let _alone = self.scanning.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = Arc::new(scan::scan(&self.folders, &self.index));
        let before = self.lock().snapshot.replace(Arc::clone(&snapshot));
        self.scanned.notify_all();
        if let Some(before) = before {
            self.tell_difference(&before, &snapshot);
        }
        snapshot
    }

    /// Looks at these files alone; gives what is there now, if that is something else.
    fn refresh(&self, paths: &[PathBuf]) -> Option<Arc<Snapshot>> {
        let before = self.snapshot();
        let after = Arc::new(scan::refreshed(&self.folders, &before, paths, &self.index)?);
        self.lock().snapshot = Some(Arc::clone(&after));
        self.tell_difference(&before, &after);
        Some(after)
    }

    fn tell_difference(&self, before: &Snapshot, after: &Snapshot) {
        if let Some(event) = difference(before, after) {
            (self.on_change)(&event);
        }
    }

    /// The entry of this kind that `name` means: a name, a path inside a models folder, or a hash. Who has just put a
    /// file there means that file, also before the change was noticed: what could have this name is looked at again,
    /// and nothing else, so that a name that is nobody's is refused at once however large the library is.
    pub(crate) fn find(&self, kind: LibraryKind, name: &str) -> Result<Item> {
        let look = |snapshot: &Snapshot| lookup::find(&self.folders, snapshot, &self.index, kind, name);
        let snapshot = self.snapshot();
        let mut changed = Vec::new();
        let found = look(&snapshot);
        match &found {
            Ok(item) if item.is_unchanged() => return found,
            Ok(item) => changed.extend(item.path().map(Path::to_owned)),
            Err(error) if error.class == Class::InvalidParams => return found,
            Err(_) => (),
        }
        changed.extend(lookup::candidates(&self.folders, &snapshot, kind, name));
        changed.sort();
        changed.dedup();
        let after = self.refresh(&changed).unwrap_or_else(|| self.snapshot());
        if Arc::ptr_eq(&after, &snapshot) { found } else { look(&after) }
    }

    /// The file of the entry that `look` finds, held open as it is now. Its hash is computed from now on.
    pub(crate) fn pin(&self, look: impl Fn(&Self) -> Result<Item>) -> Result<Arc<Pinned>> {
        let mut item = look(self)?;
        for _ in 0..LOOKS {
            match self.hold(&item) {
                Ok(pinned) => return Ok(pinned),
                Err(PinError::Unusable(error)) => return Err(error),
                Err(PinError::Moved) => {
                    let changed: Vec<_> = item.path().map(Path::to_owned).into_iter().collect();
                    self.refresh(&changed);
                    item = look(self)?;
                }
            }
        }
        let text = format!("{} '{}' changes all the time; retry when it is whole", item.kind, item.name);
        Err(Error::new(Class::Model, text))
    }

    fn hold(&self, item: &Item) -> Result<Arc<Pinned>, PinError> {
        let (path, stamp) = match &item.source {
            Source::BuiltIn(demo) => return Ok(Arc::new(Pinned::built_in(item, demo))),
            Source::File { path, stamp, .. } => (path, *stamp),
        };
        let held = self.held().get(path).and_then(Weak::upgrade);
        if let Some(pinned) = held.filter(|pinned| pinned.is_current(item)) {
            return Ok(pinned);
        }
        let hash = |file: &Arc<File>| {
            if let Some(known) = lookup::known_sha256(&self.index, item) {
                return Sha256Task::done(known);
            }
            let (index, path) = (Arc::clone(&self.index), path.clone());
            let keep = move |file: &File, digest: &str| {
                // What was written to meanwhile is not the file that the stamp is of.
                if file.metadata().is_ok_and(|now| Stamp::of(&now) == stamp) {
                    index.set_sha256(&path, stamp, digest);
                }
            };
            Sha256Task::spawn(&self.hashing, Arc::downgrade(file), keep)
        };
        let pinned = Arc::new(Pinned::open(item, path, stamp, hash)?);
        let mut held = self.held();
        held.retain(|_, other| other.strong_count() > 0);
        held.insert(path.clone(), Arc::downgrade(&pinned));
        Ok(pinned)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<PathBuf, Weak<Pinned>>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The checkpoint to use when nobody names one: the configured one, else the first file that
    /// can be drawn with, else what is built in.
    pub(crate) fn default_checkpoint(&self, configured: &str) -> Result<Item> {
        if !configured.is_empty() {
            return self.find(LibraryKind::Checkpoint, configured);
        }
        self.up_to_date(|snapshot| lookup::first_checkpoint(&self.folders, snapshot))
            .or_else(|none| Item::built_in().ok_or(none))
    }

    /// Says that there is no checkpoint but what is built in, and how to add one.
    pub(crate) fn only_built_in(&self) -> String {
        lookup::only_built_in(&self.folders, &self.snapshot())
    }

    /// What `look` finds, after another scan if it finds nothing or a file that is another one by now.
    fn up_to_date(&self, look: impl Fn(&Snapshot) -> Result<Item>) -> Result<Item> {
        match look(&self.snapshot()) {
            Ok(found) if found.is_unchanged() => Ok(found),
            Ok(_) | Err(_) => look(&self.rescan()),
        }
    }

    /// An entry as it goes over the wire.
    pub(crate) fn entry(&self, item: &Item) -> LibraryEntry {
        LibraryEntry {
            kind: item.kind,
            name: item.name.clone(),
            path: item.path().map(|path| path.display().to_string()),
            built_in: item.is_built_in(),
            size: item.size(),
            hash: lookup::known_sha256(&self.index, item),
            architecture: item.facts.architecture.clone(),
            dtype: item.facts.dtype.clone(),
            parameters: item.facts.parameters,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
