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
mod scan;
mod snapshot;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use latentd_client::protocol::{LibraryEntry, LibraryEvent, LibraryKind};

use crate::error::{Class, Result};
pub(crate) use hash::Sha256Task;
use index::Index;
pub(crate) use item::Item;
use item::Source;
use snapshot::{Snapshot, difference};

/// The folders and what is in them.
pub(crate) struct Library {
    folders: Vec<PathBuf>,
    index: Index,
    state: Mutex<State>,
    scanned: Condvar,
    /// Held while a scan runs, so that two do not overlap.
    scanning: Mutex<()>,
    on_change: Box<dyn Fn(&LibraryEvent) + Send + Sync>,
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
            index: Index::open(&state_dir.join("library.db")),
            state: Mutex::default(),
            scanned: Condvar::new(),
            scanning: Mutex::default(),
            on_change: Box::new(on_change),
        }
    }

    /// Scans and watches on threads of their own, for as long as somebody else holds the library.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let library = Arc::clone(self);
        std::thread::Builder::new()
            .name("library".into())
            .spawn(move || watch::run(&library.folders, || drop(library.rescan())))?;
        Ok(())
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
        if let Some(event) = before.and_then(|before| difference(&before, &snapshot)) {
            (self.on_change)(&event);
        }
        snapshot
    }

    /// The entry of this kind that `name` means: a name, a path inside a models folder, or a hash.
    pub(crate) fn find(&self, kind: LibraryKind, name: &str) -> Result<Item> {
        self.up_to_date(|snapshot| lookup::find(&self.folders, snapshot, &self.index, kind, name))
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

    /// What `look` finds, after another scan if it finds nothing or a file that is another one by now: who has just
    /// put a file there means that file, also before the change was noticed.
    fn up_to_date(&self, look: impl Fn(&Snapshot) -> Result<Item>) -> Result<Item> {
        match look(&self.snapshot()) {
            Ok(found) if found.is_unchanged() => Ok(found),
            Err(error) if error.class == Class::InvalidParams => Err(error),
            Ok(_) | Err(_) => look(&self.rescan()),
        }
    }

    /// The file's SHA-256: at once if it is known, else computed on a thread of its own.
    pub(crate) fn sha256(self: &Arc<Self>, item: &Item) -> Sha256Task {
        if let Some(known) = lookup::known_sha256(&self.index, item) {
            return Sha256Task::done(known);
        }
        match item.source.clone() {
            Source::File { path, stamp, .. } => {
                let library = Arc::clone(self);
                let file = path.clone();
                Sha256Task::spawn(path, move |digest| library.index.set_sha256(&file, stamp, digest))
            }
            Source::BuiltIn(demo) => Sha256Task::done(demo.sha256.to_owned()),
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
