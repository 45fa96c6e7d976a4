//! What lies beside a weight file and is about it: the owner's notes, what a site says of it, a picture.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::stamp::Stamp;

/// What A1111 keeps its owner's notes in.
pub(super) const NOTES: &str = "json";

/// What helpers for Civitai write its answer into.
pub(super) const SITE: &str = "civitai.info";

/// The configuration of a checkpoint, in [`super::stamp::Seen`].
const CONFIG: &str = "yaml";

/// Pictures, in the order in which A1111 looks for them.
const PREVIEWS: [&str; 8] =
    ["png", "preview.png", "jpg", "preview.jpg", "jpeg", "preview.jpeg", "webp", "preview.webp"];

/// The state of what lies beside a file, without what stands in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    /// Told from other states; 0 if there are no notes.
    notes: u64,
    /// Which of [`PREVIEWS`].
    preview: Option<u8>,
}

/// The names in one folder, sorted.
pub(super) struct Names(Vec<OsString>);

impl Names {
    pub(super) fn new(mut names: Vec<OsString>) -> Self {
        names.sort_unstable();
        Self(names)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &OsString> {
        self.0.iter()
    }

    /// What names in the folder that are a file's without its extension have behind that and a dot.
    fn endings<'a>(&'a self, stem: &'a OsStr) -> impl Iterator<Item = &'a [u8]> {
        let stem = stem.as_encoded_bytes();
        let first = self.0.partition_point(|name| name.as_encoded_bytes() < stem);
        let after = self.0.get(first..).unwrap_or_default().iter().map(|name| name.as_encoded_bytes());
        // The stem alone, and names that go on before the dot in the order of bytes, come first.
        let same = after.take_while(move |name| name.starts_with(stem));
        same.skip_while(move |name| name.get(stem.len()).is_none_or(|next| *next < b'.'))
            .map_while(move |name| name.get(stem.len()..)?.strip_prefix(b"."))
    }

    /// Whether a configuration lies beside a file, and what else does. Asks the system of notes alone.
    pub(super) fn beside(&self, path: &Path) -> (bool, Beside) {
        let Some(stem) = path.file_stem() else {
            return (false, Beside::default());
        };
        let (mut config, mut notes, mut preview) = (false, false, None);
        for ending in self.endings(stem) {
            let is = |text: &str| ending == text.as_bytes();
            config |= is(CONFIG);
            notes |= is(NOTES) || is(SITE);
            let picture = PREVIEWS.iter().position(|text| is(text)).map(|place| place as u8);
            preview = [preview, picture].into_iter().flatten().min();
        }
        (config, Beside { notes: if notes { notes_at(path) } else { 0 }, preview })
    }
}

impl Beside {
    /// Of a file whose folder was not read.
    pub(super) fn at(path: &Path) -> Self {
        let is_there = |ending: &&str| fs::symlink_metadata(with_ending(path, ending)).is_ok();
        let preview = PREVIEWS.iter().position(is_there).map(|place| place as u8);
        Self { notes: notes_at(path), preview }
    }

    /// The picture beside the file at `path`.
    pub(super) fn preview(self, path: &Path) -> Option<PathBuf> {
        let ending = PREVIEWS.get(usize::from(self.preview?))?;
        Some(with_ending(path, ending))
    }
}

/// Tells the state of the notes beside a file from other states.
fn notes_at(path: &Path) -> u64 {
    let stamps = [NOTES, SITE].map(|ending| Stamp::at(&with_ending(path, ending)));
    if stamps == [None, None] {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    stamps.hash(&mut hasher);
    hasher.finish().max(1)
}

/// The file's path with another extension.
pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    path.with_extension(ending)
}

/// Whether a file of this name may be about another one beside it.
pub(super) fn may_be_beside(extension: &str) -> bool {
    [NOTES, CONFIG, "info", "png", "jpg", "jpeg", "webp"].contains(&extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_those_of_the_name_and_no_other() {
        let names = [
            "a",
            "a b.png",
            "a-b.json",
            "a.png",
            "a.preview.png",
            "a.safetensors",
            "a.yaml",
            "a1.json",
            "b.safetensors",
            "c.jpeg",
            "c.preview.webp",
            "c.ckpt",
        ];
        let names = Names::new(names.map(OsString::from).into());
        let rows = [
            ("a.safetensors", (true, Some("/m/a.png"))),
            ("b.safetensors", (false, None)),
            ("c.ckpt", (false, Some("/m/c.jpeg"))),
            ("none.ckpt", (false, None)),
        ];
        for (name, expected) in rows {
            let path = Path::new("/m").join(name);
            let (config, beside) = names.beside(&path);
            let preview = beside.preview(&path);
            assert_eq!((config, preview.as_deref()), (expected.0, expected.1.map(Path::new)), "{name}");
            assert_eq!(beside.notes, 0, "{name}");
        }
    }

    #[test]
    fn both_ways_to_look_find_the_same_and_notes_that_change_are_told_from_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        let listed = || {
            let entries = fs::read_dir(folder.path()).expect("read");
            Names::new(entries.map(|entry| entry.expect("an entry").file_name()).collect()).beside(&path).1
        };
        let mut states = vec![Beside::default()];
        for (name, text) in
            [("a.json", "{}"), ("a.json", "{ }"), ("a.civitai.info", "{}"), ("a.webp", ""), ("a.png", "")]
        {
            fs::write(folder.path().join(name), text).expect("written");
            let now = listed();
            assert_eq!(now, Beside::at(&path), "{name}");
            assert!(!states.contains(&now), "{name}");
            states.push(now);
        }
    }
}
