//! What is known of files from earlier looks, in SQLite: a file that is as it was is not read again.
//!
//! The index only saves work. Where it cannot be opened or written, or is a newer latentd's, the library goes on without.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use latentd_client::protocol::LibraryKind;
use latentd_models::files::Prediction;
use rusqlite::types::Type;
use rusqlite::{Connection, Params, Row, params};
use tracing::warn;

use super::background::Hashed;
use super::digests::{Digest, Digests, write_digest};
use super::item::Facts;
use super::judge::Verdict;
use super::stamp::{Seen, Stamp};
use crate::database::{self, Schema};
use crate::error::Class;

/// The index.
pub(super) struct Index {
    connection: Mutex<Option<Connection>>,
    digests: RwLock<Digests>,
}

/// What is known of files, by path.
#[derive(Default)]
pub(super) struct Verdicts(HashMap<String, (String, Verdict)>);

impl Verdicts {
    /// What was found in a file, if it is still as it was.
    pub(super) fn get(&self, path: &Path, seen: &Seen) -> Option<Verdict> {
        let (key, verdict) = self.0.get(path.to_str()?)?;
        (*key == key_of(seen)).then(|| verdict.clone())
    }
}

/// A file's state, and that of the configuration beside it. Without the device, whose number may be another one each time
/// it is mounted.
fn key_of(seen: &Seen) -> String {
    let one =
        |stamp: &Stamp| format!("{} {} {} {}", stamp.size, stamp.modified_ns, stamp.changed_ns, stamp.inode);
    seen.config
        .as_ref()
        .map_or_else(|| one(&seen.file), |config| format!("{} {}", one(&seen.file), one(config)))
}

/// See [`database::open`]. When a look tells more of a file or tells it otherwise, a step more forgets what older versions
/// found; digests stay true.
const SCHEMA: Schema = Schema { migrations: &[FIRST, SECOND, THIRD, FOURTH], check };

const FIRST: &str = "
    DROP TABLE IF EXISTS file;
    CREATE TABLE file (
        path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL,
        kind TEXT, architecture TEXT, dtype TEXT, parameters INTEGER, broken TEXT
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS digest (
        path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
    ) WITHOUT ROWID;
";

/// More is told of a file, and it is told from another of its size and time. Digests of before are taken for those of the
/// files that the first look finds.
const SECOND: &str = "
    DROP TABLE file;
    CREATE TABLE file (
        path TEXT PRIMARY KEY, seen TEXT NOT NULL,
        kind TEXT, architecture TEXT, dtype TEXT, parameters INTEGER, prediction TEXT, also TEXT, old_hash TEXT,
        broken TEXT, broken_class INTEGER
    ) WITHOUT ROWID;
    ALTER TABLE digest ADD COLUMN changed_ns INTEGER;
    ALTER TABLE digest ADD COLUMN inode INTEGER;
";

/// More is told of a file, and more kinds are known.
const THIRD: &str = "
    DROP TABLE file;
    CREATE TABLE file (
        path TEXT PRIMARY KEY, seen TEXT NOT NULL,
        kind TEXT, architecture TEXT, dtype TEXT, parameters INTEGER, prediction TEXT, also TEXT, old_hash TEXT,
        broken TEXT, broken_class INTEGER,
        format TEXT, layout TEXT, base_model TEXT, addon_hash TEXT, lacks_vae INTEGER
    ) WITHOUT ROWID;
    ALTER TABLE digest ADD COLUMN addon_hash TEXT;
";

/// What a file is called inside is told, too.
const FOURTH: &str = "
    DROP TABLE file;
    CREATE TABLE file (
        path TEXT PRIMARY KEY, seen TEXT NOT NULL,
        kind TEXT, architecture TEXT, dtype TEXT, parameters INTEGER, prediction TEXT, also TEXT, old_hash TEXT,
        broken TEXT, broken_class INTEGER,
        format TEXT, layout TEXT, base_model TEXT, addon_hash TEXT, lacks_vae INTEGER, alias TEXT
    ) WITHOUT ROWID;
";

/// All that is kept of files.
const SELECT: &str = "SELECT path, seen, kind, architecture, dtype, parameters, prediction, also, old_hash, broken, broken_class, \
     format, layout, base_model, addon_hash, lacks_vae, alias FROM file";

impl Index {
    /// Opens or makes the index.
    pub(super) fn open(path: &Path) -> Self {
        // A lost index costs a scan, so it is not worth waiting for the disk.
        let connection = database::open(path, "OFF", database::AT_START, &SCHEMA)
            .inspect_err(|error| warn!(%error, "no library index; every start reads all headers"))
            .ok();
        let digests = connection.as_ref().and_then(|connection| {
            Digests::read(connection).inspect_err(|error| warn!(%error, "library index")).ok()
        });
        Self { connection: Mutex::new(connection), digests: RwLock::new(digests.unwrap_or_default()) }
    }

    /// Everything that is known.
    pub(super) fn verdicts(&self) -> Verdicts {
        self.read_verdicts("", [])
    }

    /// What is known of one file.
    pub(super) fn verdict(&self, path: &Path) -> Verdicts {
        self.read_verdicts("WHERE path = ?", [path.to_str()])
    }

    fn read_verdicts(&self, which: &str, params: impl Params) -> Verdicts {
        Verdicts(self.with(|connection| read_verdicts(connection, which, params)).unwrap_or_default())
    }

    /// Replaces what is known of these files.
    pub(super) fn remember(&self, files: &[(PathBuf, Seen, Verdict)]) {
        if files.is_empty() {
            return;
        }
        let mut digests = self.digests.write().unwrap_or_else(PoisonError::into_inner);
        for (path, seen, _) in files {
            if let Some(path) = path.to_str() {
                digests.adopt(path, seen.file);
            }
        }
        self.with(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut insert = transaction.prepare(
                "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?;
            for (path, seen, verdict) in files {
                let Some(path) = path.to_str() else {
                    continue;
                };
                let none = Facts::default();
                let (kind, facts, broken) = match verdict {
                    Verdict::Sound(kind, facts) => (*kind, facts, None),
                    Verdict::Broken(class, reason) => (None, &none, Some((class.code(), reason))),
                };
                let also: Vec<_> = facts.also.iter().map(|kind| kind.name()).collect();
                insert.execute(params![
                    path,
                    key_of(seen),
                    kind.map(LibraryKind::name),
                    facts.architecture,
                    facts.dtype,
                    facts.parameters.cast_signed(),
                    facts.prediction.map(Prediction::name),
                    also.join(" "),
                    facts.old_hash,
                    broken.map(|(_, reason)| reason),
                    broken.map(|(class, _)| class),
                    facts.format,
                    facts.layout,
                    facts.base_model,
                    facts.addon_hash,
                    facts.lacks_vae,
                    facts.alias,
                ])?;
            }
            for (path, digest) in digests.take_changed() {
                write_digest(&transaction, path, digest)?;
            }
            drop(insert);
            transaction.commit()
        });
    }

    /// The digest of the file as it is now, if it was ever computed.
    pub(super) fn sha256(&self, path: &Path, stamp: Stamp) -> Option<String> {
        self.digest(path, stamp).map(|digest| digest.sha256.to_string())
    }

    /// All digests of the file as it is now, if they were ever computed.
    pub(super) fn digest(&self, path: &Path, stamp: Stamp) -> Option<Digest> {
        let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        digests.get(path.to_str()?, stamp).cloned()
    }

    /// Keeps the digests of a file: of all of it, and of what follows its header if that was computed too.
    pub(super) fn set_digest(&self, path: &Path, stamp: Stamp, sha256: &str, addon: Option<&str>) {
        let Some(path) = path.to_str() else {
            return;
        };
        let mut digests = self.digests.write().unwrap_or_else(PoisonError::into_inner);
        let digest = digests.set(path, stamp, sha256, addon);
        self.with(|connection| write_digest(connection, path, digest));
    }

    /// Keeps the digests of several files: for as long as this runs also where they cannot be written down.
    pub(super) fn set_digests(&self, files: &[Hashed]) {
        let mut digests = self.digests.write().unwrap_or_else(PoisonError::into_inner);
        for Hashed { path, stamp, sha256, addon, .. } in files {
            if let Some(path) = path.to_str() {
                digests.set(path, *stamp, sha256, addon.as_deref());
            }
        }
        self.with(|connection| {
            let transaction = connection.unchecked_transaction()?;
            for Hashed { path, stamp, .. } in files {
                let known = path.to_str().and_then(|path| Some((path, digests.get(path, *stamp)?)));
                if let Some((path, digest)) = known {
                    write_digest(&transaction, path, digest)?;
                }
            }
            transaction.commit()
        });
    }

    /// Files that moved keep their digests: pairs of where one is now and where one of the same inode, size and time may
    /// have been.
    pub(super) fn carry(&self, moved: &[(PathBuf, Stamp)], is_gone: impl Fn(&Path, Stamp) -> bool) {
        if moved.is_empty() {
            return;
        }
        let found = self.digests.read().unwrap_or_else(PoisonError::into_inner).moved(moved, is_gone);
        for (path, stamp, digest) in found {
            self.set_digest(path, stamp, &digest.sha256, digest.addon.as_deref());
        }
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let guard: MutexGuard<'_, _> = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = guard.as_ref()?;
        work(connection).inspect_err(|error| warn!(%error, "library index")).ok()
    }
}

fn read_verdicts(
    connection: &Connection,
    which: &str,
    params: impl Params,
) -> rusqlite::Result<HashMap<String, (String, Verdict)>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} {which}"))?;
    let rows = statement.query_map(params, |row| Ok((row.get(0)?, (row.get(1)?, read_verdict(row)?))))?;
    rows.collect()
}

/// See [`Schema::check`].
fn check(connection: &Connection) -> rusqlite::Result<()> {
    let (text, integer) = (&[Type::Text][..], &[Type::Integer][..]);
    let (maybe_text, maybe_integer) = (&[Type::Text, Type::Null][..], &[Type::Integer, Type::Null][..]);
    let mut file = vec![text, text];
    file.extend([maybe_text; 3].into_iter().chain([maybe_integer]).chain([maybe_text; 4]));
    file.extend([maybe_integer].into_iter().chain([maybe_text; 4]).chain([maybe_integer, maybe_text]));
    check_types(connection, &format!("{SELECT} "), &file)?;
    let digest = [text, integer, integer, maybe_integer, maybe_integer, text, maybe_text];
    check_types(connection, Digests::SELECT, &digest)
}

/// Whether all columns are of these types. Nothing is made of what stands in them: there may be much.
fn check_types(connection: &Connection, select: &str, columns: &[&[Type]]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for (place, types) in columns.iter().enumerate() {
            let value = row.get_ref(place)?;
            let found = value.data_type();
            let is_sound = types.contains(&found) && (found != Type::Text || value.as_str().is_ok());
            if !is_sound {
                return Err(rusqlite::Error::InvalidColumnType(place, select.to_owned(), found));
            }
        }
    }
    Ok(())
}

fn read_verdict(row: &Row<'_>) -> rusqlite::Result<Verdict> {
    if let Some(reason) = row.get(9)? {
        return Ok(Verdict::Broken(
            Class::from_code(row.get::<_, Option<i64>>(10)?.unwrap_or_default()),
            reason,
        ));
    }
    let kind = |name: &str| LibraryKind::from_name(name);
    let also: Option<String> = row.get(7)?;
    let facts = Facts {
        architecture: row.get(3)?,
        dtype: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
        parameters: row.get::<_, Option<i64>>(5)?.unwrap_or_default().cast_unsigned(),
        prediction: row.get::<_, Option<String>>(6)?.and_then(|name| Prediction::from_name(&name)),
        also: also.unwrap_or_default().split(' ').filter_map(kind).collect(),
        old_hash: row.get(8)?,
        format: row.get(11)?,
        layout: row.get(12)?,
        base_model: row.get(13)?,
        addon_hash: row.get(14)?,
        lacks_vae: row.get::<_, Option<bool>>(15)?.unwrap_or_default(),
        alias: row.get(16)?,
    };
    Ok(Verdict::Sound(row.get::<_, Option<String>>(2)?.and_then(|name| kind(&name)), facts))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DIGEST: &str = "97d57e42139facefcaac4670f91f71a16b460c5b0b576c454cc5bdcdd8fd7f86";

    /// A copy of the first version's index, and what it says of one file.
    fn first_version() -> (tempfile::TempDir, PathBuf, (PathBuf, Seen)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("library.db");
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/state/v1/library.db");
        fs::copy(kept, &path).expect("copied");
        let connection = Connection::open(&path).expect("opened");
        let row = connection.query_row("SELECT path, size, modified_ns FROM digest", [], |row| {
            let (size, modified_ns) = (row.get::<_, i64>(1)?.cast_unsigned(), row.get(2)?);
            let file = Stamp { size, modified_ns, changed_ns: 3, device: 4, inode: 5 };
            Ok((row.get::<_, String>(0)?.into(), Seen { file, config: None }))
        });
        (folder, path, row.expect("a digest"))
    }

    fn set_version(path: &Path, version: i64) {
        Connection::open(path).expect("opened").pragma_update(None, "user_version", version).expect("set");
    }

    fn broken() -> Verdict {
        Verdict::Broken(Class::Unsupported, "why".into())
    }

    #[test]
    fn what_older_ones_found_is_looked_at_again_and_digests_stay() {
        for version in [0, 1, 2] {
            let (_folder, path, (file, seen)) = first_version();
            let old = Connection::open(&path).expect("opened");
            if version == 0 {
                old.execute_batch("ALTER TABLE file DROP COLUMN broken").expect("made older");
            }
            if version == 2 {
                old.execute_batch(SECOND).expect("made newer");
            }
            drop(old);
            set_version(&path, version);
            let index = Index::open(&path);
            assert!(index.verdicts().get(&file, &seen).is_none());
            // Of a file of another size or time it is none; of this one it is.
            let other = Seen { file: Stamp { size: 1, ..seen.file }, config: None };
            index.remember(&[(file.clone(), other, broken())]);
            assert_eq!(index.sha256(&file, seen.file), None);
            index.remember(&[(file.clone(), seen, broken())]);
            assert_eq!(index.sha256(&file, seen.file).as_deref(), Some(DIGEST));
            // And of none that has its size and time and is another one.
            let replaced = Stamp { inode: 6, ..seen.file };
            index.remember(&[(file.clone(), Seen { file: replaced, config: None }, broken())]);
            assert_eq!(index.sha256(&file, replaced), None);
            assert!(Index::open(&path).sha256(&file, seen.file).is_some());
        }
    }

    #[test]
    fn what_was_found_is_known_of_the_same_file_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("library.db");
        let file = PathBuf::from("/models/a.safetensors");
        let stamp = Stamp { size: 1, modified_ns: 2, changed_ns: 3, device: 4, inode: 5 };
        let seen = Seen { file: stamp, config: None };
        let facts = Facts {
            architecture: Some("sd1".into()),
            dtype: "f16".into(),
            parameters: u64::MAX,
            prediction: Some(Prediction::Velocity),
            also: vec![LibraryKind::Controlnet, LibraryKind::Lora],
            old_hash: Some("0123abcd".into()),
            format: Some("safetensors".into()),
            layout: Some("ldm".into()),
            base_model: Some("sd_v1".into()),
            addon_hash: Some(DIGEST.into()),
            lacks_vae: true,
            alias: Some("other".into()),
        };
        for verdict in [broken(), Verdict::Sound(None, Facts::default()), {
            Verdict::Sound(Some(LibraryKind::Checkpoint), facts)
        }] {
            Index::open(&path).remember(&[(file.clone(), seen, verdict.clone())]);
            let known = Index::open(&path).verdict(&file);
            assert_eq!(known.get(&file, &seen), Some(verdict.clone()));
            // A disk may have another number after each start.
            let mounted = Seen { file: Stamp { device: 9, ..stamp }, config: None };
            assert_eq!(known.get(&file, &mounted), Some(verdict));
            for other in [
                Seen { file: Stamp { size: 9, ..stamp }, config: None },
                Seen { file: Stamp { modified_ns: 9, ..stamp }, config: None },
                Seen { file: Stamp { changed_ns: 9, ..stamp }, config: None },
                Seen { file: Stamp { inode: 9, ..stamp }, config: None },
                Seen { file: stamp, config: Some(stamp) },
            ] {
                assert_eq!(known.get(&file, &other), None, "{other:?}");
            }
        }
    }

    #[test]
    fn a_file_that_moved_keeps_its_digests_and_no_other_has_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("library.db");
        let stamp = Stamp { size: 1, modified_ns: 2, changed_ns: 3, device: 4, inode: 5 };
        let (old, new) = (PathBuf::from("/models/old"), PathBuf::from("/models/new"));
        let renamed = Stamp { changed_ns: 9, ..stamp };
        Index::open(&path).set_digest(&old, stamp, DIGEST, Some("addon"));
        let index = Index::open(&path);
        // One that is still there is another file, and so is one of another size, time or inode.
        index.carry(&[(new.clone(), renamed)], |_, _| false);
        for other in
            [Stamp { size: 9, ..renamed }, Stamp { modified_ns: 9, ..renamed }, Stamp { inode: 9, ..renamed }]
        {
            index.carry(&[(new.clone(), other)], |_, _| true);
        }
        // What stands at the same path and was written to is not the same, though its time was set back.
        index.carry(&[(old.clone(), renamed)], |_, _| true);
        assert!(index.digest(&new, renamed).is_none() && index.digest(&old, renamed).is_none());
        index.carry(&[(new.clone(), renamed)], |path, of| path == old && of == renamed);
        for index in [index, Index::open(&path)] {
            let digest = index.digest(&new, renamed).expect("kept");
            assert_eq!((&*digest.sha256, digest.addon.as_deref()), (DIGEST, Some("addon")));
        }
    }

    #[test]
    fn digests_are_known_where_they_cannot_be_written_down() {
        let (_folder, kept, (file, stamp)) = {
            let (folder, path, (file, seen)) = first_version();
            (folder, path, (file, seen.file))
        };
        let closed = Index::open(&kept);
        // As when the disk is full: whatever is written fails.
        closed.with(|connection| connection.execute_batch("DROP TABLE digest"));
        for index in [Index::open(Path::new("/none/of/this/library.db")), closed] {
            let hashed = Hashed {
                path: file.clone(),
                stamp,
                sha256: DIGEST.to_owned(),
                addon: Some("addon".to_owned()),
                name: "checkpoint/a".to_owned(),
            };
            index.set_digests(&[hashed]);
            let digest = index.digest(&file, stamp).expect("known");
            assert_eq!((&*digest.sha256, digest.addon.as_deref()), (DIGEST, Some("addon")));
        }
    }

    #[test]
    fn a_newer_one_is_left_alone_and_gone_without() {
        let (_folder, path, (file, seen)) = first_version();
        set_version(&path, 999);
        let before = fs::read(&path).expect("read");
        let index = Index::open(&path);
        index.remember(&[(file.clone(), seen, broken())]);
        index.set_digest(&file, seen.file, "00", None);
        assert!(index.verdicts().get(&file, &seen).is_none());
        assert_eq!(index.sha256(&file, seen.file).as_deref(), Some("00"), "for as long as this runs");
        drop(index);
        assert!(fs::read(&path).expect("read") == before, "untouched");
    }
}
