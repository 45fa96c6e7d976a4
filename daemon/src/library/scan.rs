//! From the files that are there to entries and problems: what is known of a file is not looked up again.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use latentd_client::protocol::LibraryKind;
use latentd_models::files::open_without_waiting;
use tracing::{debug, info};

use super::index::{Index, Verdicts};
use super::item::{Item, Source};
use super::judge::{Candidate, Found, Verdict, judge, sort_in};
use super::layout::parts;
use super::natural;
use super::places::{Root, may_be, outermost_kind};
use super::roots::Askers;
use super::snapshot::{Ground, Problem, Snapshot};
use super::stamp::{Seen, Stamp};
use super::walk::{Progress, Visited, look_at, walk};
use crate::error::Class;
use crate::thread;

/// What was written to within this time may still be on its way.
const YOUNG: Duration = Duration::from_secs(2);

/// What was found in files that the index did not know.
type Learnt = Vec<(PathBuf, Seen, Verdict)>;

/// What is known before a scan.
struct Known {
    before: Option<Arc<Snapshot>>,
    /// Places in its entries, by the hash of their paths.
    places: HashMap<u64, u32>,
    hasher: RandomState,
    /// All of the index, if nothing was scanned before: read while the folders are walked.
    verdicts: OnceLock<Verdicts>,
    reading: Mutex<Option<JoinHandle<Verdicts>>>,
    index: Arc<Index>,
}

/// What one folder of the settings has.
struct Part {
    roots: Vec<Root>,
    snapshot: Snapshot,
    visited: Visited,
    learnt: Learnt,
}

impl Known {
    fn new(index: &Arc<Index>, before: Option<&Arc<Snapshot>>) -> Self {
        let (hasher, read) = (RandomState::new(), Arc::clone(index));
        let reading = match before {
            Some(_) => None,
            None => thread::start("index", move || read.verdicts()).ok(),
        };
        let entries = before.iter().flat_map(|before| before.entries.iter()).zip(0..);
        let places =
            entries.filter_map(|(item, place)| Some((hasher.hash_one(item.path()?.as_os_str()), place)));
        Self {
            before: before.cloned(),
            places: places.collect(),
            hasher,
            verdicts: OnceLock::new(),
            reading: Mutex::new(reading),
            index: Arc::clone(index),
        }
    }

    /// What was said before of a file that is as it was.
    fn item(&self, path: &Path, seen: &Seen) -> Option<&Item> {
        let place = *self.places.get(&self.hasher.hash_one(path.as_os_str()))?;
        let item = self.before.as_ref()?.entries.get(place as usize)?;
        matches!(&item.source, Source::File { path: at, seen: of } if of == seen && at.as_os_str() == path.as_os_str())
            .then_some(item)
    }

    /// All of the index.
    fn verdicts(&self) -> &Verdicts {
        self.verdicts.get_or_init(|| {
            let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Without a thread for it, or one that failed.
            let read = reading.and_then(|reading| reading.join().ok());
            read.unwrap_or_else(|| self.index.verdicts())
        })
    }

    fn verdict(&self, path: &Path, seen: &Seen) -> Option<Verdict> {
        match &self.before {
            Some(_) => self.index.verdict(path).get(path, seen),
            None => self.verdicts().get(path, seen),
        }
    }
}

/// Walks all folders, each on another thread, so that one that does not answer holds up none of the others. Files that are
/// known as they are, are not opened.
pub(super) fn scan(
    roots: &[Root],
    askers: &Askers,
    index: &Arc<Index>,
    before: Option<&Arc<Snapshot>>,
) -> Snapshot {
    let started = std::time::Instant::now();
    let known = Arc::new(Known::new(index, before));
    let mut snapshot = Snapshot::default();
    let (mut visited, mut learnt, mut grounds) = (Visited::new(), Learnt::new(), Vec::new());
    for (place, root) in roots.iter().enumerate() {
        let others = roots.iter().zip(0..).filter(|(_, other)| *other != place).map(|(root, _)| root.clone());
        let (root_of, others, known) = (root.clone(), others.collect::<Vec<_>>(), Arc::clone(&known));
        let visited_of = visited.clone();
        let look = move |progress: &Progress| scan_root(&root_of, &others, visited_of, &known, progress);
        match askers.ask(root, look) {
            Some(part) => {
                visited = part.visited;
                learnt.extend(part.learnt);
                grounds.push(Ground { root: root.clone(), parts: part.roots, silent: false });
                snapshot.entries.extend(part.snapshot.entries);
                snapshot.problems.extend(part.snapshot.problems);
                snapshot.folders.extend(part.snapshot.folders);
                snapshot.linked.extend(part.snapshot.linked);
            }
            None => grounds.push(keep(root, before.map(|before| &**before), &mut snapshot)),
        }
    }
    snapshot.roots = grounds.iter().flat_map(|ground| ground.parts.iter().cloned()).collect();
    snapshot.grounds = grounds.into();
    learn(index, before.map(|before| &**before), &snapshot, &learnt);
    arrange(&mut snapshot);
    let (entries, problems, read) = (snapshot.entries.len(), snapshot.problems.len(), learnt.len());
    let ms = started.elapsed().as_millis() as u64;
    let is_news = before.is_none_or(|before| {
        before.entries != snapshot.entries || before.problems != snapshot.problems || read > 0
    });
    if is_news {
        info!(entries, problems, read, ms, "scanned the models folders");
    } else {
        debug!(entries, problems, ms, "scanned the models folders, and nothing changed");
    }
    snapshot
}

/// Keeps what was found in files. Those that moved keep their digests.
fn learn(index: &Index, before: Option<&Snapshot>, now: &Snapshot, learnt: &Learnt) {
    index.remember(learnt);
    let stamps: Vec<_> = learnt.iter().map(|(path, seen, _)| (path.clone(), seen.file)).collect();
    index.carry(&stamps, |path, stamp| {
        let was_elsewhere = |source: &Source| {
            matches!(source, Source::File { path: at, seen }
                if at.as_os_str() == path.as_os_str() && seen.file.device != stamp.device)
        };
        let is_gone = || match now.elsewhere(path) {
            // Those who look there have told.
            Some(_) => !now.entries.iter().any(|item| item.path() == Some(path)),
            None => Stamp::at(path).is_none_or(|now| now.place() != stamp.place()),
        };
        !before.is_some_and(|before| before.entries.iter().any(|item| was_elsewhere(&item.source)))
            && !now.is_silent(path)
            && is_gone()
    });
}

/// One folder of the settings.
fn scan_root(root: &Root, others: &[Root], visited: Visited, known: &Known, progress: &Progress) -> Part {
    let roots = parts(root);
    let walk = walk(root, &roots, others, visited, progress);
    let mut learnt = Learnt::new();
    let (problems, folders, linked) = (walk.problems, walk.folders, walk.linked);
    let mut snapshot = Snapshot { problems, folders, linked, ..Snapshot::default() };
    for candidate in &walk.candidates {
        progress.step();
        match found(candidate, known, &mut learnt) {
            Some(Ok(item)) => snapshot.entries.push(item),
            Some(Err(problem)) => snapshot.problems.push(*problem),
            None => (),
        }
    }
    Part { roots, snapshot, visited: walk.visited, learnt }
}

/// What was known of a folder that does not answer.
fn keep(root: &Root, before: Option<&Snapshot>, snapshot: &mut Snapshot) -> Ground {
    let mut parts = vec![root.clone()];
    if let Some(before) = before {
        let is_in = |path: &Path| before.ground_of(path).is_some_and(|ground| ground.root == *root);
        if let Some(ground) = before.grounds.iter().find(|ground| ground.root == *root) {
            parts.clone_from(&ground.parts);
        }
        let entries = before.entries.iter().filter(|item| item.path().is_some_and(is_in));
        snapshot.entries.extend(entries.cloned());
        let problems = before.problems.iter().filter(|problem| is_in(&problem.path));
        snapshot.problems.extend(problems.filter(|problem| problem.path != root.path).cloned());
        snapshot.folders.extend(before.folders.iter().filter(|folder| is_in(&folder.path)).cloned());
    }
    let reason = "this models folder does not answer; see whether its disk or server is there".to_owned();
    let (path, class) = (root.path.clone(), Class::Model);
    snapshot.problems.push(Problem { path, reason, class, seen: None, young: false, loose: false });
    Ground { root: root.clone(), parts, silent: true }
}

/// The snapshot with what is at these paths now; `None` if that is what it says already.
pub(super) fn refreshed(snapshot: &Arc<Snapshot>, paths: &[PathBuf], index: &Arc<Index>) -> Option<Snapshot> {
    if paths.is_empty() {
        return None;
    }
    // As text: comparing paths part by part costs more than all the rest, where there are thousands.
    let is_same = |a: &Path, b: &Path| a.as_os_str() == b.as_os_str();
    let is_at = |item: &Item, path: &Path| item.path().is_some_and(|at| is_same(at, path));
    let is_of = |problem: &Problem, path: &Path| is_same(&problem.path, path);
    let known = Known {
        before: Some(Arc::clone(snapshot)),
        places: HashMap::new(),
        hasher: RandomState::new(),
        verdicts: OnceLock::new(),
        reading: Mutex::default(),
        index: Arc::clone(index),
    };
    let now: Vec<_> = paths.iter().map(|path| (path, found_at(&snapshot.roots, path, &known))).collect();
    let is_known = |(path, found): &(&PathBuf, Option<Found>)| match found {
        Some(Ok(found)) => snapshot.entries.contains(found),
        Some(Err(found)) => snapshot.problems.contains(&**found),
        None => {
            !snapshot.entries.iter().any(|item| is_at(item, path))
                && !snapshot.problems.iter().any(|problem| is_of(problem, path))
        }
    };
    if now.iter().all(is_known) {
        return None;
    }
    let entries = snapshot.entries.iter().filter(|item| !paths.iter().any(|path| is_at(item, path)));
    let problems = snapshot.problems.iter().filter(|problem| !paths.iter().any(|path| is_of(problem, path)));
    let mut after = Snapshot {
        entries: entries.cloned().collect(),
        problems: problems.cloned().collect(),
        folders: snapshot.folders.clone(),
        linked: snapshot.linked.clone(),
        roots: Arc::clone(&snapshot.roots),
        grounds: Arc::clone(&snapshot.grounds),
    };
    for (_, found) in now {
        match found {
            Some(Ok(item)) => after.entries.push(item),
            Some(Err(problem)) => after.problems.push(*problem),
            None => (),
        }
    }
    arrange(&mut after);
    Some(after)
}

/// What a scan would say of one file: nothing if it would not be looked at.
fn found_at(roots: &[Root], path: &Path, known: &Known) -> Option<Found> {
    let is_part =
        |before: &Arc<Snapshot>| before.folders.iter().any(|folder| folder.is_models_and_holds(path));
    if known.before.as_ref().is_some_and(is_part) {
        return None;
    }
    let candidate = match look_at(path, outermost_kind(roots, path))? {
        Ok(candidate) => candidate,
        Err(problem) => return Some(Err(problem)),
    };
    let mut learnt = Learnt::new();
    let found = found(&candidate, known, &mut learnt);
    if let Some(before) = known.before.as_deref() {
        learn(&known.index, Some(before), before, &learnt);
    }
    found
}

/// The entry of a file: from what is known of it, or from a look into it. Nothing if it is of no interest.
fn found(candidate: &Candidate, known: &Known, learnt: &mut Learnt) -> Option<Found> {
    let refuse = |reason| {
        let (path, seen) = (candidate.path.clone(), Some(candidate.seen));
        Err(Box::new(Problem { path, reason, class: Class::Model, seen, young: false, loose: false }))
    };
    if let Some(item) = known.item(&candidate.path, &candidate.seen) {
        return Some(Ok(Item { beside: candidate.beside, ..item.clone() }));
    }
    if let Some(verdict) = known.verdict(&candidate.path, &candidate.seen) {
        return sort_in(candidate, verdict);
    }
    // Where there is no memory, or no file can be opened just now, what was said of the same file is still true.
    let said = || {
        let before = known.before.as_ref();
        before.and_then(|before| before.entry_of(&candidate.path, &candidate.seen)).cloned()
    };
    // Not remembered: giving the right to read changes no byte.
    let file = match open_without_waiting(&candidate.path) {
        Ok(file) => file,
        Err(error) => {
            let lasts = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound);
            let said = if lasts { None } else { said() };
            return Some(said.map_or_else(|| refuse(format!("cannot be read: {error}")), Ok));
        }
    };
    let (verdict, lasts) = judge(&file, &candidate.path, candidate.folder);
    if !lasts && let Some(item) = said() {
        return Some(Ok(item));
    }
    let may_be_under_way =
        matches!(verdict, Verdict::Broken(Class::Model, _)) && is_young(&candidate.seen.file);
    // What was put in its place before it was opened is another file than the one that was seen.
    let is_seen = Seen::at(&candidate.path) == Some(candidate.seen)
        && file.metadata().is_ok_and(|now| Seen::of(&now, &candidate.path) == candidate.seen);
    if lasts && is_seen && !may_be_under_way {
        learnt.push((candidate.path.clone(), candidate.seen, verdict.clone()));
    }
    let found = sort_in(candidate, verdict)?;
    Some(found.map_err(|mut problem| {
        if may_be_under_way {
            problem.reason =
                format!("was written to a moment ago and is not whole, or broken: {}", problem.reason);
            problem.young = true;
        }
        problem
    }))
}

/// Whether a file was written to a moment ago.
fn is_young(stamp: &Stamp) -> bool {
    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let modified_ns = u128::try_from(stamp.modified_ns.max(stamp.changed_ns)).unwrap_or_default();
    now_ns.abs_diff(modified_ns) < YOUNG.as_nanos()
}

/// Puts entries and problems in their order, with what is built in where no file has its name.
pub(super) fn arrange(snapshot: &mut Snapshot) {
    snapshot.entries.retain(|item| !item.is_built_in());
    let built_in = Item::built_in().filter(|built_in| !is_taken(snapshot, &built_in.name));
    snapshot.entries.extend(built_in);
    let by_path = |a: &Path, b: &Path| natural::compare(&a.to_string_lossy(), &b.to_string_lossy());
    snapshot.entries.sort_by(|a, b| {
        let by_name = || natural::compare(&a.name, &b.name);
        let by_place = || by_path(a.path().unwrap_or(Path::new("")), b.path().unwrap_or(Path::new("")));
        a.kind.cmp(&b.kind).then_with(by_name).then_with(by_place)
    });
    snapshot.problems.sort_by(|a, b| by_path(&a.path, &b.path));
}

/// Whether a checkpoint has this name, also one that cannot be used: who asks for it means that file.
fn is_taken(snapshot: &Snapshot, name: &str) -> bool {
    let is_entry = |item: &Item| item.kind == LibraryKind::Checkpoint && item.name == name;
    let is_problem = |problem: &Problem| {
        problem.path.file_stem().is_some_and(|stem| stem == name)
            && may_be(LibraryKind::Checkpoint, &snapshot.roots, &problem.path)
    };
    snapshot.entries.iter().any(is_entry) || snapshot.problems.iter().any(is_problem)
}
