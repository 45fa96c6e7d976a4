//! One walk over the models folders.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use latentd_client::protocol::{LibraryKind, LibraryProblem};
use latentd_models::files::{self, FileKind};
use tracing::{debug, info};

use super::index::{Index, Verdict};
use super::item::{Facts, Item, Source, Stamp};
use super::snapshot::Snapshot;

/// A1111's folders, for files whose content does not tell their kind.
const FOLDERS: [(&str, LibraryKind); 16] = [
    ("stable-diffusion", LibraryKind::Checkpoint),
    ("vae", LibraryKind::Vae),
    ("vae-approx", LibraryKind::Taesd),
    ("lora", LibraryKind::Lora),
    ("lycoris", LibraryKind::Lora),
    ("embeddings", LibraryKind::Embedding),
    ("hypernetworks", LibraryKind::Hypernetwork),
    ("controlnet", LibraryKind::Controlnet),
    ("esrgan", LibraryKind::Upscaler),
    ("realesrgan", LibraryKind::Upscaler),
    ("swinir", LibraryKind::Upscaler),
    ("dat", LibraryKind::Upscaler),
    ("hat", LibraryKind::Upscaler),
    ("ldsr", LibraryKind::Upscaler),
    ("adetailer", LibraryKind::Detector),
    ("faces", LibraryKind::Face),
];

/// Weights in forms that are not read yet.
const UNREAD: [&str; 6] = ["ckpt", "pt", "pth", "bin", "gguf", "onnx"];

/// Folders inside folders that are looked into: enough for any collection, an end for anything odd.
const DEPTH: usize = 16;

/// What is said of a models folder that is not there.
pub(crate) const NO_FOLDER: &str =
    "this models folder is not there; make it, or correct its path in the settings";

/// A file with a weights' name.
struct Candidate {
    path: PathBuf,
    stamp: Stamp,
    /// The kind its folder stands for, if it is one of A1111's.
    folder: Option<LibraryKind>,
}

/// Walks all folders. Files that the index knows, with the same size and time, are not opened.
pub(super) fn scan(folders: &[PathBuf], index: &Index) -> Snapshot {
    let started = std::time::Instant::now();
    let mut walk = Walk { candidates: Vec::new(), visited: HashSet::new() };
    for folder in folders {
        walk.folder(folder, None, DEPTH);
    }
    let known = index.verdicts();
    let mut snapshot = Snapshot::default();
    let mut learnt = Vec::new();
    for candidate in &walk.candidates {
        let judged = readable(candidate).map(|()| judge(candidate, &known, &mut learnt));
        match judged.and_then(|verdict| sort_in(candidate, verdict)) {
            Ok(item) => snapshot.entries.push(item),
            Err(reason) => {
                snapshot.problems.push(LibraryProblem { path: candidate.path.display().to_string(), reason });
            }
        }
    }
    for folder in folders.iter().filter(|folder| !folder.is_dir()) {
        let (path, reason) = (folder.display().to_string(), NO_FOLDER.into());
        snapshot.problems.push(LibraryProblem { path, reason });
    }
    index.remember(&learnt);
    let snapshot = arrange(folders, snapshot);
    info!(
        entries = snapshot.entries.len(),
        problems = snapshot.problems.len(),
        read = learnt.len(),
        ms = started.elapsed().as_millis() as u64,
        "scanned the models folders"
    );
    snapshot
}

/// What a scan would say of one file: nothing if it would not be looked at.
pub(super) fn look_at(
    folders: &[PathBuf],
    path: &Path,
    index: &Index,
) -> Option<Result<Item, LibraryProblem>> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut walk = Walk { candidates: Vec::new(), visited: HashSet::new() };
    walk.file(path.to_owned(), &metadata, outermost_kind(folders, path));
    let candidate = walk.candidates.pop()?;
    let mut learnt = Vec::new();
    let judged = readable(&candidate).map(|()| judge(&candidate, &index.verdict(path), &mut learnt));
    index.remember(&learnt);
    let problem = |reason| LibraryProblem { path: path.display().to_string(), reason };
    Some(judged.and_then(|verdict| sort_in(&candidate, verdict)).map_err(problem))
}

/// The entries and problems in their order, with what is built in where no file has its name.
fn arrange(folders: &[PathBuf], mut snapshot: Snapshot) -> Snapshot {
    snapshot.entries.retain(|item| !item.is_built_in());
    snapshot
        .entries
        .extend(Item::built_in().filter(|built_in| !is_taken(folders, &snapshot, &built_in.name)));
    snapshot.entries.sort_by(|a, b| (a.kind, &a.name, a.path()).cmp(&(b.kind, &b.name, b.path())));
    snapshot.problems.sort_by(|a, b| a.path.cmp(&b.path));
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
    let is_at = |item: &Item, path: &Path| item.path().is_some_and(|at| at.as_os_str() == path.as_os_str());
    let is_of = |problem: &LibraryProblem, path: &Path| path.as_os_str() == problem.path.as_str();
    let now: Vec<_> = paths.iter().map(|path| (path, look_at(folders, path, index))).collect();
    let is_known = |(path, found): &(&PathBuf, Option<Result<Item, LibraryProblem>>)| match found {
        Some(Ok(found)) => snapshot.entries.contains(found),
        Some(Err(found)) => snapshot.problems.contains(found),
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
    let mut after = Snapshot { entries: entries.cloned().collect(), problems: problems.cloned().collect() };
    for (_, found) in now {
        match found {
            Some(Ok(item)) => after.entries.push(item),
            Some(Err(problem)) => after.problems.push(problem),
            None => (),
        }
    }
    Some(arrange(folders, after))
}

/// Whether a checkpoint has this name, also one that cannot be used: who asks for it means that file.
fn is_taken(folders: &[PathBuf], snapshot: &Snapshot, name: &str) -> bool {
    let is_entry = |item: &Item| item.kind == LibraryKind::Checkpoint && item.name == name;
    let is_problem = |problem: &LibraryProblem| {
        let path = Path::new(&problem.path);
        may_be(LibraryKind::Checkpoint, folders, path) && path.file_stem().is_some_and(|stem| stem == name)
    };
    snapshot.entries.iter().any(is_entry) || snapshot.problems.iter().any(is_problem)
}

/// Whether a file that cannot be read might be meant for this kind: it lies in no folder for anything else.
pub(super) fn may_be(kind: LibraryKind, folders: &[PathBuf], path: &Path) -> bool {
    outermost_kind(folders, path).is_none_or(|folder| folder == kind)
}

/// The kind of the outermost of A1111's folders that the file lies in: as in the walk, that one decides.
fn outermost_kind(folders: &[PathBuf], path: &Path) -> Option<LibraryKind> {
    let inside = folders.iter().find_map(|folder| path.strip_prefix(folder).ok()).unwrap_or(path);
    inside.ancestors().skip(1).filter_map(folder_kind).last()
}

/// Where a file of this kind and name would lie: in the models folders themselves, or in those of its kind in them. A
/// name may be a path inside a models folder. Only folders are read here, one each, however many files there are.
pub(super) fn places(folders: &[PathBuf], kind: LibraryKind, wanted: &str) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let mut add = |base: &Path| {
        let base = base.join(wanted);
        let with = |extension: &str| {
            let mut path = base.clone().into_os_string();
            path.push(".");
            path.push(extension);
            PathBuf::from(path)
        };
        let extensions = ["safetensors"].iter().chain(&UNREAD);
        places.extend(extensions.map(|extension| with(extension)).chain([base.clone()]));
    };
    for folder in folders {
        add(folder);
        let children = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        children.filter(|child| folder_kind(child) == Some(kind)).for_each(|child| add(&child));
    }
    places.retain(|path| fs::metadata(path).is_ok_and(|found| found.is_file()));
    places
}

/// Whether the file is of a form that is read at all.
fn readable(candidate: &Candidate) -> Result<(), String> {
    match extension(&candidate.path).as_str() {
        "safetensors" => Ok(()),
        other => Err(format!("'.{other}' files are not read yet; convert it to .safetensors")),
    }
}

/// What is in the file: from the index, or from its header.
fn judge(
    candidate: &Candidate,
    known: &HashMap<String, (Stamp, Verdict)>,
    learnt: &mut Vec<(String, Stamp, Verdict)>,
) -> Verdict {
    let key = candidate.path.to_str();
    if let Some((stamp, verdict)) = key.and_then(|key| known.get(key))
        && *stamp == candidate.stamp
    {
        return verdict.clone();
    }
    // Not remembered: giving the right to read changes neither size nor time.
    if let Err(error) = File::open(&candidate.path) {
        return Verdict::Broken(format!("cannot be read: {error}"));
    }
    let verdict = match files::inspect(&candidate.path) {
        Ok(found) => {
            let kind = match found.kind {
                FileKind::Checkpoint => Some(LibraryKind::Checkpoint),
                FileKind::Vae => Some(LibraryKind::Vae),
                FileKind::Lora => Some(LibraryKind::Lora),
                FileKind::Embedding => Some(LibraryKind::Embedding),
                FileKind::ControlNet => Some(LibraryKind::Controlnet),
                FileKind::Unknown => None,
            };
            Verdict::Sound(
                kind,
                Facts { architecture: found.architecture, dtype: found.dtype, parameters: found.parameters },
            )
        }
        // A file that is still being copied looks like this. Its size or time changes when it is whole.
        Err(error) => Verdict::Broken(without_path(&error.to_string(), &candidate.path)),
    };
    if let Some(key) = key {
        learnt.push((key.to_owned(), candidate.stamp, verdict.clone()));
    }
    verdict
}

/// The problem's list names the file already.
fn without_path(text: &str, path: &Path) -> String {
    text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(text).to_owned()
}

fn sort_in(candidate: &Candidate, verdict: Verdict) -> Result<Item, String> {
    let (kind, facts) = match verdict {
        Verdict::Sound(kind, facts) => (kind, facts),
        Verdict::Broken(reason) => return Err(reason),
    };
    let kind = match (kind, candidate.folder) {
        // These kinds have marks of their own; a file in their folder without them is not one.
        (None, Some(LibraryKind::Checkpoint | LibraryKind::Vae | LibraryKind::Lora) | None) => {
            return Err("its tensors are of no model that is known".into());
        }
        (Some(kind), _) | (None, Some(kind)) => kind,
    };
    let Some(name) = candidate.path.file_stem().and_then(|stem| stem.to_str()) else {
        return Err("its name is not UTF-8".into());
    };
    let config = Stamp::of_config(kind, &candidate.path);
    let source = Source::File { path: candidate.path.clone(), stamp: candidate.stamp, config };
    Ok(Item { kind, name: name.to_owned(), source, facts })
}

struct Walk {
    candidates: Vec<Candidate>,
    /// Real paths of folders that were entered: links may lead in circles.
    visited: HashSet<PathBuf>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, kind: Option<LibraryKind>, depth: usize) {
        let entries = match fs::canonicalize(folder).map(|real| self.visited.insert(real)) {
            Ok(false) => return,
            Ok(true) => fs::read_dir(folder),
            Err(error) => Err(error),
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                debug!(folder = %folder.display(), %error, "folder cannot be read");
                return;
            }
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            // Through links: a collection is often a folder of links.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if hidden {
                continue;
            }
            if metadata.is_dir() && depth > 0 {
                self.folder(&path, kind.or_else(|| folder_kind(&path)), depth - 1);
            } else if metadata.is_file() {
                self.file(path, &metadata, kind);
            }
        }
    }

    fn file(&mut self, path: PathBuf, metadata: &fs::Metadata, folder: Option<LibraryKind>) {
        let extension = extension(&path);
        // Outside A1111's folders only the form that is read is of interest; a .bin may be anything.
        let weights =
            extension == "safetensors" || (folder.is_some() && UNREAD.contains(&extension.as_str()));
        if weights {
            self.candidates.push(Candidate { path, stamp: Stamp::of(metadata), folder });
        }
    }
}

fn folder_kind(folder: &Path) -> Option<LibraryKind> {
    let name = folder.file_name()?.to_str()?.to_lowercase();
    FOLDERS.iter().find(|(each, _)| *each == name).map(|(_, kind)| *kind)
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase()
}
