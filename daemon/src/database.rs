//! SQLite files of ours. One that is damaged is put aside, so that it does not keep the daemon from starting.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Error, ErrorCode};
use tracing::warn;

/// Opens or makes the database. `synchronous` says when it waits for the disk.
pub(crate) fn open(path: &Path, synchronous: &str, schema: &str) -> rusqlite::Result<Connection> {
    match try_open(path, synchronous, schema) {
        Err(error) if is_damage(&error) => {
            let aside = beside(path, ".damaged");
            warn!(path = %path.display(), %error, aside = %aside.display(), "damaged; put aside, starting anew");
            put_aside(path, &aside);
            try_open(path, synchronous, schema)
        }
        other => other,
    }
}

fn try_open(path: &Path, synchronous: &str, schema: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.execute_batch(schema)?;
    // Small databases: this takes milliseconds.
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(connection);
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(Error::SqliteFailure(code, Some(verdict)))
}

fn is_damage(error: &Error) -> bool {
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

    const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS note (text TEXT NOT NULL)";

    fn notes(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM note", [], |row| row.get(0)).expect("counted")
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
