//! What a request may call a file: as it is called here, and as AUTOMATIC1111's web UI writes it.

use std::path::{Component, Path};

use latentd_client::protocol::LibraryKind;

use super::item::Item;
use super::places::{Root, outermost_folder, root_of};
use crate::error::{Class, Error, Result};
use crate::schema::shorten;

/// Hex digits that a hash in a request has at least, and at most.
const HASH_DIGITS: std::ops::RangeInclusive<usize> = 8..=64;

/// The hash that a request means, in lower case, if it may be one.
pub(super) fn as_hash(text: &str) -> Option<String> {
    let is_hash = HASH_DIGITS.contains(&text.len()) && text.chars().all(|digit| digit.is_ascii_hexdigit());
    is_hash.then(|| text.to_lowercase())
}

/// Splits `NAME [HASH]`.
pub(super) fn split_hash(wanted: &str) -> Option<(&str, String)> {
    let (name, hash) = wanted.trim_end().strip_suffix(']')?.rsplit_once('[')?;
    let name = name.trim_end();
    if name.is_empty() { None } else { Some((name, as_hash(hash)?)) }
}

/// Whether a hash may be meant.
pub(super) fn has_hash(wanted: &str) -> bool {
    as_hash(wanted).is_some() || split_hash(wanted).is_some()
}

/// Refuses names that could mean a place outside the models folders.
pub(super) fn check(roots: &[Root], kind: LibraryKind, wanted: &str) -> Result<()> {
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
    if wanted.split(['/', '\\']).any(|part| part == "..") {
        return refuse("has '..' in it");
    }
    if path.is_absolute() && root_of(roots, path).is_none() {
        return refuse("is a path outside the models folders");
    }
    Ok(())
}

/// The entries that a name means, by the best way to read it: as a file's name without extension; as a path, or a file's
/// name; as A1111 makes one name of folder and file. Links to one file are one.
pub(super) fn named<'a>(
    roots: &[Root],
    entries: &(impl Iterator<Item = &'a Item> + Clone),
    wanted: &str,
) -> Vec<&'a Item> {
    let ways: [&dyn Fn(&Item) -> bool; 3] = [
        &|item| item.name == wanted,
        &|item| item.path().is_some_and(|path| is_path_of(roots, path, wanted)),
        &|item| item.path().is_some_and(|path| is_joined_name_of(roots, path, wanted)),
    ];
    for is_meant in ways {
        let mut found: Vec<&Item> = Vec::new();
        for item in entries.clone().filter(|item| is_meant(item)) {
            if !found.iter().any(|other| other.is_same_file(item)) {
                found.push(item);
            }
        }
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// Whether a file that is no entry may be meant.
pub(super) fn may_mean(roots: &[Root], path: &Path, wanted: &str) -> bool {
    let means = |wanted: &str| {
        path.file_stem().is_some_and(|stem| stem == wanted)
            || is_path_of(roots, path, wanted)
            || is_joined_name_of(roots, path, wanted)
    };
    means(wanted) || split_hash(wanted).is_some_and(|(name, _)| means(name))
}

/// What to write for each of several files of one name: the shortest path that none of the others has.
pub(super) fn told_apart(roots: &[Root], items: &[&Item]) -> Vec<String> {
    let inside = |item: &Item| {
        let path = item.path().unwrap_or(Path::new(&item.name));
        root_of(roots, path)
            .and_then(|root| path.strip_prefix(&root.path).ok())
            .unwrap_or(path)
            .display()
            .to_string()
    };
    let whole =
        |item: &Item| item.path().map_or_else(|| item.name.clone(), |path| path.display().to_string());
    let is_unique = |text: &String| items.iter().filter(|item| inside(item) == *text).count() == 1;
    items.iter().map(|item| Some(inside(item)).filter(is_unique).unwrap_or_else(|| whole(item))).collect()
}

/// Whether `wanted` is this file's path, absolute or inside a models folder or A1111's folder for its kind, with or without
/// extension, or its file name.
fn is_path_of(roots: &[Root], path: &Path, wanted: &str) -> bool {
    let is = |wanted: &Path| {
        // Most paths are told apart by their last part alone.
        if wanted.file_name() != path.file_name() && wanted.file_name() != path.file_stem() {
            return false;
        }
        let has_folder = wanted.components().count() > 1;
        let bare = path.with_extension("");
        let is_inside = |base: &Path| {
            path.strip_prefix(base).is_ok_and(|inside| inside == wanted)
                || bare.strip_prefix(base).is_ok_and(|inside| inside == wanted)
        };
        wanted == path
            || wanted == bare
            || path.file_name().is_some_and(|name| name == wanted.as_os_str())
            || (has_folder
                && (roots.iter().any(|root| is_inside(&root.path))
                    || outermost_folder(roots, path).is_some_and(is_inside)))
    };
    // The second as Windows writes it.
    is(Path::new(wanted)) || (wanted.contains('\\') && is(Path::new(&wanted.replace('\\', "/"))))
}

/// Whether `wanted` is what older infotexts of A1111 call a file in a folder: `folder_name`.
fn is_joined_name_of(roots: &[Root], path: &Path, wanted: &str) -> bool {
    if !wanted.contains('_') {
        return false;
    }
    let Some(inside) = outermost_folder(roots, path).and_then(|folder| path.strip_prefix(folder).ok()) else {
        return false;
    };
    let parts: Vec<_> = inside
        .with_extension("")
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => part.to_str().map(str::to_owned),
            _ => None,
        })
        .collect();
    parts.len() > 1 && parts.join("_") == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_told_from_names() {
        let rows = [
            ("model [0123456789]", Some(("model", "0123456789"))),
            ("model.safetensors [0123ABCD]", Some(("model.safetensors", "0123abcd"))),
            ("a [b] [01234567]", Some(("a [b]", "01234567"))),
            ("model[01234567]", Some(("model", "01234567"))),
            ("model [v2]", None),
            ("model [0123456]", None),
            ("[01234567]", None),
            ("model 01234567]", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let found = split_hash(text);
            let found = found.as_ref().map(|(name, hash)| (*name, hash.as_str()));
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(as_hash("0123ABCDEF"), Some("0123abcdef".to_owned()));
        for none in ["0123456", "0123456g", "", &"0".repeat(65)] {
            assert_eq!(as_hash(none), None, "{none}");
        }
    }

    #[test]
    fn paths_are_read_as_a1111_and_windows_write_them() {
        let roots = [Root::of_models("/m".into())];
        let path = Path::new("/m/Stable-diffusion/anime/v2.safetensors");
        for wanted in [
            "/m/Stable-diffusion/anime/v2.safetensors",
            "/m/Stable-diffusion/anime/v2",
            "Stable-diffusion/anime/v2.safetensors",
            "Stable-diffusion/anime/v2",
            "anime/v2.safetensors",
            "anime/v2",
            "anime\\v2.safetensors",
            "v2.safetensors",
        ] {
            assert!(is_path_of(&roots, path, wanted), "{wanted}");
        }
        for wanted in
            ["v2", "diffusion/anime/v2", "other/v2", "anime", "anime_v2", "anime/v2.ckpt", "/anime/v2"]
        {
            assert!(!is_path_of(&roots, path, wanted), "{wanted}");
        }
        assert!(is_joined_name_of(&roots, path, "anime_v2"));
        assert!(!is_joined_name_of(&roots, Path::new("/m/Stable-diffusion/a_b.safetensors"), "a_b"));
    }
}
