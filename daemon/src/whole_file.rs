//! Files that are there whole or not at all.
//!
//! Where the file system allows it they have no name until all is written. Else, and for the moment in which a file takes
//! the place of another, they have a temporary one beside their own. Of a process that was killed then it stays, and is
//! cleared away by the next that needs such a name in that folder: the file is ours, and nobody holds its lock.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use latentd_client::socket::effective_user;

use crate::unnamed_file;

const PREFIX: &str = ".latentd-";
const SUFFIX: &str = ".part";
/// A file with a temporary name that is younger may not be locked yet.
const OLD: Duration = Duration::from_mins(1);
/// Links that lead to links.
const MOST_LINKS: usize = 40;

/// Writes a file, flushes it to the disk, and puts it at `path`. What was at `path` before stays until then, and stays if
/// anything fails.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_parts(path, &[bytes])
}

/// As [`write`], of parts one after the other.
pub(crate) fn write_parts(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    put(path, &mut |file| write_all(file, parts), None, true)
}

/// As [`write`], of what `fill` writes; that is asked a second time where files without a name turn out not to be had.
pub(crate) fn write_with(path: &Path, written: Fill<'_>) -> io::Result<()> {
    put(path, written, None, true)
}

/// As [`write_with`], but what is at `path` by then stays, and is the error `AlreadyExists`.
pub(crate) fn write_new_with(path: &Path, written: Fill<'_>) -> io::Result<()> {
    put(path, written, None, false)
}

/// A folder that is filled by `fill` and then put at `path`, whole or not at all. What is there before is replaced if
/// `replaces`: it is set aside until the new one is in its place.
pub(crate) fn write_folder(
    path: &Path,
    replaces: bool,
    fill: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let parent = folder_of(path);
    let made = TemporaryFolder(temporary_path(&parent)?);
    fs::create_dir(&made.0)?;
    fill(&made.0)?;
    let aside = TemporaryFolder(temporary_path(&parent)?);
    let is_replaced = replaces && fs::symlink_metadata(path).is_ok();
    if is_replaced {
        fs::rename(path, &aside.0)?;
    }
    if let Err(error) = fs::rename(&made.0, path) {
        if is_replaced && let Err(second) = fs::rename(&aside.0, path) {
            // What was there stays, if under another name.
            let kept = aside.0.clone();
            std::mem::forget(aside);
            let text = format!("{error}; what was there is {} now ({second})", kept.display());
            return Err(io::Error::new(error.kind(), text));
        }
        return Err(error);
    }
    if let Ok(parent) = File::open(&parent) {
        parent.sync_all().ok();
    }
    Ok(())
}

/// A folder with a temporary name, which goes with all that is in it unless it got its own.
struct TemporaryFolder(PathBuf);

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// As [`write`], but through the links that stand at `path`, with the rights of the file that is replaced, and into what
/// is no regular file: a pipe or a device.
pub(crate) fn write_to_target(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => {
            let mut file = File::options().write(true).open(path)?;
            file.write_all(bytes)?;
            file.flush()
        }
        Ok(found) => {
            let rights = found.permissions();
            put(&through_links(path)?, &mut |file| file.write_all(bytes), Some(&rights), true)
        }
        Err(_) => put(&through_links(path)?, &mut |file| file.write_all(bytes), None, true),
    }
}

/// Whether a file could be written by [`write_to_target`], as far as that can be told before.
pub(crate) fn check_target(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        // A pipe or a device: what it takes is seen when it is written to.
        Ok(found) if !found.is_file() => Ok(()),
        _ => check_folder(&folder_of(&through_links(path)?)),
    }
}

/// Whether a file could be made in `folder`: one is, and is gone again.
pub(crate) fn check_folder(folder: &Path) -> io::Result<()> {
    match unnamed_file::create_in(folder)? {
        Some(_) => Ok(()),
        None => Temporary::create(folder).map(drop),
    }
}

/// Removes what a process that was killed while it wrote left in a folder nobody else writes to.
pub(crate) fn remove_leftovers(folder: &Path) {
    for path in leftovers(folder) {
        fs::remove_file(path).ok();
    }
}

/// What is written to a file.
type Fill<'a> = &'a mut dyn FnMut(&mut File) -> io::Result<()>;

fn put(path: &Path, written: Fill<'_>, rights: Option<&Permissions>, replaces: bool) -> io::Result<()> {
    let folder = folder_of(path);
    if !put_unnamed(path, &folder, written, rights, replaces)? {
        sweep(&folder);
        let mut temporary = Temporary::create(&folder)?;
        fill(&mut temporary.file, written, rights)?;
        if replaces { temporary.rename(path)? } else { temporary.rename_to_new(path)? }
    }
    // Without this a power cut may forget the name; some file systems refuse it, and then it is as good as it gets.
    if let Ok(folder) = File::open(&folder) {
        folder.sync_all().ok();
    }
    Ok(())
}

/// False where files without a name cannot be had.
fn put_unnamed(
    path: &Path,
    folder: &Path,
    written: Fill<'_>,
    rights: Option<&Permissions>,
    replaces: bool,
) -> io::Result<bool> {
    let Some(mut file) = unnamed_file::create_in(folder)? else {
        return Ok(false);
    };
    fill(&mut file, written, rights)?;
    match unnamed_file::name(&file, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !replaces {
                return Err(error);
            }
            sweep(folder);
            Temporary::name(file, folder)?.rename(path)?;
            Ok(true)
        }
        // Such as /proc that is not there.
        Err(_) => Ok(false),
    }
}

fn write_all(file: &mut File, parts: &[&[u8]]) -> io::Result<()> {
    parts.iter().try_for_each(|part| file.write_all(part))
}

fn fill(file: &mut File, written: Fill<'_>, rights: Option<&Permissions>) -> io::Result<()> {
    written(file)?;
    if let Some(rights) = rights {
        file.set_permissions(rights.clone())?;
    }
    file.sync_all()
}

/// A file with a temporary name, which goes unless the file gets its own. Its lock says that it is being written.
struct Temporary {
    file: File,
    path: PathBuf,
    named: bool,
}

impl Temporary {
    fn create(folder: &Path) -> io::Result<Self> {
        let path = temporary_path(folder)?;
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        file.try_lock().ok();
        Ok(Self { file, path, named: true })
    }

    fn name(file: File, folder: &Path) -> io::Result<Self> {
        let path = temporary_path(folder)?;
        file.try_lock().ok();
        unnamed_file::name(&file, &path)?;
        Ok(Self { file, path, named: true })
    }

    fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.named = false;
        Ok(())
    }

    /// As [`Self::rename`], unless something has that name.
    fn rename_to_new(self, to: &Path) -> io::Result<()> {
        match fs::hard_link(&self.path, to) {
            // What drops goes, and the other name stays.
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // A file system without links.
            Err(_) if fs::symlink_metadata(to).is_err() => self.rename(to),
            Err(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.named {
            fs::remove_file(&self.path).ok();
        }
    }
}

fn temporary_path(folder: &Path) -> io::Result<PathBuf> {
    let number = crate::random::u64().map_err(io::Error::other)?;
    Ok(folder.join(format!("{PREFIX}{number:016x}{SUFFIX}")))
}

/// Clears away what processes that are gone left in a folder where others write too.
fn sweep(folder: &Path) {
    for path in leftovers(folder) {
        let is_ours = |found: &fs::Metadata| found.is_file() && found.uid() == effective_user();
        let is_old = |found: &fs::Metadata| {
            let age = found.modified().ok().and_then(|modified| modified.elapsed().ok());
            age.is_some_and(|age| age >= OLD)
        };
        let found = fs::symlink_metadata(&path).ok().filter(|found| is_ours(found) && is_old(found));
        // Who writes a file holds its lock.
        let is_free = || File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if found.is_some() && is_free() {
            fs::remove_file(&path).ok();
        }
    }
}

fn leftovers(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_temporary = |name: &str| {
        let bare = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
        bare.is_some_and(|bare| !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    entries
        .filter(move |entry| entry.file_name().to_str().is_some_and(is_temporary))
        .map(|entry| entry.path())
}

/// Where the links lead that stand at `path`; the file there need not exist.
fn through_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(to) => path = folder_of(&path).join(to),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("listed")
            .map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_replaced_keeps_its_rights_and_links_lead_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("inner")).expect("made");
        symlink("inner/picture", at("link")).expect("linked");
        symlink(at("link"), at("link-of-link")).expect("linked");
        for bytes in [b"first", b"again"] {
            write_to_target(&at("link-of-link"), bytes).expect("written");
            assert_eq!(fs::read(at("inner/picture")).expect("read"), bytes);
        }
        fs::set_permissions(at("inner/picture"), Permissions::from_mode(0o640)).expect("set");
        write_to_target(&at("link"), b"third").expect("written");
        assert_eq!(fs::metadata(at("inner/picture")).expect("there").permissions().mode() & 0o777, 0o640);
        assert!(at("link").is_symlink() && at("link-of-link").is_symlink());
        assert_eq!((names(folder.path()).len(), names(&at("inner"))), (3, vec!["picture".to_owned()]));
        symlink("round", at("round")).expect("linked");
        assert!(write_to_target(&at("round"), b"x").is_err() && check_target(&at("round")).is_err());
        assert!(check_target(&at("inner")).is_err() && check_target(&at("none/x")).is_err());
        check_target(&at("link")).expect("can be written");
    }

    #[test]
    fn with_and_without_a_name_it_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for bytes in [b"first", b"again"] {
            write(&at("a"), bytes).expect("written");
            let mut temporary = Temporary::create(folder.path()).expect("made");
            fill(&mut temporary.file, &mut |file| file.write_all(bytes), None).expect("filled");
            temporary.rename(&at("b")).expect("renamed");
            assert_eq!(fs::read(at("a")).expect("read"), fs::read(at("b")).expect("read"));
        }
        let mode = |name: &str| fs::metadata(at(name)).expect("there").permissions().mode();
        assert_eq!(mode("a"), mode("b"));
        drop(Temporary::create(folder.path()).expect("made"));
        assert_eq!(names(folder.path()), ["a", "b"]);
        // A name cannot be given: nothing stays.
        fs::create_dir(at("c")).expect("made");
        assert!(write(&at("c"), b"x").is_err());
        assert_eq!(names(folder.path()), ["a", "b", "c"]);
    }

    #[test]
    fn a_new_file_replaces_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let named = |name: &str| {
            let mut temporary = Temporary::create(folder.path()).expect("made");
            fill(&mut temporary.file, &mut |file| file.write_all(b"again"), None).expect("filled");
            temporary.rename_to_new(&at(name))
        };
        write_new_with(&at("a"), &mut |file| file.write_all(b"first")).expect("written");
        named("b").expect("named");
        let exists = |outcome: io::Result<()>| {
            outcome.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
        };
        assert!(exists(write_new_with(&at("a"), &mut |file| file.write_all(b"again"))));
        assert!(exists(named("a")) && exists(named("b")));
        assert_eq!(fs::read(at("a")).expect("read"), b"first");
        assert_eq!(names(folder.path()), ["a", "b"]);
    }

    #[test]
    fn a_folder_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("model");
        let write = |text: &str, replaces: bool, fails: bool| {
            write_folder(&at, replaces, &mut |within| {
                fs::write(within.join("file"), text)?;
                if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            })
        };
        assert!(write("none", false, true).is_err() && names(folder.path()).is_empty());
        write("first", false, false).expect("written");
        for (text, replaces, fails, expected) in [
            ("again", false, false, "first"),
            ("again", true, true, "first"),
            ("again", true, false, "again"),
        ] {
            assert_eq!(write(text, replaces, fails).is_ok(), expected == "again");
            assert_eq!(fs::read_to_string(at.join("file")).expect("read"), expected);
            assert_eq!(names(folder.path()), ["model"]);
        }
    }

    #[test]
    fn only_what_is_certainly_left_behind_is_cleared_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let old = |file: &File| file.set_modified(std::time::SystemTime::now() - 2 * OLD).expect("set");
        let make = |name: &str| {
            let file = File::create(at(name)).expect("made");
            old(&file);
            file
        };
        make(".latentd-dead.part");
        make(".latentd-.part");
        make(".latentd-a b.part");
        make("latentd-dead.part");
        let written = make(".latentd-alive.part");
        written.try_lock().expect("locked");
        File::create(at(".latentd-young.part")).expect("made");
        fs::create_dir(at(".latentd-folder.part")).expect("made");
        symlink("nowhere", at(".latentd-link.part")).expect("linked");
        sweep(folder.path());
        let stays = [
            ".latentd-.part",
            ".latentd-a b.part",
            ".latentd-alive.part",
            ".latentd-folder.part",
            ".latentd-link.part",
            ".latentd-young.part",
            "latentd-dead.part",
        ];
        assert_eq!(names(folder.path()), stays);
        drop(written);
        write(&at("x"), b"1").expect("written");
        write(&at("x"), b"2").expect("replaced, which looks around");
        assert!(!at(".latentd-alive.part").exists());
    }
}
