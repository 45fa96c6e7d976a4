//! What is known of files from earlier looks, in SQLite: a file with the same size and time is not read again.
//!
//! The index only saves work. Where it cannot be opened or written, or is a newer latentd's, the library goes on without.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use latentd_client::protocol::LibraryKind;
use rusqlite::{Connection, OptionalExtension, Params, params};
use tracing::warn;

use super::item::{Facts, Stamp};
use crate::database::{self, Schema};

/// What an earlier look found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds this kind. `None`: sound, but nothing that is told by content.
    Sound(Option<LibraryKind>, Facts),
    /// It cannot be used.
    Broken(String),
}

/// The index.
pub(super) struct Index {
    connection: Mutex<Option<Connection>>,
}

/// See [`database::open`]. When a look tells more of a file or tells it otherwise, a step more forgets what older versions
/// found; digests stay true.
const SCHEMA: Schema = Schema {
    migrations: &[FIRST],
    probe: "SELECT file.path, kind, architecture, dtype, parameters, broken, sha256 FROM file, digest",
};

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

impl Index {
    /// Opens or makes the index.
    pub(super) fn open(path: &Path) -> Self {
        // A lost index costs a scan, so it is not worth waiting for the disk.
        let connection = database::open(path, "OFF", &SCHEMA)
            .inspect_err(|error| warn!(%error, "no library index; every start reads all headers"))
            .ok();
        Self { connection: Mutex::new(connection) }
    }

    /// Everything that is known, by path.
    pub(super) fn verdicts(&self) -> HashMap<String, (Stamp, Verdict)> {
        self.read_verdicts("", [])
    }

    fn read_verdicts(&self, which: &str, params: impl Params) -> HashMap<String, (Stamp, Verdict)> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT path, size, modified_ns, kind, architecture, dtype, parameters, broken FROM file {which}"
            ))?;
            let rows = statement.query_map(params, |row| {
                let stamp = Stamp { size: row.get::<_, i64>(1)?.cast_unsigned(), modified_ns: row.get(2)? };
                let verdict = match row.get::<_, Option<String>>(7)? {
                    Some(reason) => Verdict::Broken(reason),
                    None => Verdict::Sound(
                        row.get::<_, Option<String>>(3)?.and_then(|kind| LibraryKind::from_name(&kind)),
                        Facts {
                            architecture: row.get(4)?,
                            dtype: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
                            parameters: row.get::<_, Option<i64>>(6)?.unwrap_or_default().cast_unsigned(),
                        },
                    ),
                };
                Ok((row.get(0)?, (stamp, verdict)))
            })?;
            rows.collect()
        };
        self.with(read).unwrap_or_default()
    }

    /// What is known of one file.
    pub(super) fn verdict(&self, path: &Path) -> HashMap<String, (Stamp, Verdict)> {
        self.read_verdicts("WHERE path = ?", [path.to_str()])
    }

    /// Replaces what is known of these files.
    pub(super) fn remember(&self, files: &[(String, Stamp, Verdict)]) {
        if files.is_empty() {
            return;
        }
        self.with(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut insert =
                transaction.prepare("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?;
            for (path, stamp, verdict) in files {
                let size = stamp.size.cast_signed();
                match verdict {
                    Verdict::Sound(kind, facts) => insert.execute(params![
                        path,
                        size,
                        stamp.modified_ns,
                        kind.map(LibraryKind::name),
                        facts.architecture,
                        facts.dtype,
                        facts.parameters.cast_signed(),
                        None::<String>,
                    ])?,
                    Verdict::Broken(reason) => insert.execute(params![
                        path,
                        size,
                        stamp.modified_ns,
                        None::<String>,
                        None::<String>,
                        None::<String>,
                        None::<i64>,
                        reason,
                    ])?,
                };
            }
            drop(insert);
            transaction.commit()
        });
    }

    /// The digest of the file as it is now, if it was ever computed.
    pub(super) fn sha256(&self, path: &Path, stamp: Stamp) -> Option<String> {
        let path = path.to_str()?;
        self.with(|connection| {
            connection
                .prepare_cached("SELECT sha256 FROM digest WHERE path = ? AND size = ? AND modified_ns = ?")?
                .query_row(params![path, stamp.size.cast_signed(), stamp.modified_ns], |row| row.get(0))
                .optional()
        })
        .flatten()
    }

    /// Keeps a digest.
    pub(super) fn set_sha256(&self, path: &Path, stamp: Stamp, digest: &str) {
        let Some(path) = path.to_str() else {
            return;
        };
        self.with(|connection| {
            connection.execute(
                "INSERT OR REPLACE INTO digest VALUES (?, ?, ?, ?)",
                params![path, stamp.size.cast_signed(), stamp.modified_ns, digest],
            )
        });
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let guard: MutexGuard<'_, _> = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = guard.as_ref()?;
        work(connection).inspect_err(|error| warn!(%error, "library index")).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    const DIGEST: &str = "97d57e42139facefcaac4670f91f71a16b460c5b0b576c454cc5bdcdd8fd7f86";

    /// A copy of the first version's index, and what stands in it of one file.
    fn first_version() -> (tempfile::TempDir, PathBuf, (String, Stamp)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("library.db");
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/state/v1/library.db");
        fs::copy(kept, &path).expect("copied");
        let connection = Connection::open(&path).expect("opened");
        let row = connection.query_row("SELECT path, size, modified_ns FROM digest", [], |row| {
            Ok((row.get(0)?, Stamp { size: row.get::<_, i64>(1)?.cast_unsigned(), modified_ns: row.get(2)? }))
        });
        (folder, path, row.expect("a digest"))
    }

    fn set_version(path: &Path, version: i64) {
        Connection::open(path).expect("opened").pragma_update(None, "user_version", version).expect("set");
    }

    #[test]
    fn the_first_versions_index_is_read() {
        let (_folder, path, (file, stamp)) = first_version();
        let index = Index::open(&path);
        let verdicts = index.verdicts();
        assert_eq!(verdicts.len(), 2);
        assert!(matches!(&verdicts[&file], (_, Verdict::Sound(Some(LibraryKind::Checkpoint), _))));
        assert_eq!(index.sha256(Path::new(&file), stamp).as_deref(), Some(DIGEST));
    }

    #[test]
    fn what_older_ones_found_is_looked_at_again_and_digests_stay() {
        let (_folder, path, (file, stamp)) = first_version();
        let old = Connection::open(&path).expect("opened");
        old.execute_batch("ALTER TABLE file DROP COLUMN broken; PRAGMA user_version = 0")
            .expect("made older");
        drop(old);
        let index = Index::open(&path);
        assert!(index.verdicts().is_empty());
        assert_eq!(index.sha256(Path::new(&file), stamp).as_deref(), Some(DIGEST));
        index.remember(&[(file.clone(), stamp, Verdict::Broken("why".into()))]);
        assert_eq!(Index::open(&path).verdicts()[&file].1, Verdict::Broken("why".into()));
    }

    #[test]
    fn a_newer_one_is_left_alone_and_gone_without() {
        let (_folder, path, (file, stamp)) = first_version();
        set_version(&path, 999);
        let before = fs::read(&path).expect("read");
        let index = Index::open(&path);
        index.remember(&[(file.clone(), stamp, Verdict::Broken("why".into()))]);
        index.set_sha256(Path::new(&file), stamp, "00");
        assert!(index.verdicts().is_empty() && index.sha256(Path::new(&file), stamp).is_none());
        drop(index);
        assert!(fs::read(&path).expect("read") == before, "untouched");
    }
}
