//! Styles: texts around prompts, by name. Those of A1111 are read from its `styles*.csv`; those that clients save are in a file
//! of the same form in the daemon's own folder, and come before the others.

mod csv;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Class, Error, Result};
use crate::folders::Folders;
use crate::schema::shorten;
use crate::suggest::advice;
use crate::whole_file;

/// Bytes of a file that is read.
const LARGEST: u64 = 16 << 20;

/// A1111's name for no style.
const NONE: &str = "None";

/// Columns of a file, the first three as A1111 writes them, and what an old one called the second.
const COLUMNS: [&str; 3] = ["name", "prompt", "negative_prompt"];
const OLD_PROMPT: &str = "text";

/// Texts around prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    pub name: String,
    pub prompt: String,
    pub negative_prompt: String,
    /// The file that it is in.
    pub path: PathBuf,
}

/// Where a prompt stands in a style's text.
const PLACE: &str = "{prompt}";

/// A style's text around a prompt, which takes the place of `{prompt}`; without such a place the text stands behind it, with a
/// comma between. If that is more than `most` characters, nothing is made, and their number is the error.
pub(crate) fn around(style: &str, prompt: &str, most: usize) -> std::result::Result<String, usize> {
    let count = |text: &str| text.chars().count();
    let places = style.matches(PLACE).count();
    if places > 0 {
        let own = count(style) - places * PLACE.len();
        let characters = places.saturating_mul(count(prompt)).saturating_add(own);
        return if characters > most { Err(characters) } else { Ok(style.replace(PLACE, prompt)) };
    }
    let parts = [prompt, style].map(|part| part.trim_matches(is_space));
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let characters = parts.iter().map(|part| count(part)).sum::<usize>() + 2 * parts.len().saturating_sub(1);
    if characters > most { Err(characters) } else { Ok(parts.join(", ")) }
}

/// What Python's `str.strip` takes for white space.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// All styles that there are, and files that could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Each name once.
    pub styles: Vec<Arc<Style>>,
    pub problems: Vec<String>,
    /// Their places by their names.
    places: HashMap<String, usize>,
}

/// The files of styles.
pub(crate) struct Styles {
    /// Of those that clients saved.
    own: PathBuf,
    /// Held while that is written.
    writing: Mutex<()>,
}

impl Styles {
    pub(crate) fn new(own: PathBuf) -> Self {
        Self { own, writing: Mutex::default() }
    }

    /// Whether one is among those that clients saved.
    pub(crate) fn is_own(&self, style: &Style) -> bool {
        style.path == self.own
    }

    /// All of them: our own, then those in these folders.
    pub(crate) fn all(&self, others: &[PathBuf], folders: &Folders) -> Found {
        self.until(|_| false, others, folders)
    }

    /// Our own, then those in these folders, until there are enough.
    fn until(&self, is_enough: impl Fn(&Found) -> bool, others: &[PathBuf], folders: &Folders) -> Found {
        let mut found = Found::default();
        let own = read_file(&self.own);
        found.take(&self.own, own);
        for folder in others {
            if is_enough(&found) {
                break;
            }
            let looked = folders.ask(folder, |_| -> io::Result<Vec<(PathBuf, io::Result<Vec<Style>>)>> {
                let files = files_in(folder)?.into_iter();
                Ok(files.map(|path| (path.clone(), read_file(&path))).collect())
            });
            match looked {
                // Of two with one name in A1111's files the last one counts.
                Ok(Ok(files)) => files.into_iter().rev().for_each(|(path, styles)| found.take(&path, styles)),
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => (),
                Ok(Err(error)) => found.problems.push(format!("{}: {error}", folder.display())),
                Err(silent) => found.problems.push(silent.to_string()),
            }
        }
        found
    }

    /// Those of these names, in their order; "None" is none.
    pub(crate) fn named(
        &self,
        names: &[String],
        others: &[PathBuf],
        folders: &Folders,
    ) -> Result<Vec<Arc<Style>>> {
        let names = || names.iter().filter(|name| *name != NONE);
        if names().next().is_none() {
            return Ok(vec![]);
        }
        let has_all = |found: &Found| names().all(|name| found.named(name).is_some());
        let found = self.until(has_all, others, folders);
        let named = names()
            .map(|name| found.named(name).map(Arc::clone).ok_or_else(|| found.unknown("styles", name)));
        named.collect()
    }

    /// Saves one among our own, in place of one of its name.
    pub(crate) fn save(&self, mut style: Style) -> Result<Style> {
        if style.name.trim_matches(is_space).is_empty() || style.name == NONE || style.name.starts_with('#') {
            return Err(Error::invalid(format!(
                "name: '{}' cannot be a style's; give another that is not empty, not '{NONE}', and does not begin with #",
                shorten(&style.name)
            )));
        }
        style.path.clone_from(&self.own);
        self.change(|all| {
            match all.iter_mut().find(|other| other.name == style.name) {
                Some(other) => *other = style.clone(),
                None => all.push(style.clone()),
            }
            Ok(())
        })?;
        Ok(style)
    }

    /// Deletes one of our own.
    pub(crate) fn delete(&self, name: &str, others: &[PathBuf], folders: &Folders) -> Result<Style> {
        let mut deleted = None;
        self.change(|all| {
            let place = all.iter().position(|style| style.name == name);
            deleted = place.map(|place| all.remove(place));
            if deleted.is_some() {
                return Ok(());
            }
            let found = self.all(others, folders);
            match found.named(name) {
                Some(style) => Err(Error::invalid(format!(
                    "name: style '{}' is in {}, which latentd only reads; take it out there",
                    shorten(name),
                    style.path.display()
                ))),
                None => Err(found.unknown("name", name)),
            }
        })?;
        deleted.ok_or_else(|| Error::internal("a style that was not deleted"))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Style>) -> Result<()>) -> Result<()> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |what: &str, error: &io::Error| {
            let text = format!("{} cannot be {what}: {error}; see to that file", self.own.display());
            Error::new(Class::Internal, text)
        };
        let mut all = match read_file(&self.own) {
            Ok(all) => all,
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
            Err(error) => return Err(failed("read", &error)),
        };
        change(&mut all)?;
        // Its mark of UTF-8 is A1111's too.
        let mut text = format!("\u{feff}{}", csv::write(&COLUMNS));
        for Style { name, prompt, negative_prompt, .. } in &all {
            text += &csv::write(&[name, prompt, negative_prompt]);
        }
        whole_file::write(&self.own, text.as_bytes()).map_err(|error| failed("written", &error))
    }
}

impl Found {
    fn take(&mut self, path: &Path, styles: io::Result<Vec<Style>>) {
        match styles {
            Ok(styles) => {
                for style in styles {
                    let place = self.styles.len();
                    if *self.places.entry(style.name.clone()).or_insert(place) == place {
                        self.styles.push(Arc::new(style));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => self.problems.push(format!("{}: {error}", path.display())),
        }
    }

    fn named(&self, name: &str) -> Option<&Arc<Style>> {
        self.places.get(name).and_then(|place| self.styles.get(*place))
    }

    fn unknown(&self, field: &str, name: &str) -> Error {
        /// As many problems are told.
        const TOLD: usize = 3;
        let names = self.styles.iter().map(|style| style.name.as_str());
        let advice = advice(name, names);
        let mut problems = String::new();
        for problem in self.problems.iter().take(TOLD) {
            problems = problems + "; not read: " + &shorten(problem);
        }
        let text = format!("{field}: no style '{}'; styles.list names all{advice}{problems}", shorten(name));
        Error::not_found(text)
    }
}

/// A1111's files in a folder, sorted.
fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("styles") && path.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> io::Result<Vec<Style>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    // Not blocking: a named pipe is refused instead of waited for.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(wrong("is no regular file"));
    }
    if about.len() > LARGEST {
        return Err(wrong(&format!("has {} bytes, of which up to {LARGEST} are read", about.len())));
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(|_| wrong("is not in UTF-8"))?;
    styles(&text, path).ok_or_else(|| wrong("has no columns 'name' and 'prompt'"))
}

/// The styles in a file's text, the last of each name. Rows whose name begins with `#` are comments.
fn styles(text: &str, path: &Path) -> Option<Vec<Style>> {
    let rows = csv::read(text.strip_prefix('\u{feff}').unwrap_or(text));
    let (columns, rows) = rows.split_first()?;
    let column = |name: &str| columns.iter().position(|column| column == name);
    let (name, negative_prompt) = (column(COLUMNS[0])?, column(COLUMNS[2]));
    let prompt = column(COLUMNS[1]).or_else(|| column(OLD_PROMPT))?;
    let mut styles: Vec<Style> = vec![];
    let mut places: HashMap<String, usize> = HashMap::new();
    for row in rows {
        let field = |place: usize| row.get(place).cloned().unwrap_or_default();
        let style = Style {
            name: field(name),
            prompt: field(prompt),
            negative_prompt: negative_prompt.map(field).unwrap_or_default(),
            path: path.to_owned(),
        };
        if style.name.starts_with('#') {
            continue;
        }
        let place = *places.entry(style.name.clone()).or_insert(styles.len());
        match styles.get_mut(place) {
            Some(other) => *other = style,
            None => styles.push(style),
        }
    }
    Some(styles)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn style(name: &str, prompt: &str, negative_prompt: &str) -> Style {
        Style {
            name: name.into(),
            prompt: prompt.into(),
            negative_prompt: negative_prompt.into(),
            path: PathBuf::new(),
        }
    }

    #[test]
    fn prompts_stand_in_styles_as_in_a1111() {
        for (text, prompt, expected) in [
            ("oil, {prompt}, {prompt}!", "a cat", "oil, a cat, a cat!"),
            ("oil {prompt}", "", "oil "),
            (" masterpiece ", " a cat ", "a cat, masterpiece"),
            ("masterpiece", "", "masterpiece"),
            ("", " a cat", "a cat"),
            ("", "", ""),
        ] {
            let shown = format!("{text:?} around {prompt:?}");
            let characters = expected.chars().count();
            assert_eq!(around(text, prompt, characters).as_deref(), Ok(expected), "{shown}");
            if let Some(less) = characters.checked_sub(1) {
                assert_eq!(around(text, prompt, less), Err(characters), "{shown}");
            }
        }
        // Nothing is made of what is too much.
        let (style, prompt) = (PLACE.repeat(1 << 20), "é".repeat(1 << 20));
        assert_eq!(around(&style, &prompt, 200_000), Err(1 << 40));
    }

    #[test]
    fn of_many_styles_each_name_counts_once() {
        let rows = (0..120_000).map(|number| format!("style {number},x\n")).collect::<Vec<_>>().concat();
        let text = format!("name,prompt\n{rows}{rows}");
        let mut found = Found::default();
        for _ in 0..2 {
            found.take(Path::new("x"), styles(&text, Path::new("x")).ok_or(io::ErrorKind::Other.into()));
        }
        assert_eq!(found.styles.len(), 120_000);
    }

    #[test]
    fn a_pipe_in_place_of_a_file_is_told_and_not_waited_for() {
        let (own, a1111) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let pipe = a1111.path().join("styles.csv");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("run").success());
        let (styles, folders) = (Styles::new(own.path().join("styles.csv")), Folders::new());
        styles.save(style("ink", "x", "")).expect("saved");
        let others = [a1111.path().to_owned()];
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let found = styles.all(&others, &folders);
            let error = styles.named(&["oil".to_owned()], &others, &folders).expect_err("unknown");
            // What is all among our own is looked for nowhere else.
            let enough = styles.until(|found| found.named("ink").is_some(), &others, &folders);
            tell.send((found.problems, error.text, enough.problems)).ok();
        });
        let (problems, error, enough) = told.recv_timeout(Duration::from_secs(30)).expect("not waited for");
        assert!(
            problems.len() == 1 && problems[0].ends_with("styles.csv: is no regular file"),
            "{problems:?}"
        );
        assert!(error.contains("no style 'oil'") && error.contains("; not read: "), "{error}");
        assert!(error.ends_with("styles.csv: is no regular file") && enough.is_empty(), "{error} {enough:?}");
    }

    #[test]
    fn files_of_a1111_are_read() {
        let of = |text| styles(text, Path::new(""));
        let text = "\u{feff}name,prompt,negative_prompt\r\noil,\"{prompt}, oil\",photo\r\n#a,b,c\r\nplain,x\r\noil,again,\r\n";
        assert_eq!(of(text), Some(vec![style("oil", "again", ""), style("plain", "x", "")]));
        assert_eq!(of("text, name\nold style,old"), Some(vec![style("old", "old style", "")]));
        assert_eq!(of("prompt\nx"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn what_is_saved_is_found_before_what_a1111_has() {
        let (own, a1111) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let file = |name: &str, text: &str| fs::write(a1111.path().join(name), text).expect("written");
        file("styles.csv", "name,prompt,negative_prompt\nink,ink,colour\noil,oil,\n");
        file("styles_more.csv", "name,prompt,negative_prompt\noil,more oil,\n");
        file("styles_bad.csv", "nothing\n");
        file("other.csv", "name,prompt\nx,y\n");
        let (styles, folders) = (Styles::new(own.path().join("styles.csv")), Folders::new());
        let others = [a1111.path().to_owned(), PathBuf::from("/no/such/folder")];
        let list = |styles: &Styles| -> Vec<(String, String, bool)> {
            let found = styles.all(&others, &folders);
            assert!(found.problems.iter().all(|text| text.contains("styles_bad.csv")), "{found:?}");
            let own = |style: Arc<Style>| (style.name.clone(), style.prompt.clone(), styles.is_own(&style));
            found.styles.into_iter().map(own).collect()
        };
        let row = |name: &str, prompt: &str, own| (name.to_owned(), prompt.to_owned(), own);
        assert_eq!(list(&styles), [row("oil", "more oil", false), row("ink", "ink", false)]);
        styles.save(style("ink", "{prompt}, \"ink\",\nblack", "")).expect("saved");
        styles.save(style("é", "x", "y")).expect("saved");
        styles.save(style("é", "z", "y")).expect("saved again");
        let saved = [row("ink", "{prompt}, \"ink\",\nblack", true), row("é", "z", true)];
        assert_eq!(list(&styles)[..2], saved);
        let named = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            styles.named(&names, &others, &folders)
        };
        assert_eq!(named(&["oil", "None", "é"]).expect("known").len(), 2);
        let error = named(&["oill"]).expect_err("unknown");
        assert!(error.class == Class::NotFound && error.text.contains("did you mean 'oil'?"), "{error}");
        styles.delete("ink", &others, &folders).expect("deleted");
        assert!(list(&styles).contains(&row("ink", "ink", false)), "A1111's is back");
        let error = styles.delete("oil", &others, &folders).expect_err("refused");
        assert!(error.text.contains("styles_more.csv, which latentd only reads"), "{error}");
        assert!(styles.delete("x", &others, &folders).is_err());
        for name in ["", " ", "None", "#x"] {
            assert!(styles.save(style(name, "", "")).is_err(), "{name}");
        }
    }
}
