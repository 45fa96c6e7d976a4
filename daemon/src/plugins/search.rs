//! Which plugins are there: the libraries in some folders, executables with a manifest beside, and which of several of one name
//! is used.
//!
//! Nothing is loaded. What others may write is not taken: it would run with this user's rights.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::env::consts::DLL_SUFFIX;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use latentd_client::socket::effective_user;
use sha2::{Digest, Sha256};

use super::manifest::{self, Manifest};
use super::section::Unread;
use crate::library::hex;

/// Bytes of a library.
pub(super) const LARGEST: u64 = 256 << 20;

/// No file system's clock ticks more seldom: if a file changed less than this before it was looked at, its time may not tell
/// the next change.
const TICK: Duration = Duration::from_millis(50);

/// A folder that plugins are looked for in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    pub path: PathBuf,
    /// It is the program's own and holds other things too: only what has a manifest counts, and it need not be there.
    pub is_programs: bool,
    /// Somebody named it: if it is not there, that is told.
    pub is_named: bool,
}

/// A library, or a folder, that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub path: PathBuf,
    /// Or why it cannot be used; to be read after the path.
    pub outcome: Result<(Manifest, Identity), String>,
    /// Why another one of its name is used.
    pub set_aside: Option<String>,
}

/// Tells a library's bytes from those of any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Of its bytes, in hex.
    pub sha256: String,
    pub len: u64,
    /// In nanoseconds since 1970.
    pub modified_ns: i64,
    pub device: u64,
    pub inode: u64,
}

/// Looks for plugins, and remembers what it read of files that did not change since.
#[derive(Debug, Default)]
pub(crate) struct Search {
    known: HashMap<PathBuf, (Stamps, Outcome)>,
    /// Files that were read so far.
    reads: u64,
}

/// What was read of a library.
type Outcome = Result<(Manifest, Identity), Unread>;

/// The files of a plugin as they were looked at: an executable's manifest is another one.
type Stamps = (Stamp, Option<Stamp>);

/// A file as it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified_ns: i64,
    /// When anything about it last changed. Nobody can set it.
    changed_ns: i64,
    device: u64,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let time = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            len: metadata.len(),
            modified_ns: time(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: time(metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Whether a later change would be seen.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let changed = u128::try_from(self.changed_ns).unwrap_or(0);
        changed + TICK.as_nanos() < now
    }
}

/// Why a file in a folder is not used.
enum Refused {
    /// It is no plugin, or nobody can tell.
    NoPlugin(String),
    /// It is one, or is meant to be.
    Plugin(String),
}

impl Search {
    /// What is in the folders, which come in the order of their precedence, sorted by path.
    pub(crate) fn search(&mut self, folders: &[Folder]) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        let before = std::mem::take(&mut self.known);
        for (index, folder) in folders.iter().enumerate() {
            // The same may be named twice.
            if !folders.iter().take(index).any(|earlier| earlier.path == folder.path) {
                self.look_in(folder, &before, &mut found);
            }
        }
        let usable = found.iter().map(|found| {
            let (manifest, _) = found.outcome.as_ref().ok()?;
            Some(Candidate { path: &found.path, name: &manifest.name, version: &manifest.version })
        });
        let set_aside = set_aside(&usable.collect::<Vec<_>>());
        for (found, why) in found.iter_mut().zip(set_aside) {
            found.set_aside = why;
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        found
    }

    fn look_in(
        &mut self,
        folder: &Folder,
        before: &HashMap<PathBuf, (Stamps, Outcome)>,
        found: &mut Vec<Found>,
    ) {
        let path = &folder.path;
        let mut refuse = |why: String| {
            if !folder.is_programs {
                found.push(Found { path: path.clone(), outcome: Err(why), set_aside: None });
            }
        };
        let listed =
            fs::canonicalize(path).and_then(|whole| Ok((fs::metadata(&whole)?, plugins_in(path)?, whole)));
        let (metadata, libraries, whole) = match listed {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_named => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return refuse("no such folder".into()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return refuse("not a folder; name the folder that the plugin is in".into());
            }
            Err(error) => return refuse(error.to_string()),
        };
        let unsafe_folder = others_write(&whole, &metadata);
        if let Some(why) = &unsafe_folder
            && !folder.is_programs
        {
            return refuse(why.clone());
        }
        for library in libraries {
            let outcome = match self.look_at(&library, &whole, folder.is_programs, before) {
                Ok(_) | Err(Refused::Plugin(_)) if unsafe_folder.is_some() => {
                    Err(unsafe_folder.clone().unwrap_or_default())
                }
                Ok(usable) => Ok(usable),
                Err(Refused::NoPlugin(_)) if folder.is_programs => continue,
                Err(Refused::Plugin(why) | Refused::NoPlugin(why)) => Err(why),
            };
            found.push(Found { path: library, outcome, set_aside: None });
        }
    }

    /// Opens a plugin in a folder, which is `whole` without links, once, and reads what was opened.
    fn look_at(
        &mut self,
        path: &Path,
        whole: &Path,
        is_programs: bool,
        before: &HashMap<PathBuf, (Stamps, Outcome)>,
    ) -> Result<(Manifest, Identity), Refused> {
        let no_plugin = |error: io::Error| Refused::NoPlugin(error.to_string());
        let (file, metadata) = open(path, whole)?;
        let unsafe_file = others_write(path, &metadata);
        if let Some(why) = &unsafe_file
            && !is_programs
        {
            return Err(Refused::NoPlugin(why.clone()));
        }
        let beside = if is_library(path) { None } else { Some(open(&manifest_beside(path), whole)?) };
        let stamp = Stamp::of(&metadata);
        let stamps = (stamp, beside.as_ref().map(|(_, metadata)| Stamp::of(metadata)));
        let now = SystemTime::now();
        let read = match before.get(path) {
            Some((known, read)) if *known == stamps => read.clone(),
            _ => {
                self.reads += 1;
                let bytes = read_whole(&file, stamp).map_err(no_plugin)?;
                match (&beside, stamps.1) {
                    (Some((beside, _)), Some(of_manifest)) => {
                        let written = read_whole(beside, of_manifest).map_err(no_plugin)?;
                        let identity = Identity::of(stamp, &[&bytes, &written]);
                        manifest::parse(&written).map(|manifest| (manifest, identity)).map_err(Unread::Wrong)
                    }
                    _ => manifest::read(&bytes).map(|manifest| (manifest, Identity::of(stamp, &[&bytes]))),
                }
            }
        };
        if stamp.is_settled(now) && stamps.1.is_none_or(|stamp| stamp.is_settled(now)) {
            self.known.insert(path.to_owned(), (stamps, read.clone()));
        }
        match (read, unsafe_file) {
            (Ok(_) | Err(Unread::Wrong(_)), Some(why)) => Err(Refused::Plugin(why)),
            (Ok(usable), None) => Ok(usable),
            (Err(why @ Unread::Wrong(_)), None) => Err(Refused::Plugin(why.to_string())),
            (Err(why), _) => Err(Refused::NoPlugin(why.to_string())),
        }
    }
}

impl Identity {
    fn of(stamp: Stamp, parts: &[&[u8]]) -> Self {
        let Stamp { len, modified_ns, changed_ns: _, device, inode } = stamp;
        Self { sha256: sha256(parts), len, modified_ns, device, inode }
    }
}

/// One library, wherever it lies: what a search of its folder would say of it.
pub(super) fn look_at(path: &Path) -> Result<Manifest, String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !is_library(path) && !manifest_beside(path).exists() {
        return Err(format!(
            "its name does not end in {DLL_SUFFIX}: in a folder of plugins nobody would look at it"
        ));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let whole = fs::canonicalize(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let read = Search::default().look_at(&whole.join(name), &whole, false, &HashMap::new());
    read.map(|(manifest, _)| manifest).map_err(|(Refused::NoPlugin(why) | Refused::Plugin(why))| why)
}

/// Of the files of a plugin, one after the other, in hex. Where there are several, their lengths follow: what moves from one to the
/// next is another plugin. One alone has the hash that everybody knows it by.
pub(super) fn sha256(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    for part in if parts.len() > 1 { parts } else { &[] } {
        hash.update((part.len() as u64).to_be_bytes());
    }
    hex(&hash.finalize())
}

/// Whether a file is called as libraries are; other plugins are executables.
pub(super) fn is_library(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() > DLL_SUFFIX.len() && name.ends_with(DLL_SUFFIX)
}

/// Where an executable's manifest lies.
pub(super) fn manifest_beside(executable: &Path) -> PathBuf {
    executable.with_extension("toml")
}

/// What is called as libraries are, and executables that have a manifest beside.
fn plugins_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        // One that is no UTF-8 could not be said to a client.
        names.extend(entry?.file_name().to_str().map(str::to_owned));
    }
    let is_executable = |path: &Path| {
        let manifest = manifest_beside(path);
        let manifest = manifest.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        path.extension().is_none_or(|extension| extension != "toml")
            && names.contains(manifest)
            && fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o100 != 0)
    };
    let paths = names.iter().map(|name| folder.join(name));
    Ok(paths.filter(|path| is_library(path) || is_executable(path)).collect())
}

/// The file that stands at `path`, in the folder `whole`; links are followed within that.
fn open(path: &Path, whole: &Path) -> Result<(File, Metadata), Refused> {
    let no_plugin = |error: io::Error| Refused::NoPlugin(error.to_string());
    let is_link = fs::symlink_metadata(path).map_err(no_plugin)?.is_symlink();
    let target = if is_link {
        let target = fs::canonicalize(path)
            .map_err(|error| Refused::NoPlugin(format!("a link that leads nowhere: {error}")))?;
        check_target(&target, whole).map_err(Refused::NoPlugin)?;
        target
    } else {
        path.to_owned()
    };
    // Not blocking: nobody waits for who may write to a pipe.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags).open(&target).map_err(no_plugin)?;
    let metadata = file.metadata().map_err(no_plugin)?;
    if !metadata.is_file() {
        return Err(Refused::NoPlugin("not a file".into()));
    }
    if metadata.len() > LARGEST {
        let text = format!("{} bytes long, {LARGEST} are allowed", metadata.len());
        return Err(Refused::NoPlugin(text));
    }
    Ok((file, metadata))
}

/// That a link leads to what only those can write who can write to the folder that it stands in.
fn check_target(target: &Path, whole: &Path) -> Result<(), String> {
    if !target.starts_with(whole) {
        return Err(format!("a link out of its folder, to {}; copy the file here", target.display()));
    }
    for folder in target.ancestors().skip(1).take_while(|folder| *folder != whole) {
        let metadata = fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        if let Some(why) = others_write(folder, &metadata) {
            return Err(format!("a link into {}, which is {why}", folder.display()));
        }
    }
    Ok(())
}

/// All of a file, unless it is written to meanwhile.
fn read_whole(file: &File, stamp: Stamp) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(stamp.len).map_err(io::Error::other)?);
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != stamp.len || Stamp::of(&file.metadata()?) != stamp {
        return Err(io::Error::other("it was written to while it was read; look again once it is whole"));
    }
    Ok(bytes)
}

/// Why a file or folder is not safe from others, and the command that mends it.
fn others_write(path: &Path, metadata: &Metadata) -> Option<String> {
    let (mode, owner) = (metadata.mode(), metadata.uid());
    if mode & 0o002 != 0 {
        return Some(format!("writable by everyone; mend it with: chmod o-w {}", quoted(path)));
    }
    if owner != effective_user() && owner != 0 {
        return Some(format!("owned by another user ({owner}); mend it with: chown $USER {}", quoted(path)));
    }
    None
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    if text.bytes().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A plugin that could be used.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    path: &'a Path,
    name: &'a str,
    version: &'a str,
}

/// Of candidates, which come in the order of their precedence (`None`: not one), why each is not used, if so: of one name the
/// highest version is, and of that the first.
fn set_aside(candidates: &[Option<Candidate<'_>>]) -> Vec<Option<String>> {
    let mut used: HashMap<&str, (usize, Candidate<'_>)> = HashMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let Some(candidate) = candidate else { continue };
        let best = used.entry(candidate.name).or_insert((index, *candidate));
        if compare_versions(candidate.version, best.1.version) == Ordering::Greater {
            *best = (index, *candidate);
        }
    }
    let why = |(index, candidate): (usize, &Option<Candidate<'_>>)| {
        let Candidate { name, version, .. } = candidate.as_ref()?;
        let (_, used) = used.get(name).filter(|(best, _)| *best != index)?;
        let path = used.path.display();
        Some(if used.version == *version {
            format!("plugin '{name}' {version} is there already from {path}")
        } else {
            format!("plugin '{name}' {version} is set aside: {path} has {}", used.version)
        })
    };
    candidates.iter().enumerate().map(why).collect()
}

/// Which version is higher: by the numbers between dots, then by what follows them; one that ends there is higher than one
/// that goes on with `-` (`1.0` after `1.0-rc1`).
fn compare_versions(one: &str, other: &str) -> Ordering {
    let split = |version: &str| {
        let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
        let (numbers, rest) = version.split_at(end);
        // They may have more digits than any integer: without leading zeros the longer is the larger.
        let number = |digits: &str| {
            let digits = digits.trim_start_matches('0');
            (digits.len(), digits.to_owned())
        };
        let mut numbers: Vec<_> = numbers.split('.').map(number).collect();
        while numbers.last().is_some_and(|(digits, _)| *digits == 0) {
            numbers.pop();
        }
        (numbers, !rest.starts_with('-'), rest.to_owned())
    };
    // Those that mean the same, such as 1 and 1.0, are in an order, too, so that the choice hangs on nothing else.
    split(one).cmp(&split(other)).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;
    use std::time::Instant;

    use super::super::section::{in_c, test_library};
    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        /// The path of what is called so.
        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(format!("{name}{DLL_SUFFIX}"))
        }

        fn folder(&self) -> Folder {
            Folder { path: self.0.path().to_owned(), is_programs: false, is_named: true }
        }

        fn programs(&self) -> Folder {
            Folder { is_programs: true, is_named: false, ..self.folder() }
        }

        fn plugin(&self, file: &str, name: &str, version: &str) -> PathBuf {
            let path = self.at(file);
            let manifest = format!("name = '{name}'\nversion = '{version}'\nabi = '0.1'");
            test_library(&path, &in_c(&manifest));
            path
        }
    }

    fn search(folders: &[Folder]) -> Vec<Found> {
        Search::default().search(folders)
    }

    /// What was found: file names, and "name version" or what was said.
    fn told(found: &[Found]) -> Vec<(String, String)> {
        let told = |found: &Found| {
            let name = found.path.file_name().expect("a name").to_string_lossy();
            let outcome = match (&found.outcome, &found.set_aside) {
                (_, Some(why)) | (Err(why), None) => why.clone(),
                (Ok((manifest, _)), None) => format!("{} {}", manifest.name, manifest.version),
            };
            (name.trim_end_matches(DLL_SUFFIX).to_owned(), outcome)
        };
        found.iter().map(told).collect()
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn libraries_are_found_with_what_they_are() {
        let place = Place::new();
        let b = place.plugin("b", "bee", "1.2");
        place.plugin("a", "ant", "0.1");
        test_library(&place.at("none"), "int nothing;");
        test_library(&place.at("wrong"), &in_c("name = 'x'"));
        fs::write(place.at("text"), "text").expect("written");
        fs::write(place.at(""), "hidden").expect("written");
        fs::write(place.0.path().join("other.txt"), "text").expect("written");
        fs::create_dir(place.at("folder")).expect("made");
        fs::create_dir(place.0.path().join("inner")).expect("made");
        let found = search(&[place.folder()]);
        let expected = [
            ("a", "ant 0.1"),
            ("b", "bee 1.2"),
            ("folder", "not a file"),
            ("none", "has no manifest (section '.latentd'), so it is not a plugin of latentd"),
            ("text", "not a shared library: it does not begin as one"),
            ("wrong", "manifest: missing field `version`"),
        ];
        let expected = expected.map(|(name, outcome)| (name.to_owned(), outcome.to_owned()));
        assert_eq!(told(&found), expected);
        let (_, identity) = found.get(1).and_then(|found| found.outcome.as_ref().ok()).expect("a plugin");
        let bytes = fs::read(&b).expect("read");
        let metadata = fs::metadata(&b).expect("there");
        assert_eq!(identity.sha256, hex(&Sha256::digest(&bytes)));
        assert_ne!(sha256(&[b"script", b"manifest"]), sha256(&[b"scriptma", b"nifest"]));
        assert_eq!((identity.len, identity.inode), (bytes.len() as u64, metadata.ino()));
        // Beside the program only what has a manifest counts.
        let kept: Vec<_> = told(&search(&[place.programs()])).into_iter().map(|(name, _)| name).collect();
        assert_eq!(kept, ["a", "b", "wrong"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_said_unless_it_is_the_programs() {
        let place = Place::new();
        let path = place.0.path().join("none");
        let missing = Folder { path: path.clone(), is_programs: false, is_named: true };
        assert_eq!(
            search(std::slice::from_ref(&missing)),
            [Found { path, outcome: Err("no such folder".into()), set_aside: None }]
        );
        assert_eq!(search(&[Folder { is_named: false, ..missing }]), []);
        let file = place.at("file");
        fs::write(&file, "").expect("written");
        let found = search(&[Folder { path: file, is_programs: false, is_named: true }]);
        assert_eq!(
            told(&found),
            [("file".to_owned(), "not a folder; name the folder that the plugin is in".into())]
        );
    }

    #[test]
    fn links_are_followed_within_their_folder() {
        let (place, other) = (Place::new(), Place::new());
        let outside = other.plugin("outside", "out", "1");
        let inner = place.0.path().join("inner");
        fs::create_dir(&inner).expect("made");
        let real = place.plugin("real", "in", "1");
        fs::rename(&real, inner.join("real.so.1")).expect("moved");
        symlink("inner/real.so.1", place.at("within")).expect("linked");
        symlink(&outside, place.at("without")).expect("linked");
        symlink("nowhere", place.at("nowhere")).expect("linked");
        symlink(place.at("round"), place.at("round")).expect("linked");
        let found = told(&search(&[place.folder()]));
        let said = |name: &str| found.iter().find(|(found, _)| found == name).expect("found").1.as_str();
        assert_eq!(said("within"), "in 1");
        assert!(said("without").starts_with("a link out of its folder, to "), "{found:?}");
        assert!(said("without").ends_with("; copy the file here"), "{found:?}");
        assert!(said("nowhere").starts_with("a link that leads nowhere: "), "{found:?}");
        assert!(said("round").starts_with("a link that leads nowhere: "), "{found:?}");
        assert_eq!(found.len(), 4);
        assert_eq!(told(&search(&[place.programs()])), [("within".to_owned(), "in 1".to_owned())]);
        set_mode(&inner, 0o777);
        let found = told(&search(&[place.folder()]));
        assert!(found.iter().any(|(_, why)| why.starts_with("a link into ") && why.contains("chmod o-w ")));
        // The folder may itself be reached through a link.
        set_mode(&inner, 0o755);
        symlink(place.0.path(), other.0.path().join("link")).expect("linked");
        let found =
            search(&[Folder { path: other.0.path().join("link"), is_programs: false, is_named: true }]);
        assert!(told(&found).contains(&("within".to_owned(), "in 1".to_owned())));
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let place = Place::new();
        let made = Command::new("mkfifo").arg(place.at("pipe")).status().expect("mkfifo runs");
        assert!(made.success());
        assert_eq!(told(&search(&[place.folder()])), [("pipe".to_owned(), "not a file".to_owned())]);
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let place = Place::new();
        File::create(place.at("huge")).and_then(|file| file.set_len(LARGEST + 1)).expect("made");
        let expected = format!("{} bytes long, {LARGEST} are allowed", LARGEST + 1);
        assert_eq!(told(&search(&[place.folder()])), [("huge".to_owned(), expected)]);
    }

    #[test]
    fn what_everyone_may_write_is_refused_with_what_mends_it() {
        let place = Place::new();
        let path = place.plugin("a", "ant", "1");
        set_mode(&path, 0o757);
        let expected = format!("writable by everyone; mend it with: chmod o-w {}", path.display());
        for folder in [place.folder(), place.programs()] {
            assert_eq!(told(&search(&[folder])), [("a".to_owned(), expected.clone())]);
        }
        set_mode(&path, 0o775);
        assert_eq!(told(&search(&[place.folder()])), [("a".to_owned(), "ant 1".to_owned())]);
        let folder = place.0.path();
        set_mode(folder, 0o1777);
        let whole = fs::canonicalize(folder).expect("there");
        let expected = format!("writable by everyone; mend it with: chmod o-w {}", whole.display());
        let found = search(&[place.folder()]);
        assert_eq!(
            found,
            [Found { path: folder.to_owned(), outcome: Err(expected.clone()), set_aside: None }]
        );
        // Beside the program there may be none at all, and then nothing is said.
        assert_eq!(told(&search(&[place.programs()])), [("a".to_owned(), expected)]);
        fs::remove_file(&path).expect("removed");
        assert_eq!(search(&[place.programs()]), []);
    }

    #[test]
    fn what_belongs_to_others_is_refused_with_what_mends_it() {
        let place = Place::new();
        let path = place.plugin("a", "ant", "1");
        let nobody = 65534;
        // Only root can give files away; for others root's, which are allowed, are there to be looked at.
        if std::os::unix::fs::chown(&path, Some(nobody), None).is_ok() && effective_user() != nobody {
            let expected =
                format!("owned by another user (65534); mend it with: chown $USER {}", path.display());
            assert_eq!(told(&search(&[place.folder()])), [("a".to_owned(), expected)]);
        }
        let root = Path::new("/");
        assert_eq!(others_write(root, &fs::metadata(root).expect("there")), None);
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn unchanged_files_are_not_read_again() {
        let place = Place::new();
        let path = place.plugin("a", "ant", "1");
        let mut search = Search::default();
        let first = search.search(&[place.folder()]);
        // Until its last change is long enough ago that the next would be seen.
        let start = Instant::now();
        loop {
            let before = search.reads;
            assert_eq!(search.search(&[place.folder()]), first);
            if search.reads == before {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "it is read again and again");
        }
        let reads = search.reads;
        assert_eq!(search.search(&[place.folder()]), first);
        assert_eq!(search.reads, reads);
        // Of the same length and time, in the same inode.
        let bytes = fs::read(&path).expect("read");
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("known");
        let at = bytes.windows(10).position(|found| found == b"name = 'an").expect("there") + 8;
        let mut changed = bytes.clone();
        *changed.get_mut(at).expect("within") = b'e';
        fs::write(&path, &changed).expect("written");
        File::options().write(true).open(&path).and_then(|file| file.set_modified(modified)).expect("set");
        assert_eq!(told(&search.search(&[place.folder()])), [("a".to_owned(), "ent 1".to_owned())]);
        assert_eq!(search.reads, reads + 1);
        fs::remove_file(&path).expect("removed");
        assert_eq!(search.search(&[place.folder()]), []);
        assert!(search.known.is_empty());
    }

    #[test]
    fn a_file_counts_as_settled_only_after_a_tick() {
        let at = |ns: u64| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns);
        let tick = TICK.as_nanos() as u64;
        let stamp = Stamp { len: 1, modified_ns: 0, changed_ns: 1000, device: 0, inode: 0 };
        assert!(!stamp.is_settled(at(1000)) && !stamp.is_settled(at(1000 + tick)));
        assert!(stamp.is_settled(at(1001 + tick)));
        // By a clock that was set back.
        assert!(!stamp.is_settled(at(0)));
    }

    #[test]
    fn of_one_name_the_highest_version_and_of_that_the_first_is_used() {
        let check = |candidates: &[(&'static str, &'static str, &'static str)], expected: &[Option<&str>]| {
            let candidate = |&(path, name, version): &(&'static str, &'static str, &'static str)| {
                (!path.is_empty()).then_some(Candidate { path: Path::new(path), name, version })
            };
            let candidates: Vec<_> = candidates.iter().map(candidate).collect();
            let found = set_aside(&candidates);
            assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        };
        check(&[], &[]);
        check(&[("a", "x", "1"), ("b", "y", "1"), ("", "", "")], &[None, None, None]);
        check(
            &[("a", "x", "1"), ("", "", ""), ("b", "x", "1")],
            &[None, None, Some("plugin 'x' 1 is there already from a")],
        );
        check(
            &[("a", "x", "1.9"), ("b", "x", "1.10"), ("c", "x", "1.10"), ("d", "y", "0")],
            &[
                Some("plugin 'x' 1.9 is set aside: b has 1.10"),
                None,
                Some("plugin 'x' 1.10 is there already from b"),
                None,
            ],
        );
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        // Each is higher than the one before.
        let rising = [
            "",
            "0.9",
            "1-rc1",
            "1-rc2",
            "1",
            "1.0",
            "1.0.0",
            "1+build",
            "1a",
            "1.0.1",
            "1.2",
            "1.2.3",
            "1.10",
            "2",
            "10",
            "99999999999999999999999",
            "100000000000000000000000",
        ];
        for (index, one) in rising.iter().enumerate() {
            for (other_index, other) in rising.iter().enumerate() {
                assert_eq!(compare_versions(one, other), index.cmp(&other_index), "{one} and {other}");
            }
        }
    }

    #[test]
    fn the_first_folder_goes_before_the_others() {
        let (first, second) = (Place::new(), Place::new());
        let kept = first.plugin("z", "ant", "1.0");
        second.plugin("a", "ant", "1.0");
        second.plugin("b", "bee", "1");
        first.plugin("b", "bee", "2");
        let found = search(&[first.folder(), second.folder()]);
        assert!(found.is_sorted_by_key(|found| &found.path));
        let mut found = told(&found);
        found.sort();
        let bee = first.at("b");
        let expected = [
            ("a", format!("plugin 'ant' 1.0 is there already from {}", kept.display())),
            ("b", "bee 2".into()),
            ("b", format!("plugin 'bee' 1 is set aside: {} has 2", bee.display())),
            ("z", "ant 1.0".into()),
        ];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text)));
        // The same folder twice.
        let found = told(&search(&[second.folder(), second.folder()]));
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
