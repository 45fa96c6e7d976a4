//! From the files that are there to entries and problems: what is known of a file is not looked up again.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use latentd_client::protocol::LibraryKind;
use latentd_models::files::open_without_waiting;
use tracing::{debug, info};

use super::index::{Index, Verdicts};
use super::item::Item;
use super::judge::{Candidate, Found, Verdict, judge, sort_in};
use super::natural;
use super::places::{extension, may_be, outermost_kind};
use super::snapshot::{Problem, Snapshot};
use super::stamp::{Seen, Stamp};
use super::walk::{look_at, walk};
use crate::error::Class;

/// What was found in files that the index did not know.
type Learnt = Vec<(PathBuf, Seen, Verdict)>;

/// Walks all folders. Files that the index knows as they are, are not opened.
pub(super) fn scan(folders: &[PathBuf], index: &Index, before: Option<&Snapshot>) -> Snapshot {
    let started = std::time::Instant::now();
    let walk = walk(folders);
    let known = index.verdicts();
    let mut learnt = Learnt::new();
    let mut snapshot = Snapshot {
        problems: walk.problems,
        folders: walk.folders,
        linked: walk.linked,
        ..Snapshot::default()
    };
    for candidate in &walk.candidates {
        match found(candidate, &known, before, &mut learnt) {
            Ok(item) => snapshot.entries.push(item),
            Err(problem) => snapshot.problems.push(*problem),
        }
    }
    index.remember(&learnt);
    arrange(folders, &mut snapshot);
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

/// The snapshot with what is at these paths now; `None` if that is what it says already.
pub(super) fn refreshed(
    folders: &[PathBuf],
    snapshot: &Snapshot,
    paths: &[PathBuf],
    index: &Index,
) -> Option<Snapshot> {
    // As text: comparing paths part by part costs more than all the rest, where there are thousands.
    let is_same = |a: &Path, b: &Path| a.as_os_str() == b.as_os_str();
    let is_at = |item: &Item, path: &Path| item.path().is_some_and(|at| is_same(at, path));
    let is_of = |problem: &Problem, path: &Path| is_same(&problem.path, path);
    let now: Vec<_> = paths.iter().map(|path| (path, found_at(folders, path, snapshot, index))).collect();
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
    };
    for (_, found) in now {
        match found {
            Some(Ok(item)) => after.entries.push(item),
            Some(Err(problem)) => after.problems.push(*problem),
            None => (),
        }
    }
    arrange(folders, &mut after);
    Some(after)
}

/// What a scan would say of one file: nothing if it would not be looked at.
fn found_at(folders: &[PathBuf], path: &Path, before: &Snapshot, index: &Index) -> Option<Found> {
    let found = look_at(path, outermost_kind(folders, path))?.and_then(|candidate| {
        let mut learnt = Learnt::new();
        let found = found(&candidate, &index.verdict(path), Some(before), &mut learnt);
        index.remember(&learnt);
        found
    });
    Some(found)
}

/// The entry of a file: from what is known of it, or from a look into it.
fn found(candidate: &Candidate, known: &Verdicts, before: Option<&Snapshot>, learnt: &mut Learnt) -> Found {
    let refuse = |reason| {
        let (path, seen) = (candidate.path.clone(), Some(candidate.seen));
        Err(Box::new(Problem { path, reason, class: Class::Model, seen }))
    };
    let extension = extension(&candidate.path);
    if extension != "safetensors" {
        return refuse(format!("'.{extension}' files are not read yet; convert it to .safetensors"));
    }
    if let Some(verdict) = known.get(&candidate.path, &candidate.seen) {
        return sort_in(candidate, verdict);
    }
    // Where there is no memory, or no file can be opened just now, what was said of the same file is still true.
    let said = || before.and_then(|before| before.entry_of(&candidate.path, &candidate.seen)).cloned();
    // Not remembered: giving the right to read changes no byte.
    let file = match open_without_waiting(&candidate.path) {
        Ok(file) => file,
        Err(error) => {
            let lasts = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound);
            let said = if lasts { None } else { said() };
            return said.map_or_else(|| refuse(format!("cannot be read: {error}")), Ok);
        }
    };
    let (verdict, lasts) = judge(&file, &candidate.path);
    if !lasts && let Some(item) = said() {
        return Ok(item);
    }
    // What was put in its place before it was opened is another file than the one that was seen.
    let is_seen = file.metadata().is_ok_and(|now| Stamp::of(&now) == candidate.seen.file);
    if lasts && is_seen && Seen::at(&candidate.path) == Some(candidate.seen) {
        learnt.push((candidate.path.clone(), candidate.seen, verdict.clone()));
    }
    sort_in(candidate, verdict)
}

/// Puts entries and problems in their order, with what is built in where no file has its name.
pub(super) fn arrange(folders: &[PathBuf], snapshot: &mut Snapshot) {
    snapshot.entries.retain(|item| !item.is_built_in());
    let built_in = Item::built_in().filter(|built_in| !is_taken(folders, snapshot, &built_in.name));
    snapshot.entries.extend(built_in);
    let by_path = |a: &Path, b: &Path| natural::compare(&a.to_string_lossy(), &b.to_string_lossy());
    snapshot.entries.sort_by(|a, b| {
        let place = |item: &Item| item.path().unwrap_or(Path::new("")).to_owned();
        let by_name = || natural::compare(&a.name, &b.name);
        a.kind.cmp(&b.kind).then_with(by_name).then_with(|| by_path(&place(a), &place(b)))
    });
    snapshot.problems.sort_by(|a, b| by_path(&a.path, &b.path));
}

/// Whether a checkpoint has this name, also one that cannot be used: who asks for it means that file.
fn is_taken(folders: &[PathBuf], snapshot: &Snapshot, name: &str) -> bool {
    let is_entry = |item: &Item| item.kind == LibraryKind::Checkpoint && item.name == name;
    let is_problem = |problem: &Problem| {
        may_be(LibraryKind::Checkpoint, folders, &problem.path)
            && problem.path.file_stem().is_some_and(|stem| stem == name)
    };
    snapshot.entries.iter().any(is_entry) || snapshot.problems.iter().any(is_problem)
}
