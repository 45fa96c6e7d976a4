//! Wildcards: texts by a name. They come with the request, and from a folder of text files if it names one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that a folder may have, levels of folders, and bytes of all that is read.
const MOST_FILES: usize = 20_000;
const DEEPEST: usize = 8;
const MOST_BYTES: u64 = 32 << 20;

/// Texts by their wildcards' names.
#[derive(Debug, Default)]
pub struct Wildcards(BTreeMap<String, Vec<String>>);

impl Wildcards {
    /// Those that a request brings.
    pub fn of(given: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        Self(given.into_iter().collect())
    }

    /// The same, with those of a folder that it does not have itself.
    pub fn with_folder(mut self, folder: &str) -> Result<Self, String> {
        let path = Path::new(folder);
        if !path.is_absolute() {
            return Err(format!("folder: '{folder}' must be an absolute path"));
        }
        let path = path.canonicalize().map_err(|error| format!("folder: '{folder}': {error}"))?;
        if !path.is_dir() {
            return Err(format!("folder: '{folder}' is no folder"));
        }
        let mut reader = Reader { root: path.clone(), files: 0, bytes: 0, found: BTreeMap::new() };
        reader.read(&path, "", 0)?;
        for (name, texts) in reader.found {
            self.0.entry(name).or_insert(texts);
        }
        Ok(self)
    }

    /// The texts of all wildcards that a name or pattern fits, in the names' order. `*` is anything within one level, `**` over
    /// several.
    pub fn texts(&self, pattern: &str) -> Vec<&str> {
        let own = self.0.get(pattern);
        let found: Vec<&Vec<String>> = match own {
            Some(texts) => vec![texts],
            None if pattern.contains('*') => {
                self.0.iter().filter(|(name, _)| fits(pattern, name)).map(|(_, texts)| texts).collect()
            }
            None => vec![],
        };
        found.into_iter().flatten().map(String::as_str).collect()
    }
}

/// What a file's text has: a text in each line.
fn lines(text: &str) -> Vec<String> {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

struct Reader {
    root: PathBuf,
    files: usize,
    bytes: u64,
    found: BTreeMap<String, Vec<String>>,
}

impl Reader {
    fn read(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), String> {
        let failed =
            |path: &Path, error: &dyn std::fmt::Display| format!("folder: {}: {error}", path.display());
        if depth > DEEPEST {
            return Err(failed(folder, &format!("folders are more than {DEEPEST} levels within each other")));
        }
        let mut entries = vec![];
        for entry in fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
            self.files += 1;
            if self.files > MOST_FILES {
                return Err(failed(folder, &format!("more than {MOST_FILES} files")));
            }
            entries.push(entry.map_err(|error| failed(folder, &error))?.path());
        }
        entries.sort();
        for path in entries {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // A link may lead anywhere; only what lies within counts.
            let Ok(real) = path.canonicalize() else { continue };
            if name.starts_with('.') || !real.starts_with(&self.root) {
                continue;
            }
            if real.is_dir() {
                self.read(&path, &format!("{prefix}{name}/"), depth + 1)?;
            } else if let Some(stem) = name.strip_suffix(".txt").filter(|_| real.is_file()) {
                let length = fs::metadata(&real).map_err(|error| failed(&path, &error))?.len();
                self.bytes = self.bytes.saturating_add(length);
                if self.bytes > MOST_BYTES {
                    return Err(failed(&path, &format!("more than {MOST_BYTES} bytes in all")));
                }
                let text = fs::read(&real).map_err(|error| failed(&path, &error))?;
                self.found.insert(format!("{prefix}{stem}"), lines(&String::from_utf8_lossy(&text)));
            }
        }
        Ok(())
    }
}

/// Whether a name is what a pattern stands for.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Of the name's places those that the pattern's beginning may lead to.
    let mut places = vec![false; name.len() + 1];
    places[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let mut next = vec![false; name.len() + 1];
        if pattern[at] == '*' {
            let stars = pattern[at..].iter().take_while(|c| **c == '*').count();
            at += stars;
            for place in 0..=name.len() {
                let before = place > 0 && next[place - 1] && (stars > 1 || name[place - 1] != '/');
                next[place] = places[place] || before;
            }
        } else {
            for place in 0..name.len() {
                next[place + 1] = places[place] && name[place] == pattern[at];
            }
            at += 1;
        }
        places = next;
    }
    places[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        for (pattern, name, expected) in [
            ("colour", "colour", true),
            ("colour", "colours", false),
            ("col*", "colour", true),
            ("*our", "colour", true),
            ("c*o*r", "colour", true),
            ("*", "a/b", false),
            ("**", "a/b", true),
            ("**/b", "x/a/b", true),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/*/c", "a/b/c", true),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        // Patterns that would take for ever if each star were tried with each rest.
        assert!(!fits(&"*a".repeat(100), &"a".repeat(90).replace('a', "aab/")));
    }

    #[test]
    fn a_folder_has_texts_and_nothing_beyond_it() {
        let folder = std::env::temp_dir().join(format!("dynamic-prompts-{}", std::process::id()));
        let inner = folder.join("wildcards/colours");
        fs::create_dir_all(&inner).expect("made");
        fs::write(folder.join("secret.txt"), "secret\n").expect("written");
        fs::write(inner.join("warm.txt"), "# a comment\nred\n\n  2::orange  \n").expect("written");
        fs::write(folder.join("wildcards/animal.txt"), "cat\r\ndog").expect("written");
        fs::write(folder.join("wildcards/notes.md"), "no").expect("written");
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.join("secret.txt"), folder.join("wildcards/link.txt"))
            .expect("linked");
        let given = [("animal".to_owned(), vec!["fox".to_owned()])];
        let root = folder.join("wildcards");
        let wildcards = Wildcards::of(given).with_folder(root.to_str().expect("text")).expect("read");
        assert_eq!(wildcards.texts("colours/warm"), ["red", "2::orange"]);
        assert_eq!(wildcards.texts("**"), ["fox", "red", "2::orange"]);
        assert_eq!(wildcards.texts("link"), [""; 0]);
        assert_eq!(wildcards.texts("../secret"), [""; 0]);
        for wrong in ["wildcards", "/no/such/folder", inner.join("warm.txt").to_str().expect("text")] {
            assert!(Wildcards::default().with_folder(wrong).is_err(), "{wrong}");
        }
        fs::remove_dir_all(&folder).expect("removed");
    }
}
