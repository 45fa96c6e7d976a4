//! The models folders: which files are there, what they hold, how they are named.
//!
//! A background thread scans them once after the daemon listens, and again whenever they change. Readers get a
//! [`Snapshot`], which never changes under them. Tensors are not read here.
//!
//! The demo model is listed beside the files where the program carries it. A file of the same name takes its place.

mod background;
mod beside;
mod details;
mod digests;
mod embeddings;
mod hash;
mod index;
mod item;
mod judge;
mod layout;
mod lookup;
mod low_priority;
mod model_files;
mod model_folder;
mod names;
mod natural;
mod new_files;
mod pictures;
mod pinned;
mod places;
mod reach;
mod remote;
mod roots;
mod scan;
mod snapshot;
mod stamp;
#[cfg(test)]
mod tests;
mod waiting;
mod walk;
mod watch;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use latentd_client::protocol::{LibraryEntry, LibraryEvent, LibraryEventKind, LibraryKind};
use latentd_models::files::Prediction;
use latentd_models::networks::taesd::TaesdConfig;
use latentd_models::prompt::Reading;

use crate::contain::{contain, keep_going};
use crate::error::{Class, Error, Result};
use crate::thread;
use crate::workers::Workers;
use background::{Failed, Hashed, Pace, wants_addon};
use embeddings::KnownEmbeddings;
pub(crate) use embeddings::Mentioned;
pub(crate) use hash::hex;
use hash::{Hashes, Sha256Task};
use index::Index;
pub(crate) use item::Item;
use item::Source;
use judge::{Candidate, judge, sort_in};
use lookup::{Lookup, Shelf};
pub(crate) use model_files::{FilesIdentity, ModelFiles};
use pinned::PinError;
pub(crate) use pinned::{Identity, Pinned};
pub(crate) use places::Root;
use places::outermost_kind;
use roots::Askers;
pub(crate) use snapshot::Problem;
use snapshot::{Snapshot, difference};
use stamp::Stamp;
use waiting::WaitingRoom;
pub(crate) use waiting::{Patient, Waiter};
pub(crate) use walk::NO_FOLDER;
use watch::Watched;

/// Digits of a SHA-256 that A1111 and Civitai call a model by.
const AUTO_V2: usize = 10;

/// Files that are hashed at once.
const HASHING_THREADS: usize = 2;

/// Times a file that is being replaced is looked up again before it is taken as it is.
const LOOKS: usize = 3;

/// Channels of the latents of Stable Diffusion 1.x.
const TAESD_CHANNELS: usize = 4;

/// What a request calls the VAE that is named after the checkpoint, else the checkpoint's own; and the latter in any case.
pub(crate) const AUTOMATIC_VAE: &str = "Automatic";
pub(crate) const OWN_VAE: &str = "None";

/// How long somebody who names a file waits for the first scan.
const FIRST_SCAN: std::time::Duration = std::time::Duration::from_secs(2);

/// The folders and what is in them.
pub(crate) struct Library {
    roots: Arc<[Root]>,
    askers: Askers,
    index: Arc<Index>,
    state: Mutex<State>,
    scanned: Condvar,
    /// Held while a scan runs, so that two do not overlap.
    scanning: Mutex<()>,
    on_change: Box<dyn Fn(&LibraryEvent) + Send + Sync>,
    /// Held while somebody is told, so that all hear of changes in their order.
    telling: Mutex<()>,
    /// Files that jobs hold open.
    pinned: Mutex<HashMap<PathBuf, Weak<Pinned>>>,
    /// Computes hashes.
    hashing: Workers,
    /// Those who wait for some.
    waiting: WaitingRoom,
    /// When to compute all others.
    pace: Pace,
    embeddings: KnownEmbeddings,
}

/// An entry that was chosen for a request.
struct Choice {
    item: Item,
    /// It and no other bytes in its place: its hash was asked for.
    bytes: bool,
    /// Held open already.
    _file: Option<Arc<Pinned>>,
}

#[derive(Default)]
struct State {
    /// `None` until the first scan is done.
    snapshot: Option<Arc<Snapshot>>,
    /// The last of which all were told.
    told: Option<Arc<Snapshot>>,
}

impl Library {
    /// A library over `roots` with its index in `state_dir`. Nothing is read yet; `on_change` is told of every
    /// change after the first scan.
    pub(crate) fn open(
        roots: Vec<impl Into<Root>>,
        state_dir: &Path,
        on_change: impl Fn(&LibraryEvent) + Send + Sync + 'static,
    ) -> Self {
        Self {
            roots: roots
                .into_iter()
                .map(Into::into)
                .map(|root: Root| Root { path: std::path::absolute(&root.path).unwrap_or(root.path), ..root })
                .collect(),
            askers: Askers::new(),
            index: Arc::new(Index::open(&state_dir.join("library.db"))),
            state: Mutex::default(),
            scanned: Condvar::new(),
            scanning: Mutex::default(),
            on_change: Box::new(on_change),
            telling: Mutex::default(),
            pinned: Mutex::default(),
            hashing: Workers::new("sha256", HASHING_THREADS),
            waiting: WaitingRoom::default(),
            pace: Pace::default(),
            embeddings: KnownEmbeddings::default(),
        }
    }

    /// Scans and watches on threads of their own, for as long as somebody else holds the library.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let library = Arc::clone(self);
        thread::start("library", move || {
            keep_going("library", || watch::run(&*library), || ());
        })?;
        Ok(())
    }

    /// Computes all hashes on a thread of its own that gives way to all others, for as long as somebody else holds the
    /// library.
    pub(crate) fn start_hashing(self: &Arc<Self>) -> std::io::Result<()> {
        let library = Arc::clone(self);
        thread::start("hash", move || {
            low_priority::let_others_go_first();
            // Written down by another: this one must hold nothing that others wait for.
            let keeper = Arc::new(Workers::new("keep hashes", 1));
            let mut failed = Failed::new();
            let hash = move || loop {
                library.hash_all(&mut failed, |library, done| {
                    let (kept, is_kept) = std::sync::mpsc::channel();
                    let library = Arc::clone(library);
                    keeper.run(move || {
                        library.keep_hashes(&done);
                        kept.send(()).ok();
                    });
                    is_kept.recv().ok();
                });
                library.pace.wait_for_news();
            };
            keep_going("hash", hash, || ());
        })?;
        Ok(())
    }

    /// While others have work to do, nothing is hashed that nobody waits for.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.pace.set_busy(busy);
    }

    /// Hashes what has no hash yet.
    fn hash_all(self: &Arc<Self>, failed: &mut Failed, keep: impl Fn(&Arc<Self>, Vec<Hashed>)) {
        loop {
            let Some(snapshot) = self.lock().told.clone() else {
                return;
            };
            let needs_hash = |item: &&Item| match &item.source {
                Source::File { path, .. } if snapshot.is_silent(path) => false,
                Source::File { path, seen } => match self.index.digest(path, seen.file) {
                    Some(digest) => digest.addon.is_none() && wants_addon(item),
                    None => true,
                },
                Source::BuiltIn(_) => false,
            };
            // By kind, as they are listed.
            let items = snapshot.entries.iter().filter(needs_hash);
            let is_old = || !self.lock().told.as_ref().is_some_and(|now| Arc::ptr_eq(now, &snapshot));
            background::hash_all(items, &self.pace, failed, is_old, |done| keep(self, done));
            if !is_old() {
                return;
            }
        }
    }

    /// Keeps hashes and tells of them.
    fn keep_hashes(&self, done: &[Hashed]) {
        self.index.set_digests(done);
        let changed = done.iter().map(|hashed| hashed.name.clone()).collect();
        let (kind, added, removed) = (LibraryEventKind::Changed, Vec::new(), Vec::new());
        let _alone = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        (self.on_change)(&LibraryEvent { kind, added, changed, removed });
    }

    /// A scan that fails leaves what was known before, be it nothing: nobody waits for it for ever.
    fn rescan_or_go_on(&self) -> Arc<Snapshot> {
        let scanned = contain(|| Ok(self.rescan()));
        scanned.unwrap_or_else(|_| {
            let none = || Arc::new(self.nothing_yet());
            let known = Arc::clone(self.lock().snapshot.get_or_insert_with(none));
            self.scanned.notify_all();
            self.tell();
            known
        })
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

    /// What is there, or, where the first scan takes longer than a moment, what is built in alone: one file or folder that
    /// does not answer must not keep anybody from those that do.
    fn known_by_now(&self) -> Arc<Snapshot> {
        let state = self.lock();
        let none_yet = |state: &mut State| state.snapshot.is_none();
        let waited = self.scanned.wait_timeout_while(state, FIRST_SCAN, none_yet);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.snapshot.clone().unwrap_or_else(|| Arc::new(self.nothing_yet()))
    }

    /// What there is without any file.
    fn nothing_yet(&self) -> Snapshot {
        let mut snapshot = Snapshot { roots: Arc::clone(&self.roots), ..Snapshot::default() };
        scan::arrange(&mut snapshot);
        snapshot
    }

    fn is_scanned(&self) -> bool {
        self.lock().snapshot.is_some()
    }

    /// Scans now and gives the result.
    pub(crate) fn rescan(&self) -> Arc<Snapshot> {
        let _alone = self.scanning.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.lock().snapshot.clone();
        let snapshot = Arc::new(scan::scan(&self.roots, &self.askers, &self.index, before.as_ref()));
        self.lock().snapshot = Some(Arc::clone(&snapshot));
        self.scanned.notify_all();
        self.tell();
        snapshot
    }

    /// Looks at these files alone; gives what is there now, if that is something else.
    fn refresh(&self, paths: &[PathBuf]) -> Option<Arc<Snapshot>> {
        loop {
            let before = self.known_by_now();
            let after = self.refreshed(&before, paths)?;
            let mut state = self.lock();
            if state.snapshot.is_none() {
                // For whoever asks; the scan that is under way finds it for all.
                return Some(after);
            }
            // What others found meanwhile is not to be forgotten.
            if state.snapshot.as_ref().is_some_and(|now| Arc::ptr_eq(now, &before)) {
                state.snapshot = Some(Arc::clone(&after));
                drop(state);
                self.tell();
                return Some(after);
            }
        }
    }

    /// Tells of what is other than when this was told last, one after the other. From then on what is there is hashed: what
    /// is told of a file's hash comes behind what is told of the file.
    fn tell(&self) {
        let _alone = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, now) = {
            let mut state = self.lock();
            let now = state.snapshot.clone();
            (std::mem::replace(&mut state.told, now.clone()), now)
        };
        if let Some(event) = before.zip(now).and_then(|(before, now)| difference(&before, &now)) {
            (self.on_change)(&event);
        }
        self.pace.tell();
    }

    /// The entry of this kind that `name` means: a name, a path inside a models folder, or a hash, as far as hashes are
    /// known.
    pub(crate) fn find(&self, kind: LibraryKind, name: &str) -> Result<Item> {
        match self.look_up(kind, name)? {
            Lookup::Found { item, .. } => Ok(*item),
            Lookup::Unhashed { files, .. } => {
                let mut error = lookup::nothing(self.shelf(&self.known_by_now()), kind, name);
                let more = format!(
                    "; the hashes of {} files are not known yet, and computed once a request draws with one",
                    files.len()
                );
                error.text.push_str(&more);
                Err(error)
            }
        }
    }

    /// Who has just put a file there means that file, also before the change was noticed: what could have this name is
    /// looked at again, and nothing else, so that a name that is nobody's is refused at once however large the library is.
    fn look_up(&self, kind: LibraryKind, name: &str) -> Result<Lookup> {
        let snapshot = self.known_by_now();
        names::check(&snapshot.roots, kind, name)?;
        let look = |snapshot: &Snapshot| {
            let found = lookup::find(self.shelf(snapshot), kind, name);
            // Also of what is not known, if its folder never answered.
            let path = match &found {
                Ok(Lookup::Found { item, .. }) => item.path(),
                Ok(Lookup::Unhashed { .. }) | Err(_) => Some(Path::new(name)),
            };
            path.map_or(Ok(()), |path| self.check_answers(snapshot, kind, name, path))?;
            found
        };
        let mut changed = Vec::new();
        let mut found = look(&snapshot);
        if let Ok(Lookup::Found { item, .. }) = &found {
            if !item.is_built_in() && self.is_unchanged(&snapshot, item) {
                return found;
            }
            changed.extend(item.path().map(Path::to_owned));
        }
        changed.extend(lookup::candidates(self.shelf(&snapshot), kind, name));
        changed.extend(self.places(&snapshot, kind, name));
        changed.sort();
        changed.dedup();
        // Others may have found it meanwhile.
        let after = self.refresh(&changed).unwrap_or_else(|| self.known_by_now());
        // Its folder may have been found not to answer, too.
        if !Arc::ptr_eq(&after, &snapshot) || found.is_ok() {
            found = look(&after);
        }
        // What has a hash may have come just now, under any name.
        let is_found = matches!(found, Ok(Lookup::Found { .. }));
        if !is_found && names::has_hash(name) && self.is_scanned() && !self.snapshot().has_its_files() {
            found = look(&self.rescan());
        }
        found
    }

    fn shelf<'a>(&'a self, snapshot: &'a Snapshot) -> Shelf<'a> {
        Shelf { roots: &snapshot.roots, snapshot, index: &self.index }
    }

    /// The checkpoint that a request means by `name`, or the default one, held open as it is now. Its hash is computed from
    /// now on. Where it is named by a hash that is not known yet, `waiter` waits.
    pub(crate) fn pin(
        &self,
        name: Option<&str>,
        configured: &str,
        waiter: &dyn Waiter,
    ) -> Result<Arc<Pinned>> {
        self.pin_what(&|| match name.or(Some(configured).filter(|name| !name.is_empty())) {
            Some(name) => self.choose(LibraryKind::Checkpoint, name, waiter),
            None => self.default_checkpoint("").map(|item| Choice { item, bytes: false, _file: None }),
        })
    }

    /// The VAE in a file of its own that a request means for a checkpoint, held open as it is now: by its name, or, where
    /// that is "Automatic", the one that is named after the checkpoint, if there is one. None for "None".
    pub(crate) fn pin_vae(
        &self,
        wanted: &str,
        checkpoint: &Item,
        waiter: &dyn Waiter,
    ) -> Result<Option<Arc<Pinned>>> {
        if wanted.eq_ignore_ascii_case(OWN_VAE) {
            return Ok(None);
        }
        if !wanted.eq_ignore_ascii_case(AUTOMATIC_VAE) {
            return self.pin_what(&|| self.choose(LibraryKind::Vae, wanted, waiter)).map(Some);
        }
        if checkpoint.is_built_in() {
            return Ok(None);
        }
        // Who has just put one there means it, also before the change was noticed.
        let mut changed = lookup::vaes_beside(checkpoint);
        for _ in 0..LOOKS {
            self.refresh(&changed);
            let Some(item) = lookup::vae_named_after(&self.known_by_now(), checkpoint) else {
                return Ok(None);
            };
            match self.hold(&item) {
                Ok(pinned) => return Ok(Some(pinned)),
                Err(PinError::Unusable(error)) => return Err(error),
                Err(PinError::Moved) => changed.extend(item.path().map(Path::to_owned)),
            }
        }
        Err(Error::new(Class::Model, format!("the VAE of '{}' changes all the time; retry", checkpoint.name)))
    }

    /// The file of what is drawn with beside a checkpoint, held open as it is now; by its name, or by hashes that are known.
    pub(crate) fn pin_addon(&self, kind: LibraryKind, name: &str) -> Result<Arc<Pinned>> {
        self.pin_what(&|| self.find(kind, name).map(|item| Choice { item, bytes: false, _file: None }))
    }

    /// The names of a kind, as they are listed.
    pub(crate) fn names(&self, kind: LibraryKind) -> Vec<String> {
        let snapshot = self.known_by_now();
        snapshot.entries.iter().filter(|item| item.kind == kind).map(|item| item.name.clone()).collect()
    }

    /// The embeddings whose names stand in one of these texts.
    pub(crate) fn embeddings_in(&self, texts: &[String], reading: &Reading) -> Result<Vec<Mentioned>> {
        self.embeddings.mentioned(&self.known_by_now(), texts, reading)
    }

    /// The file of an entry, held open as it is now.
    pub(crate) fn pin_item(&self, item: &Item) -> Result<Arc<Pinned>> {
        self.pin_what(&|| Ok(Choice { item: item.clone(), bytes: false, _file: None }))
    }

    /// The TAESD for checkpoints of Stable Diffusion 1.x, held open as it is now, if the library has one.
    pub(crate) fn pin_taesd(&self) -> Result<Arc<Pinned>> {
        for item in lookup::taesds(&self.known_by_now()) {
            let choice = || Ok(Choice { item: item.clone(), bytes: false, _file: None });
            let decodes = |file: &Arc<Pinned>| {
                let config = file.tensors().ok().and_then(|file| TaesdConfig::detect(&file));
                config.is_some_and(|config| config.latent_channels == TAESD_CHANNELS)
            };
            if let Some(file) = self.pin_what(&choice).ok().filter(decodes) {
                return Ok(file);
            }
        }
        Err(lookup::no_taesd(&self.roots))
    }

    fn pin_what(&self, look: &dyn Fn() -> Result<Choice>) -> Result<Arc<Pinned>> {
        let mut choice = look()?;
        for _ in 0..LOOKS {
            match self.hold(&choice.item) {
                Ok(pinned) => return Ok(pinned),
                Err(PinError::Unusable(error)) => return Err(error),
                Err(PinError::Moved) => {
                    let changed: Vec<_> = choice.item.path().map(Path::to_owned).into_iter().collect();
                    self.refresh(&changed);
                    choice = look()?;
                }
            }
        }
        let item = &choice.item;
        if !choice.bytes
            && let Ok(pinned) = self.hold_what_is_there(item)
        {
            return Ok(pinned);
        }
        let text = format!("{} '{}' changes all the time; retry when it is whole", item.kind, item.name);
        Err(Error::new(Class::Model, text))
    }

    /// The entry that `name` means, whatever must be hashed to know.
    fn choose(&self, kind: LibraryKind, name: &str, waiter: &dyn Waiter) -> Result<Choice> {
        let mut tried: Vec<Item> = Vec::new();
        loop {
            let (hash, mut files) = match self.look_up(kind, name)? {
                Lookup::Found { item, bytes } => return Ok(Choice { item: *item, bytes, _file: None }),
                Lookup::Unhashed { hash, files } => (hash, files),
            };
            // Where the index cannot keep them, what was hashed stays unknown.
            let known = self.known_by_now();
            let answers = |item: &Item| {
                item.path().is_none_or(|path| self.check_answers(&known, kind, name, path).is_ok())
            };
            files.retain(|item| !tried.contains(item) && answers(item));
            if files.is_empty() {
                return Err(lookup::nothing(self.shelf(&self.known_by_now()), kind, name));
            }
            let found = self.waiting.find(&hash, &files, waiter, |item| self.hold(item).ok())?;
            if let Some(file) = found {
                return Ok(Choice { item: file.item().clone(), bytes: true, _file: Some(file) });
            }
            tried.extend(files);
        }
    }

    /// The file of an entry, if it is still the one that the entry is of.
    fn hold(&self, item: &Item) -> Result<Arc<Pinned>, PinError> {
        let (path, seen) = match &item.source {
            Source::BuiltIn(demo) => return Ok(Arc::new(Pinned::built_in(item, demo))),
            Source::File { path, seen } => (path, seen),
        };
        let held = self.held().get(path).and_then(Weak::upgrade);
        if let Some(pinned) = held.filter(|pinned| self.is_held(pinned, item)) {
            return Ok(pinned);
        }
        let (file, now) = self.open_file(item, path)?;
        if now != *seen {
            return Err(PinError::Moved);
        }
        self.keep(item.clone(), file)
    }

    /// Whatever stands at an entry's path by now, if it is of the same kind: it is opened first, and then looked into.
    fn hold_what_is_there(&self, item: &Item) -> Result<Arc<Pinned>, PinError> {
        let path = item.path().ok_or(PinError::Moved)?;
        let (file, seen) = self.open_file(item, path)?;
        let folder = outermost_kind(&self.known_by_now().roots, path);
        let (verdict, _) = judge(&file, path, folder);
        let (path, beside) = (path.to_owned(), item.beside);
        let is_folder = file.metadata().is_ok_and(|metadata| metadata.is_dir());
        let candidate = Candidate { path, seen, beside, is_folder, folder };
        let now = sort_in(&candidate, verdict).and_then(std::result::Result::ok).ok_or(PinError::Moved)?;
        if now.kind == item.kind { self.keep(now, file) } else { Err(PinError::Moved) }
    }

    /// Holds a file that is open, and is the entry's, for those who ask for it next.
    fn keep(&self, item: Item, file: File) -> Result<Arc<Pinned>, PinError> {
        let Source::File { path, seen } = item.source.clone() else {
            return Err(PinError::Moved);
        };
        // Infotexts name no others by it.
        let wants_addon = item.kind == LibraryKind::Lora && wants_addon(&item);
        let known = self.index.digest(&path, seen.file).map(|digest| Hashes {
            sha256: digest.sha256.to_string(),
            addon: digest.addon.as_deref().map(str::to_owned),
        });
        let hash = |file: &Arc<File>| {
            if let Some(known) = known.filter(|known| known.addon.is_some() || !wants_addon) {
                return Sha256Task::done(known);
            }
            let (index, path) = (Arc::clone(&self.index), path.clone());
            let keep = move |file: &File, hashes: &Hashes| {
                // What was written to meanwhile is not the file that the stamp is of.
                if Stamp::of_open(file).is_ok_and(|now| now == seen.file) {
                    index.set_digest(&path, seen.file, &hashes.sha256, hashes.addon.as_deref());
                }
            };
            Sha256Task::spawn(&self.hashing, Arc::downgrade(file), wants_addon, keep)
        };
        let pinned = Arc::new(Pinned::new(item, file, hash)?);
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
        self.up_to_date(|snapshot| lookup::first_checkpoint(&snapshot.roots, snapshot))
            .or_else(|none| Item::built_in().ok_or(none))
    }

    /// Says that there is no checkpoint but what is built in, and how to add one.
    pub(crate) fn only_built_in(&self) -> String {
        let snapshot = self.snapshot();
        lookup::only_built_in(&snapshot.roots, &snapshot)
    }

    /// What `look` finds, after another scan if that is a file that is another one by now, or nothing, and there is
    /// something new.
    fn up_to_date(&self, look: impl Fn(&Snapshot) -> Result<Item>) -> Result<Item> {
        let snapshot = self.snapshot();
        match look(&snapshot) {
            Ok(found) if self.is_unchanged(&snapshot, &found) => Ok(found),
            Err(none) if snapshot.is_current() => Err(none),
            Ok(_) | Err(_) => look(&self.rescan()),
        }
    }

    /// An entry as it goes over the wire, with all that is said of it.
    pub(crate) fn entry_with_details(&self, item: &Item) -> LibraryEntry {
        let details = item.path().map(|path| Box::new(details::details(path)));
        LibraryEntry { details, ..self.entry(item) }
    }

    /// An entry as it goes over the wire in a list.
    pub(crate) fn entry(&self, item: &Item) -> LibraryEntry {
        let digest = match &item.source {
            Source::File { path, seen } => self.index.digest(path, seen.file),
            Source::BuiltIn(_) => None,
        };
        let hash = match &item.source {
            Source::BuiltIn(demo) => Some(demo.sha256.to_owned()),
            Source::File { .. } => digest.as_ref().map(|digest| digest.sha256.to_string()),
        };
        let preview = item.path().and_then(|path| item.beside.preview(path));
        let addon = || digest.as_ref().and_then(|digest| digest.addon.as_deref()).map(str::to_owned);
        LibraryEntry {
            kind: item.kind,
            name: item.name.clone(),
            path: item.path().map(|path| path.display().to_string()),
            built_in: item.is_built_in(),
            size: item.size(),
            auto_v2: hash.as_deref().and_then(|hash| hash.get(..AUTO_V2)).map(str::to_owned),
            hash,
            old_hash: item.facts.old_hash.clone(),
            addon_hash: item.facts.addon_hash.clone().or_else(addon),
            format: item.facts.format.clone(),
            layout: item.facts.layout.clone(),
            base_model: item.facts.base_model.clone(),
            preview: preview.map(|path| path.display().to_string()),
            architecture: item.facts.architecture.clone(),
            prediction: item.facts.prediction.map(|prediction| Prediction::name(prediction).to_owned()),
            also: item.facts.also.clone(),
            lacks_vae: item.facts.lacks_vae,
            unsupported: item.unsupported(),
            dtype: item.facts.dtype.clone(),
            parameters: item.facts.parameters,
            details: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched for Library {
    fn rescan(&self) -> Arc<Snapshot> {
        self.rescan_or_go_on()
    }

    fn known(&self) -> Arc<Snapshot> {
        self.snapshot()
    }

    fn look_at(&self, files: &[PathBuf]) {
        // As with a scan that fails.
        drop(contain(|| Ok(self.refresh(files))));
    }

    fn look_at_young(&self) {
        let snapshot = self.snapshot();
        self.look_at(&snapshot.young().map(|problem| problem.path.clone()).collect::<Vec<_>>());
    }

    fn is_other_elsewhere(&self) -> bool {
        let snapshot = self.snapshot();
        self.askers.have_answers() || snapshot.grounds.iter().any(|ground| self.is_other(ground, &snapshot))
    }
}
