//! What is known of files from earlier looks, in SQLite: a file that is as it was is not read again.
//!
//! The index only saves work. Where it cannot be opened or written, or is a newer latentd's, the library goes on without.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use latentd_client::protocol::LibraryKind;
use latentd_models::files::Prediction;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use tracing::warn;

use super::item::Facts;
use super::judge::Verdict;
use super::stamp::{Seen, Stamp};
use crate::database::{self, Schema};
use crate::error::Class;

/// The index.
pub(super) struct Index {
    connection: Mutex<Option<Connection>>,
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
const SCHEMA: Schema = Schema { migrations: &[FIRST, SECOND], check };

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

impl Index {
    /// Opens or makes the index.
    pub(super) fn open(path: &Path) -> Self {
        // A lost index costs a scan, so it is not worth waiting for the disk.
        let connection = database::open(path, "OFF", database::AT_START, &SCHEMA)
            .inspect_err(|error| warn!(%error, "no library index; every start reads all headers"))
            .ok();
        Self { connection: Mutex::new(connection) }
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
        self.with(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut insert = transaction
                .prepare("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
            let mut adopt = transaction.prepare(
                "UPDATE digest SET changed_ns = ?, inode = ? \
                 WHERE path = ? AND size = ? AND modified_ns = ? AND inode IS NULL",
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
                ])?;
                let Stamp { size, modified_ns, changed_ns, inode, .. } = seen.file;
                adopt.execute(params![
                    changed_ns,
                    inode.cast_signed(),
                    path,
                    size.cast_signed(),
                    modified_ns
                ])?;
            }
            drop((insert, adopt));
            transaction.commit()
        });
    }

    /// The digest of the file as it is now, if it was ever computed.
    pub(super) fn sha256(&self, path: &Path, stamp: Stamp) -> Option<String> {
        let path = path.to_str()?;
        let Stamp { size, modified_ns, changed_ns, inode, .. } = stamp;
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT sha256 FROM digest \
                     WHERE path = ? AND size = ? AND modified_ns = ? AND changed_ns = ? AND inode = ?",
                )?
                .query_row(
                    params![path, size.cast_signed(), modified_ns, changed_ns, inode.cast_signed()],
                    |row| row.get(0),
                )
                .optional()
        })
        .flatten()
    }

    /// Keeps a digest.
    pub(super) fn set_sha256(&self, path: &Path, stamp: Stamp, digest: &str) {
        let Some(path) = path.to_str() else {
            return;
        };
        let Stamp { size, modified_ns, changed_ns, inode, .. } = stamp;
        self.with(|connection| {
            connection.execute(
                "INSERT OR REPLACE INTO digest (path, size, modified_ns, sha256, changed_ns, inode) \
                 VALUES (?, ?, ?, ?, ?, ?)",
                params![path, size.cast_signed(), modified_ns, digest, changed_ns, inode.cast_signed()],
            )
        });
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
    let mut statement = connection.prepare_cached(&format!(
        "SELECT path, seen, kind, architecture, dtype, parameters, prediction, also, old_hash, broken, broken_class \
         FROM file {which}"
    ))?;
    let rows = statement.query_map(params, |row| Ok((row.get(0)?, (row.get(1)?, read_verdict(row)?))))?;
    rows.collect()
}

/// See [`Schema::check`].
fn check(connection: &Connection) -> rusqlite::Result<()> {
    read_verdicts(connection, "", [])?;
    let mut digests = connection.prepare("SELECT sha256, changed_ns, inode FROM digest")?;
    let digests = digests.query_map([], |row| {
        row.get::<_, String>(0)?;
        row.get::<_, Option<i64>>(1)?;
        row.get::<_, Option<i64>>(2).map(drop)
    })?;
    digests.collect()
}

fn read_verdict(row: &Row<'_>) -> rusqlite::Result<Verdict> {
    if let Some(reason) = row.get(9)? {
        return Ok(Verdict::Broken(Class::from_code(row.get(10)?), reason));
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
        for version in [0, 1] {
            let (_folder, path, (file, seen)) = first_version();
            let old = Connection::open(&path).expect("opened");
            if version == 0 {
                old.execute_batch("ALTER TABLE file DROP COLUMN broken").expect("made older");
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
    fn a_newer_one_is_left_alone_and_gone_without() {
        let (_folder, path, (file, seen)) = first_version();
        set_version(&path, 999);
        let before = fs::read(&path).expect("read");
        let index = Index::open(&path);
        index.remember(&[(file.clone(), seen, broken())]);
        index.set_sha256(&file, seen.file, "00");
        assert!(index.verdicts().get(&file, &seen).is_none() && index.sha256(&file, seen.file).is_none());
        drop(index);
        assert!(fs::read(&path).expect("read") == before, "untouched");
    }
}
