//! From what a request calls a checkpoint or another file to the entry.

use std::path::{Component, Path, PathBuf};

use latentd_client::protocol::{LibraryKind, LibraryProblem};
use latentd_models::model::Family;

use super::index::Index;
use super::item::{Item, Source};
use super::scan::{may_be, places};
use super::snapshot::Snapshot;
use crate::demo;
use crate::error::{Class, Error, Result};
use crate::schema::shorten;
use crate::suggest::nearest_few;

/// Hex digits that a hash in a request has at least.
const HASH_DIGITS: usize = 8;

/// Finds the entry of `kind` that `wanted` means.
pub(super) fn find(
    folders: &[PathBuf],
    snapshot: &Snapshot,
    index: &Index,
    kind: LibraryKind,
    wanted: &str,
) -> Result<Item> {
    check_name(folders, kind, wanted)?;
    let of_kind = || snapshot.entries.iter().filter(|item| item.kind == kind);
    let by_name = of_kind().find(|item| item.name == wanted);
    let by_path = || of_kind().find(|item| item.path().is_some_and(|path| is_path_of(folders, path, wanted)));
    let by_hash = || {
        let digits = wanted.len() >= HASH_DIGITS && wanted.chars().all(|digit| digit.is_ascii_hexdigit());
        let wanted = wanted.to_lowercase();
        of_kind()
            .filter(|_| digits)
            .find(|item| known_sha256(index, item).is_some_and(|sha256| sha256.starts_with(&wanted)))
    };
    if let Some(item) = by_name.or_else(by_path).or_else(by_hash) {
        return Ok(item.clone());
    }
    let meant = |problem: &&LibraryProblem| {
        let path = Path::new(&problem.path);
        may_be(kind, folders, path) && is_problem(folders, path, wanted)
    };
    if let Some(problem) = snapshot.problems.iter().find(meant) {
        return Err(Error::new(
            Class::Model,
            format!("{kind} '{}' cannot be used: {}: {}", shorten(wanted), problem.path, problem.reason),
        ));
    }
    let near = nearest_few(wanted, of_kind().map(|item| item.name.as_str()), 3);
    let advice = if !near.is_empty() {
        format!("known: {}", near.join(", "))
    } else if of_kind().next().is_some() {
        "`latentd models list` names all".into()
    } else {
        how_to_add(folders, kind)
    };
    Err(Error::new(Class::NotFound, format!("{kind} '{}' is not in the library; {advice}", shorten(wanted))))
}

/// Files that `wanted` may mean, whatever the snapshot says of them: those that it knows under this name, and those
/// that stand where one of this name would.
pub(super) fn candidates(
    folders: &[PathBuf],
    snapshot: &Snapshot,
    kind: LibraryKind,
    wanted: &str,
) -> Vec<PathBuf> {
    let named = |path: &Path| is_problem(folders, path, wanted);
    let entries = snapshot.entries.iter().filter(|item| item.kind == kind).filter_map(Item::path);
    let problems = snapshot.problems.iter().map(|problem| Path::new(&problem.path));
    let mut paths: Vec<_> = entries.chain(problems).filter(|path| named(path)).map(Path::to_owned).collect();
    paths.extend(places(folders, kind, wanted));
    paths.sort();
    paths.dedup();
    paths
}

/// The first checkpoint of the models folders by name that this version can draw with.
pub(super) fn first_checkpoint(folders: &[PathBuf], snapshot: &Snapshot) -> Result<Item> {
    let is_wanted = |item: &&Item| item.draws() && !item.is_built_in();
    snapshot.entries.iter().find(is_wanted).cloned().ok_or_else(|| {
        let advice = how_to_add(folders, LibraryKind::Checkpoint);
        let broken = first_problem(folders, snapshot);
        Error::new(Class::NotFound, format!("no checkpoint to draw with in the library{broken}; {advice}"))
    })
}

/// Says that there is no checkpoint but what is built in, and how to add one.
pub(super) fn only_built_in(folders: &[PathBuf], snapshot: &Snapshot) -> String {
    format!(
        "no checkpoint to draw with is configured or in the library{}: using the built-in '{}', which knows shapes \
         and cartoon faces only; {}",
        first_problem(folders, snapshot),
        demo::NAME,
        how_to_add(folders, LibraryKind::Checkpoint)
    )
}

/// Why there may be fewer checkpoints in the library than its owner thinks.
fn first_problem(folders: &[PathBuf], snapshot: &Snapshot) -> String {
    let is_near =
        |problem: &&LibraryProblem| may_be(LibraryKind::Checkpoint, folders, Path::new(&problem.path));
    let is_other = |item: &&Item| item.kind == LibraryKind::Checkpoint && !item.draws();
    if let Some(problem) = snapshot.problems.iter().find(is_near) {
        format!(" ({}: {})", problem.path, problem.reason)
    } else if let Some(item) = snapshot.entries.iter().find(is_other) {
        let architecture = item.facts.architecture.as_deref().unwrap_or("unknown");
        format!(" ('{}' is of the architecture {architecture}, not {})", item.name, Family::names())
    } else {
        String::new()
    }
}

/// The entry's SHA-256 in hex, if it was ever computed.
pub(super) fn known_sha256(index: &Index, item: &Item) -> Option<String> {
    match &item.source {
        Source::File { path, stamp, .. } => index.sha256(path, *stamp),
        Source::BuiltIn(demo) => Some(demo.sha256.to_owned()),
    }
}

/// Refuses names that could mean a place outside the models folders.
fn check_name(folders: &[PathBuf], kind: LibraryKind, wanted: &str) -> Result<()> {
    let refuse = |what: &str| {
        let shown = shorten(wanted);
        Err(Error::new(
            Class::InvalidParams,
            format!("{kind} '{shown}' {what}; give a name from library.list"),
        ))
    };
    let path = Path::new(wanted);
    if wanted.is_empty() {
        return refuse("is empty");
    }
    if wanted.contains('\0') {
        return refuse("has a NUL character");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return refuse("has '..' in it");
    }
    if path.is_absolute() && !folders.iter().any(|folder| path.starts_with(folder)) {
        return refuse("is a path outside the models folders");
    }
    Ok(())
}

/// Whether `wanted` is this file's path, absolute or inside a models folder, with or without extension.
fn is_path_of(folders: &[PathBuf], path: &Path, wanted: &str) -> bool {
    let wanted = Path::new(wanted);
    // Most paths are told apart by their last part alone.
    if wanted.file_name() != path.file_name() && wanted.file_name() != path.file_stem() {
        return false;
    }
    let bare = path.with_extension("");
    let named = |base: &Path| wanted == base;
    named(path)
        || named(&bare)
        || folders.iter().any(|folder| {
            path.strip_prefix(folder).is_ok_and(named) || bare.strip_prefix(folder).is_ok_and(named)
        })
        || path.file_name().is_some_and(|name| name == wanted.as_os_str())
}

fn is_problem(folders: &[PathBuf], path: &Path, wanted: &str) -> bool {
    is_path_of(folders, path, wanted) || path.file_stem().is_some_and(|stem| stem == wanted)
}

fn how_to_add(folders: &[PathBuf], kind: LibraryKind) -> String {
    let folder = folders.first().map_or_else(
        || PathBuf::from("a models folder"),
        |folder| {
            if kind == LibraryKind::Checkpoint { folder.join("Stable-diffusion") } else { folder.clone() }
        },
    );
    format!("put a .safetensors file into {}, or give --models-dir", folder.display())
}
