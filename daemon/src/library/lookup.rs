//! From what a request calls a checkpoint or another file to the entry.

use std::path::{Path, PathBuf};

use latentd_client::protocol::LibraryKind;

use super::index::Index;
use super::item::{Item, Source};
use super::names::{as_hash, may_mean, named, split_hash, told_apart};
use super::places::{Root, may_be};
use super::snapshot::{Problem, Snapshot};
use crate::demo;
use crate::error::{Class, Error, Result};
use crate::schema::shorten;
use crate::suggest::nearest_few;

/// What is looked through.
#[derive(Clone, Copy)]
pub(super) struct Shelf<'a> {
    pub roots: &'a [Root],
    pub snapshot: &'a Snapshot,
    pub index: &'a Index,
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// This entry. With `bytes`, as it is and no other: its hash was asked for.
    Found { item: Box<Item>, bytes: bool },
    /// It has this hash, which one of these files may have: theirs are not known yet.
    Unhashed { hash: String, files: Vec<Item> },
}

/// Finds the entry of `kind` that `wanted`, a name that was checked, means.
pub(super) fn find(shelf: Shelf<'_>, kind: LibraryKind, wanted: &str) -> Result<Lookup> {
    let of_kind = || shelf.snapshot.entries.iter().filter(move |item| item.kind == kind);
    let by_name = named(shelf.roots, &of_kind(), wanted);
    if let [item] = by_name[..] {
        return Ok(Lookup::Found { item: Box::new(item.clone()), bytes: false });
    }
    if !by_name.is_empty() {
        return Err(ambiguous(shelf, kind, wanted, &by_name));
    }
    // What its trainer called it, where that is one file's alone.
    let mut by_alias: Vec<&Item> = vec![];
    for item in of_kind().filter(|item| item.facts.alias.as_deref() == Some(wanted)) {
        if !by_alias.iter().any(|other| other.is_same_file(item)) {
            by_alias.push(item);
        }
    }
    match by_alias[..] {
        [item] => return Ok(Lookup::Found { item: Box::new(item.clone()), bytes: false }),
        [] => (),
        _ => return Err(ambiguous(shelf, kind, wanted, &by_alias)),
    }
    if let Some((name, hash)) = split_hash(wanted) {
        let by_name = named(shelf.roots, &of_kind(), name);
        if !by_name.is_empty() {
            return by_hash(shelf, kind, wanted, &hash, &by_name)?
                .ok_or_else(|| another_hash(shelf, kind, wanted, &by_name));
        }
        // It may have had this name once.
        if let Some(found) = by_hash(shelf, kind, wanted, &hash, &of_kind().collect::<Vec<_>>())? {
            return Ok(found);
        }
    }
    if let Some(hash) = as_hash(wanted)
        && let Some(found) = by_hash(shelf, kind, wanted, &hash, &of_kind().collect::<Vec<_>>())?
    {
        return Ok(found);
    }
    let meant = |problem: &&Problem| {
        may_be(kind, shelf.roots, &problem.path) && may_mean(shelf.roots, &problem.path, wanted)
    };
    if let Some(problem) = shelf.snapshot.problems.iter().find(meant) {
        let (path, reason) = (problem.path.display(), &problem.reason);
        let text = format!("{kind} '{}' cannot be used: {path}: {reason}", shorten(wanted));
        return Err(Error::new(problem.class, text));
    }
    Err(nothing(shelf, kind, wanted))
}

/// Nothing has this name or hash.
pub(super) fn nothing(shelf: Shelf<'_>, kind: LibraryKind, wanted: &str) -> Error {
    let of_kind = || shelf.snapshot.entries.iter().filter(move |item| item.kind == kind);
    let near = nearest_few(wanted, of_kind().map(|item| item.name.as_str()), 3);
    let advice = if !near.is_empty() {
        format!("known: {}", near.join(", "))
    } else if of_kind().next().is_some() {
        "`latentd models list` names all".into()
    } else {
        how_to_add(shelf.roots, kind)
    };
    let silent = shelf.snapshot.grounds.iter().find(|ground| ground.silent);
    let unknown = silent.map_or_else(String::new, |ground| {
        format!(" as far as that is known: {} does not answer", ground.root.path.display())
    });
    let text = format!("{kind} '{}' is not in the library{unknown}; {advice}", shorten(wanted));
    Error::new(Class::NotFound, text)
}

/// The one of `items` that has this hash, or those that may have it.
fn by_hash(
    shelf: Shelf<'_>,
    kind: LibraryKind,
    wanted: &str,
    hash: &str,
    items: &[&Item],
) -> Result<Option<Lookup>> {
    let sha256 = |item: &Item| known_sha256(shelf.index, item);
    let has = |item: &&&Item| {
        item.facts.old_hash.as_deref() == Some(hash)
            || sha256(item).is_some_and(|sha256| sha256.starts_with(hash))
    };
    let mut found: Vec<&Item> = items.iter().filter(has).copied().collect();
    // Copies of one another are one, as far as is known.
    let first = found.first().and_then(|first| sha256(first));
    let mut place = 0;
    found.retain(|item| {
        place += 1;
        place == 1 || first.is_none() || sha256(item) != first
    });
    match found[..] {
        [item] => return Ok(Some(Lookup::Found { item: Box::new((*item).clone()), bytes: true })),
        [] => (),
        _ => return Err(ambiguous(shelf, kind, wanted, &found)),
    }
    let files: Vec<Item> =
        items.iter().filter(|item| sha256(item).is_none()).map(|item| (*item).clone()).collect();
    let may_come = !files.is_empty();
    Ok(may_come.then(|| Lookup::Unhashed { hash: hash.to_owned(), files }))
}

/// Several files have the name.
fn ambiguous(shelf: Shelf<'_>, kind: LibraryKind, wanted: &str, items: &[&Item]) -> Error {
    const NAMED: usize = 8;
    let names = told_apart(shelf.roots, items);
    let mut list: Vec<_> = names.iter().take(NAMED).map(|name| format!("'{name}'")).collect();
    if names.len() > NAMED {
        list.push(format!("{} more", names.len() - NAMED));
    }
    let text = format!(
        "{kind} '{}' may be any of {} files; write one of {}",
        shorten(wanted),
        names.len(),
        list.join(", ")
    );
    Error::new(Class::InvalidParams, text)
}

/// What has the name has another hash.
fn another_hash(shelf: Shelf<'_>, kind: LibraryKind, wanted: &str, items: &[&Item]) -> Error {
    let each: Vec<_> = items
        .iter()
        .zip(told_apart(shelf.roots, items))
        .map(|(item, name)| match known_sha256(shelf.index, item) {
            Some(sha256) => format!("'{name}' has {}", sha256.get(..10).unwrap_or(&sha256)),
            None => format!("'{name}' has another"),
        })
        .collect();
    let text = format!(
        "{kind} '{}' is not in the library: no file of this name has this hash ({}); write the name or the hash alone",
        shorten(wanted),
        each.join(", ")
    );
    Error::new(Class::NotFound, text)
}

/// Files that `wanted` may mean, whatever the snapshot says of them: those that it knows under this name.
pub(super) fn candidates(shelf: Shelf<'_>, kind: LibraryKind, wanted: &str) -> Vec<PathBuf> {
    let means = |path: &Path| may_mean(shelf.roots, path, wanted);
    let entries = shelf.snapshot.entries.iter().filter(|item| item.kind == kind).filter_map(Item::path);
    let problems = shelf.snapshot.problems.iter().map(|problem| problem.path.as_path());
    entries.chain(problems).filter(|path| means(path)).map(Path::to_owned).collect()
}

/// The names that are in it: all of it, and what stands before a hash.
pub(super) fn names_in(wanted: &str) -> impl Iterator<Item = &str> {
    [wanted].into_iter().chain(split_hash(wanted).map(|(name, _)| name))
}

/// Where the VAE of a checkpoint is if it lies beside it: `NAME.vae.safetensors`, `.pt`, `.ckpt`.
pub(super) fn vaes_beside(checkpoint: &Item) -> Vec<PathBuf> {
    let Some(path) = checkpoint.path() else { return vec![] };
    let beside = |ending| path.with_file_name(format!("{}.vae.{ending}", checkpoint.name));
    ["safetensors", "pt", "ckpt"].into_iter().map(beside).collect()
}

/// The VAE that A1111 takes for a checkpoint by itself: one whose file's name begins with the checkpoint's. Before all
/// others one beside it that is named after it and nothing else.
pub(super) fn vae_named_after(snapshot: &Snapshot, checkpoint: &Item) -> Option<Item> {
    let name = checkpoint.name.as_str();
    let vaes = || snapshot.entries.iter().filter(|item| item.kind == LibraryKind::Vae);
    let beside = vaes_beside(checkpoint);
    let is_beside = |item: &&Item| item.path().is_some_and(|path| beside.iter().any(|each| each == path));
    let begins_so = |item: &&Item| {
        let file_name = item.path().and_then(Path::file_name).and_then(|name| name.to_str());
        file_name.is_some_and(|own| own.starts_with(name))
    };
    vaes().find(is_beside).or_else(|| vaes().find(begins_so)).cloned()
}

/// What A1111 calls TAESD's decoder for Stable Diffusion 1.x and 2.x; those of others have latents of another kind.
const TAESD: &str = "taesd_decoder";

/// Files that may be the TAESD decoder for Stable Diffusion 1.x: first what A1111 calls so, then any whose name speaks of no
/// other family. Encoders are of the same kind, and A1111's own approximation.
pub(super) fn taesds(snapshot: &Snapshot) -> Vec<Item> {
    let all = || snapshot.entries.iter().filter(|item| item.kind == LibraryKind::Taesd);
    let is_other = |item: &Item| ["xl", "sd3", "f1", "flux"].iter().any(|part| item.name.contains(part));
    let is_named = |item: &Item| item.name == TAESD;
    let others = all().filter(|item| !is_named(item) && !is_other(item));
    all().filter(|item| is_named(item)).chain(others).cloned().collect()
}

/// There is none.
pub(super) fn no_taesd(roots: &[Root]) -> Error {
    let root = roots.iter().find(|root| root.kind.is_none());
    let folder = root.map_or_else(|| "VAE-approx".into(), |root| root.path.join("VAE-approx"));
    let text = format!("there is no TAESD in the library; put {TAESD}.pth into {}", folder.display());
    Error::new(Class::NotFound, text)
}

/// The first checkpoint of the models folders by name that this version can draw with.
pub(super) fn first_checkpoint(roots: &[Root], snapshot: &Snapshot) -> Result<Item> {
    let has_vae = |item: &Item| !item.facts.lacks_vae || vae_named_after(snapshot, item).is_some();
    let answers = |item: &Item| item.path().is_some_and(|path| !snapshot.is_silent(path));
    let is_wanted = |item: &&Item| item.draws() && answers(item) && has_vae(item);
    snapshot.entries.iter().find(is_wanted).cloned().ok_or_else(|| {
        let advice = how_to_add(roots, LibraryKind::Checkpoint);
        let broken = first_problem(roots, snapshot);
        Error::new(Class::NotFound, format!("no checkpoint to draw with in the library{broken}; {advice}"))
    })
}

/// Says that there is no checkpoint but what is built in, and how to add one.
pub(super) fn only_built_in(roots: &[Root], snapshot: &Snapshot) -> String {
    format!(
        "no checkpoint to draw with is configured or in the library{}: using the built-in '{}', which knows shapes \
         and cartoon faces only; {}",
        first_problem(roots, snapshot),
        demo::NAME,
        how_to_add(roots, LibraryKind::Checkpoint)
    )
}

/// Why there may be fewer checkpoints in the library than its owner thinks.
fn first_problem(roots: &[Root], snapshot: &Snapshot) -> String {
    let is_near = |problem: &&Problem| may_be(LibraryKind::Checkpoint, roots, &problem.path);
    if let Some(problem) = snapshot.problems.iter().find(is_near) {
        return format!(" ({}: {})", problem.path.display(), problem.reason);
    }
    let other = snapshot.entries.iter().find_map(|item| Some((&item.name, item.waits_to_be_named()?)));
    other.map_or_else(String::new, |(name, why)| format!(" ('{name}' {why})"))
}

/// The entry's SHA-256 in hex, if it was ever computed.
pub(super) fn known_sha256(index: &Index, item: &Item) -> Option<String> {
    match &item.source {
        Source::File { path, seen } => index.sha256(path, seen.file),
        Source::BuiltIn(demo) => Some(demo.sha256.to_owned()),
    }
}

fn how_to_add(roots: &[Root], kind: LibraryKind) -> String {
    let folder = roots.iter().find(|root| root.kind.is_none_or(|of| of == kind)).map_or_else(
        || PathBuf::from("a models folder"),
        |root| {
            let is_layout = kind == LibraryKind::Checkpoint && root.kind.is_none();
            if is_layout { root.path.join("Stable-diffusion") } else { root.path.clone() }
        },
    );
    format!("put a .safetensors file into {}, or give --models-dir", folder.display())
}
