//! Scans again when the models folders change.
//!
//! Each folder that a scan entered is watched by itself, those behind links too, and the folders that hold what links lead
//! to. Whether the models folders themselves are there, or are others now, is looked at now and then: what stands above
//! them is not ours to watch. Where folders cannot be watched, or links lead nowhere, all is looked at now and then. Of
//! what is done to folders of other machines nothing is told, so those are looked at now and then as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use super::beside::may_be_beside;
use super::model_folder::is_model;
use super::places::{OTHER_FORMS, extension};
use super::snapshot::{Folder, Snapshot};
use super::stamp::Stamp;

/// Changes that follow one another this closely are looked at together.
const QUIET: Duration = Duration::from_millis(100);

/// But none waits longer than this.
const LATEST: Duration = Duration::from_millis(250);

/// So many files that changed are looked at by themselves; of more everything is.
const FEW: usize = 32;

/// How often the models folders themselves are looked at, folders of other machines, and files that are not whole yet.
const ROOTS_EVERY: Duration = Duration::from_secs(2);

/// How often everything is, where it must be.
const ALL_EVERY: Duration = Duration::from_secs(10);

/// How often everything is where a folder is of another machine: a file that was written to in place changes no folder.
const ELSEWHERE_EVERY: Duration = Duration::from_mins(1);

/// Scans after folders were watched that were not before: what came in between would be missed. More come only while
/// somebody makes folders, which is seen then.
const ROUNDS: usize = 3;

type Changes = Receiver<notify::Result<Event>>;

/// What is watched.
pub(super) trait Watched {
    /// Looks at everything.
    fn rescan(&self) -> Arc<Snapshot>;

    /// What is known.
    fn known(&self) -> Arc<Snapshot>;

    /// Looks at these files.
    fn look_at(&self, files: &[PathBuf]);

    /// Looks again at what was not whole yet.
    fn look_at_young(&self);

    /// Whether folders of other machines are others than is known, or have answered that did not. May wait for them.
    fn is_other_elsewhere(&self) -> bool;
}

/// What tells of changes in one folder.
trait Notifier {
    /// Watches a folder, also one that is watched already.
    fn watch(&mut self, folder: &Path) -> Result<(), String>;

    /// No longer.
    fn unwatch(&mut self, folder: &Path);
}

impl Notifier for RecommendedWatcher {
    fn watch(&mut self, folder: &Path) -> Result<(), String> {
        Watcher::watch(self, folder, RecursiveMode::NonRecursive).map_err(|error| match error.kind {
            notify::ErrorKind::MaxFilesWatch => {
                "the system's limit of watches is reached; raise fs.inotify.max_user_watches".to_owned()
            }
            _ => error.to_string(),
        })
    }

    fn unwatch(&mut self, folder: &Path) {
        // It may be gone, and its watch with it.
        Watcher::unwatch(self, folder).ok();
    }
}

/// The folders that are watched.
struct Watching<N> {
    notifier: Option<N>,
    /// By device and inode: two paths of one folder share one watch.
    folders: BTreeMap<(u64, u64), PathBuf>,
    /// Whether the log says that something is not watched.
    told: bool,
}

/// What came of watching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Followed {
    /// Everything is.
    all: bool,
    /// Something is that was not before.
    more: bool,
}

impl<N: Notifier> Watching<N> {
    fn new(notifier: Option<N>) -> Self {
        Self { notifier, folders: BTreeMap::new(), told: false }
    }

    /// Watches what a scan found, and nothing else.
    fn follow(&mut self, snapshot: &Snapshot) -> Followed {
        let Some(notifier) = &mut self.notifier else {
            return Followed { all: false, more: false };
        };
        let is_told_of = |folder: &&Folder| !folder.remote && !snapshot.is_silent(&folder.path);
        let folders = snapshot.folders.iter().filter(is_told_of);
        let found = folders.filter_map(|folder| Some((folder.stamp?, &folder.path)));
        let mut wanted = BTreeMap::new();
        for (stamp, path) in found {
            wanted.entry(stamp.place()).or_insert_with(|| path.clone());
        }
        let is_here = |folder: &&Path| snapshot.is_here(folder);
        for folder in snapshot.linked.iter().filter_map(|file| file.parent()).filter(is_here) {
            if let Some(stamp) = Stamp::at(folder) {
                wanted.entry(stamp.place()).or_insert_with(|| folder.to_owned());
            }
        }
        for (place, path) in &self.folders {
            if wanted.get(place) != Some(path) {
                notifier.unwatch(path);
            }
        }
        let before = std::mem::take(&mut self.folders);
        let (mut refused, mut gone) = (None, false);
        for (place, path) in wanted {
            // Again also where it was: a folder that was removed and made anew may have its old number.
            match notifier.watch(&path) {
                Ok(()) => drop(self.folders.insert(place, path)),
                // Gone meanwhile: whoever removed it changed the folder it was in.
                Err(_) if !path.exists() => gone = true,
                Err(error) => refused = refused.or(Some((path, error))),
            }
        }
        // The end of a folder that was removed and made anew ends the watch on the new one too, if it is told late: what
        // happens until it is watched again shows in the folder alone.
        let is_other = |folder: &Folder| folder.stamp.is_some() && Stamp::at(&folder.path) != folder.stamp;
        let more = gone
            || self.folders.iter().any(|(place, path)| before.get(place) != Some(path))
            || snapshot.folders.iter().filter(is_told_of).any(is_other);
        match &refused {
            Some((path, error)) if !self.told => warn!(
                folder = %path.display(),
                error,
                "not all models folders can be watched; they are looked through every {} s instead",
                ALL_EVERY.as_secs()
            ),
            _ => (),
        }
        self.told = refused.is_some();
        Followed { all: refused.is_none(), more }
    }
}

/// Scans, then waits for changes, for as long as the process lives.
pub(super) fn run(watched: &impl Watched) {
    let (sender, changes) = mpsc::channel();
    // The channel stays open where there is no watcher.
    let _open = sender.clone();
    let watcher = notify::recommended_watcher(sender).inspect_err(|error| {
        warn!(%error, "folders cannot be watched; they are looked through every {} s", ALL_EVERY.as_secs());
    });
    let mut watching = Watching::new(watcher.ok());
    loop {
        let mut snapshot = watched.rescan();
        let mut followed = watching.follow(&snapshot);
        for _ in 0..ROUNDS {
            if !followed.more {
                break;
            }
            snapshot = watched.rescan();
            followed = watching.follow(&snapshot);
        }
        let polls = !followed.all || snapshot.has_loose_ends();
        if !wait(&changes, watched, &snapshot, polls) {
            return;
        }
    }
}

/// Waits until there is reason for another scan; false if there will be none.
fn wait(changes: &Changes, watched: &impl Watched, snapshot: &Snapshot, polls: bool) -> bool {
    let started = Instant::now();
    let is_elsewhere = snapshot.folders.iter().any(|folder| folder.remote) || snapshot.has_silent();
    let mut looked = Instant::now();
    loop {
        match changes.recv_timeout(ROOTS_EVERY) {
            Ok(Ok(event)) if !matters(&event, snapshot) => (),
            Ok(Ok(event)) => {
                let Some(files) = gather(event, changes, snapshot) else {
                    return true;
                };
                watched.look_at(&files);
            }
            Ok(Err(error)) => {
                warn!(%error, "watching the models folders");
                return true;
            }
            Err(RecvTimeoutError::Timeout) => (),
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        // What does not matter may come all the time.
        if looked.elapsed() < ROOTS_EVERY {
            continue;
        }
        looked = Instant::now();
        if watched.known().young().next().is_some() {
            watched.look_at_young();
        }
        let is_old = started.elapsed() >= if polls { ALL_EVERY } else { ELSEWHERE_EVERY };
        if ((polls || is_elsewhere) && is_old)
            || !snapshot.has_its_roots()
            || (is_elsewhere && watched.is_other_elsewhere())
        {
            return true;
        }
    }
}

/// Takes what comes with a change: files that are copied together are told of together. Gives the files that changed, if
/// nothing else did and they are few.
fn gather(first: Event, changes: &Changes, snapshot: &Snapshot) -> Option<Vec<PathBuf>> {
    let latest = Instant::now() + LATEST;
    let mut until = Instant::now() + QUIET;
    let mut files = files_of(first, snapshot);
    while let Some(rest) = until.min(latest).checked_duration_since(Instant::now()) {
        match changes.recv_timeout(rest) {
            Ok(Ok(event)) if !matters(&event, snapshot) => (),
            Ok(event) => {
                let more = event.ok().and_then(|event| files_of(event, snapshot));
                files = files.zip(more).map(|(files, more)| [files, more].concat());
                until = Instant::now() + QUIET;
            }
            Err(_) => break,
        }
    }
    let mut files = files?;
    files.sort();
    files.dedup();
    (files.len() <= FEW).then_some(files)
}

/// The files that an event is of; `None` if it is of anything else than weights that lie in a folder that was read.
fn files_of(event: Event, snapshot: &Snapshot) -> Option<Vec<PathBuf>> {
    let is_weights = |path: &Path| {
        let extension = extension(path);
        extension == "safetensors" || OTHER_FORMS.contains(&extension.as_str())
    };
    let is_in_folder = |path: &Path| {
        let is = |folder: &Folder| folder.is_read() && Some(folder.path.as_path()) == path.parent();
        snapshot.folders.iter().any(is)
            && !snapshot.folders.iter().any(|folder| folder.is_models_and_holds(path))
    };
    let is_plain = |path: &PathBuf| {
        is_weights(path)
            && is_in_folder(path)
            && !is_model(path.parent().unwrap_or(path))
            && std::fs::symlink_metadata(path).map_or(true, |found| found.is_file())
            && !snapshot.folders.iter().any(|folder| folder.path == *path)
    };
    let is_of_files = !event.need_rescan() && !event.paths.is_empty() && event.paths.iter().all(is_plain);
    is_of_files.then_some(event.paths)
}

fn matters(event: &Event, snapshot: &Snapshot) -> bool {
    let is_change = match event.kind {
        // Reading a file is an event too; what a scan does must not cause the next one. A file that was written is closed:
        // the moment a copy is whole.
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        // Each write: the end is told of too, and what stays open is looked at until it rests.
        EventKind::Modify(ModifyKind::Data(_)) => !cfg!(target_os = "linux"),
        _ => true,
    };
    let is_of_file = matches!(
        event.kind,
        EventKind::Access(_) | EventKind::Create(CreateKind::File) | EventKind::Remove(RemoveKind::File)
    );
    // What a folder has beside the files that links lead to is nothing to us: it may be one where much goes on.
    let is_others = |path: &PathBuf| {
        let is_beside = snapshot.linked.iter().any(|linked| linked.parent() == path.parent());
        is_beside
            && !snapshot.linked.contains(path)
            && !snapshot.folders.iter().any(|folder| Some(folder.path.as_path()) == path.parent())
    };
    let is_nothing = |path: &PathBuf| (is_of_file && !is_of_interest(path, snapshot)) || is_others(path);
    // An event without a path says that some were lost.
    is_change && (event.paths.is_empty() || !event.paths.iter().all(is_nothing))
}

/// Whether a file of this name may be of a model, or a link that leads to some, or did.
fn is_of_interest(path: &Path, snapshot: &Snapshot) -> bool {
    let extension = extension(path);
    extension == "safetensors"
        || path.is_symlink()
        || snapshot.folders.iter().any(|folder| folder.path == path || folder.is_models_and_holds(path))
        || snapshot.problems.iter().any(|problem| problem.path == path)
        || OTHER_FORMS.contains(&extension.as_str())
        || may_be_beside(&extension)
        || snapshot.linked.iter().any(|linked| linked == path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use notify::event::RenameMode;

    use super::*;
    use crate::library::places::Root;
    use crate::library::snapshot::Role;
    use crate::library::walk::{Progress, Visited, walk};

    /// Watches so many folders and no more.
    #[derive(Default)]
    struct Few {
        most: usize,
        watched: Vec<PathBuf>,
    }

    impl Notifier for Few {
        fn watch(&mut self, folder: &Path) -> Result<(), String> {
            if self.watched.iter().any(|path| path == folder) {
                return Ok(());
            }
            if self.watched.len() == self.most {
                return Err("the limit is reached".into());
            }
            self.watched.push(folder.to_owned());
            Ok(())
        }

        fn unwatch(&mut self, folder: &Path) {
            self.watched.retain(|path| path != folder);
        }
    }

    #[test]
    fn what_goes_on_beside_what_a_link_leads_to_is_nothing() {
        let folder = |path: &str| Folder {
            path: path.into(),
            stamp: None,
            rested: true,
            role: Role::Inside,
            remote: false,
        };
        let snapshot = Snapshot {
            folders: vec![folder("/m"), folder("/m/a")],
            linked: vec!["/store/x".into(), "/m/a/y".into()],
            ..Snapshot::default()
        };
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        for (kind, paths, expected) in [
            (written, &["/store/x"][..], true),
            (written, &["/store/other.ckpt"], false),
            (written, &["/store/other.ckpt", "/store/x"], true),
            (written, &["/m/other.ckpt"], true),
            (written, &["/m/a/other.json"], true),
            (written, &["/m/a/notes.txt"], false),
            (written, &[], true),
            (EventKind::Any, &["/m"], true),
            (EventKind::Create(CreateKind::File), &["/m/params.txt"], false),
            (EventKind::Create(CreateKind::Folder), &["/m/v1.txt"], true),
            (EventKind::Modify(ModifyKind::Name(RenameMode::To)), &["/m/v1.txt"], true),
            (EventKind::Access(AccessKind::Open(AccessMode::Read)), &["/m/x.ckpt"], false),
        ] {
            let paths_of = paths.iter().map(PathBuf::from).collect();
            let event = Event { kind, paths: paths_of, attrs: notify::event::EventAttributes::new() };
            assert_eq!(matters(&event, &snapshot), expected, "{kind:?} {paths:?}");
        }
    }

    fn snapshot(root: &Path) -> Snapshot {
        let root = Root::of_models(root.to_owned());
        let (parts, progress) = ([root.clone()], Progress::default());
        let walk = walk(&root, &parts, &[], Visited::new(), &progress);
        Snapshot { folders: walk.folders, linked: walk.linked, ..Snapshot::default() }
    }

    #[test]
    fn every_folder_is_watched_once_and_a_limit_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, elsewhere) = (folder.path().join("models"), folder.path().join("elsewhere"));
        for path in ["models/a/b", "elsewhere"] {
            fs::create_dir_all(folder.path().join(path)).expect("made");
        }
        fs::write(elsewhere.join("x.safetensors"), b"x").expect("written");
        for (target, link) in [("a", "loop"), ("../elsewhere/x.safetensors", "x.safetensors"), ("..", "a/up")]
        {
            std::os::unix::fs::symlink(target, root.join(link)).expect("linked");
        }
        let mut watching = Watching::new(Some(Few { most: 9, ..Few::default() }));
        assert_eq!(watching.follow(&snapshot(&root)), Followed { all: true, more: true });
        assert_eq!(watching.follow(&snapshot(&root)), Followed { all: true, more: false });
        let mut watched: Vec<_> = watching.folders.values().cloned().collect();
        watched.sort();
        assert_eq!(watched, [elsewhere, root.clone(), root.join("a"), root.join("a/b")]);
        assert!(!watching.told);

        // Folders that go are not watched, those that come are, and those that are too many are told of.
        fs::remove_dir(root.join("a/b")).expect("removed");
        assert_eq!(watching.follow(&snapshot(&root)), Followed { all: true, more: false });
        for index in 0..9 {
            fs::create_dir(root.join(format!("new-{index}"))).expect("made");
        }
        assert_eq!(watching.follow(&snapshot(&root)), Followed { all: false, more: true });
        assert!(watching.told);
        for index in 0..9 {
            fs::remove_dir(root.join(format!("new-{index}"))).expect("removed");
        }
        assert!(watching.follow(&snapshot(&root)).all && !watching.told);
        // What belongs to a model that is a folder is watched, as deep as it is read.
        fs::create_dir_all(root.join("model/a/b/c/d")).expect("made");
        fs::create_dir(root.join("model/.cache")).expect("made");
        fs::write(root.join("model/model_index.json"), b"{}").expect("written");
        watching.notifier = Some(Few { most: 99, ..Few::default() });
        let found = snapshot(&root);
        assert_eq!(watching.follow(&found), Followed { all: true, more: true });
        let watched = watching.notifier.as_ref().map(|few| few.watched.clone()).unwrap_or_default();
        let models = watched.iter().filter_map(|path| path.strip_prefix(root.join("model")).ok());
        let mut models: Vec<_> = models.filter_map(Path::to_str).collect();
        models.sort_unstable();
        assert_eq!(models, ["", "a", "a/b", "a/b/c"]);
        // What comes into it is no file by itself: all is looked at.
        for (path, is_file) in [("model/a/x.safetensors", false), ("a/x.safetensors", true)] {
            let kind = EventKind::Access(AccessKind::Close(AccessMode::Write));
            let event = Event::new(kind).add_path(root.join(path));
            assert!(matters(&event, &found), "{path}");
            assert_eq!(files_of(event, &found).is_some(), is_file, "{path}");
        }
        let none = Watching::<Few>::new(None).follow(&snapshot(&root));
        assert_eq!(none, Followed { all: false, more: false });
    }
}
