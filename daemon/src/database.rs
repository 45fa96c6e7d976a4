//! SQLite files of ours, each with a version. An older one is brought up to date, one of a newer latentd is refused and left
//! as it is. One that is damaged is put aside, so that it does not keep the daemon from starting.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tracing::{info, warn};

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is sound, but what it holds cannot be known.
    #[error("{} is of version {found}, and this latentd knows up to {known}: a newer one wrote it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// SQLite refuses it.
    #[error("{}: {error}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
}

/// Opens or makes the database. `synchronous` says when it waits for the disk; `migrations[n]` is the SQL that makes
/// version n + 1 of version n. Version 0 is an empty file, or one of before versions were written down.
pub(crate) fn open(path: &Path, synchronous: &str, migrations: &[&str]) -> Result<Connection, Error> {
    match try_open(path, synchronous, migrations) {
        Err(Error::Sqlite { error, .. }) if is_damage(&error) => {
            let aside = beside(path, ".damaged");
            warn!(path = %path.display(), %error, aside = %aside.display(), "damaged; put aside, starting anew");
            put_aside(path, &aside);
            try_open(path, synchronous, migrations)
        }
        other => other,
    }
}

fn try_open(path: &Path, synchronous: &str, migrations: &[&str]) -> Result<Connection, Error> {
    let refused = |error| Error::Sqlite { path: path.to_owned(), error };
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
    let connection = Connection::open(path).map_err(refused)?;
    let found: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(refused)?;
    let known = migrations.len() as i64;
    if !(0..=known).contains(&found) {
        // Closing would bring what stands in its log into the file.
        let keeps_log = log > 0;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keeps_log).map_err(refused)?;
        return Err(Error::Newer { path: path.to_owned(), found, known });
    }
    ready(connection, synchronous, found as usize, migrations).map_err(refused)
}

fn ready(
    mut connection: Connection,
    synchronous: &str,
    found: usize,
    migrations: &[&str],
) -> rusqlite::Result<Connection> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    if found < migrations.len() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for migration in &migrations[found..] {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", migrations.len() as i64)?;
        transaction.commit()?;
        info!(path = ?connection.path(), from = found, to = migrations.len(), "database brought up to date");
    }
    // Small databases: this takes milliseconds.
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(connection);
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(code, Some(verdict)))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn put_aside(path: &Path, aside: &Path) {
    if let Err(error) = std::fs::rename(path, aside) {
        warn!(path = %path.display(), %error, "cannot be put aside");
    }
    // The log of the old one must not be taken for the new one's.
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(beside(path, suffix)).ok();
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &[&str] = &["CREATE TABLE IF NOT EXISTS note (text TEXT NOT NULL)"];

    fn notes(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM note", [], |row| row.get(0)).expect("counted")
    }

    #[test]
    fn an_older_one_is_brought_up_to_date_and_a_newer_one_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.db");
        let first = open(&path, "NORMAL", SCHEMA).expect("made");
        first.execute("INSERT INTO note VALUES ('old')", []).expect("inserted");
        drop(first);
        let later: &[&str] =
            &[SCHEMA[0], "ALTER TABLE note ADD COLUMN length INTEGER", "UPDATE note SET length = 3"];
        for _ in 0..2 {
            let length: i64 = open(&path, "NORMAL", later)
                .and_then(|connection| {
                    let length = connection.query_row("SELECT length FROM note", [], |row| row.get(0));
                    length.map_err(|error| Error::Sqlite { path: path.clone(), error })
                })
                .expect("brought up to date");
            assert_eq!(length, 3);
        }
        let before = std::fs::read(&path).expect("read");
        let error = open(&path, "NORMAL", SCHEMA).expect_err("newer").to_string();
        assert!(error.contains("notes.db is of version 3, and this latentd knows up to 1"), "{error}");
        assert!(std::fs::read(&path).expect("read") == before, "untouched");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing beside it");
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.db");
        open(&path, "NORMAL", SCHEMA)
            .expect("made")
            .execute("INSERT INTO note VALUES ('a')", [])
            .expect("inserted");
        let broken: &[&str] = &[SCHEMA[0], "DELETE FROM note", "nonsense"];
        assert!(matches!(open(&path, "NORMAL", broken), Err(Error::Sqlite { .. })));
        assert_eq!(notes(&open(&path, "NORMAL", SCHEMA).expect("as before")), 1);
    }

    #[test]
    fn damage_of_any_kind_is_put_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.db");
        let sound = || {
            let connection = open(&path, "NORMAL", SCHEMA).expect("opened");
            for _ in 0..2000 {
                connection.execute("INSERT INTO note VALUES ('what was to be kept')", []).expect("inserted");
            }
            drop(connection);
            std::fs::read(&path).expect("read")
        };
        let bytes = sound();
        assert_eq!(notes(&open(&path, "NORMAL", SCHEMA).expect("opened")), 2000);
        let mut holed = bytes.clone();
        holed[8192..16384].fill(0xee);
        for damaged in [b"garbage".repeat(1000), bytes[..bytes.len() / 2].to_vec(), holed] {
            std::fs::write(&path, &damaged).expect("written");
            let connection = open(&path, "NORMAL", SCHEMA).expect("opened anew");
            assert_eq!(notes(&connection), 0);
            assert_eq!(std::fs::read(beside(&path, ".damaged")).expect("kept").len(), damaged.len());
        }
    }
}
