//! SQLite files of ours, each with a version. An older one is brought up to date, one of a newer latentd is refused and left
//! as it is. One that is damaged is put aside, so that it does not keep the daemon from starting.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::ffi::SQLITE_IOERR_SHORT_READ;
use rusqlite::{Connection, ErrorCode, MAIN_DB, TransactionBehavior};
use tracing::{info, warn};

use crate::file_holder::FileHolder;
use crate::process;

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
    /// Another process has it to itself.
    #[error("{} is locked by {holder}", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who that is.
        holder: FileHolder,
    },
    /// It cannot grow.
    #[error("cannot write {}: {shortage}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What there is too little of.
        shortage: Shortage,
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

impl Error {
    /// Why SQLite refuses this file.
    pub(crate) fn of(path: &Path, error: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let limit = process::file_size_limit();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                let files = ["", "-wal", "-shm"].map(|suffix| beside(&path, suffix));
                Self::Locked { holder: FileHolder::find(&files), path }
            }
            Some(ErrorCode::DiskFull) => Self::Full { path, shortage: Shortage::Disk },
            // SQLite does not say of which kind a failed write was.
            Some(ErrorCode::SystemIoFailure) if limit.is_some() && !is_cut(&error) => {
                Self::Full { path, shortage: Shortage::FileSize(limit.unwrap_or_default()) }
            }
            _ => Self::Sqlite { path, error },
        }
    }
}

/// Why a file cannot grow, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Shortage {
    #[error("the disk is full; make room")]
    Disk,
    /// With the bytes that a file may have.
    #[error("the daemon's files may have {0} bytes at most; raise that limit (ulimit -f)")]
    FileSize(u64),
}

/// How long it may be locked by another process when it is opened: then that is said.
pub(crate) const AT_START: Duration = Duration::from_millis(250);
/// How long it may be later, when somebody makes a copy of it for example.
pub(crate) const LATER: Duration = Duration::from_secs(1);

/// What a database holds.
pub(crate) struct Schema {
    /// `migrations[n]` is the SQL that makes version n + 1 of version n. Version 0 is an empty file, or one of before
    /// versions were written down.
    pub migrations: &'static [&'static str],
    /// Reads all that will be read later: SQLite lets others put anything into any column.
    pub check: fn(&Connection) -> rusqlite::Result<()>,
}

/// Opens or makes the database. `synchronous` says when it waits for the disk, `patience` how long for another process.
pub(crate) fn open(
    path: &Path,
    synchronous: &str,
    patience: Duration,
    schema: &Schema,
) -> Result<Connection, Error> {
    match try_open(path, synchronous, patience, schema) {
        Err(Error::Sqlite { error, .. }) if is_damage(&error) => {
            let aside = free_name(path);
            warn!(path = %path.display(), %error, aside = %aside.display(), "damaged; put aside, starting anew");
            put_aside(path, &aside);
            try_open(path, synchronous, patience, schema)
        }
        other => other,
    }
}

fn try_open(
    path: &Path,
    synchronous: &str,
    patience: Duration,
    schema: &Schema,
) -> Result<Connection, Error> {
    let refused = |error| Error::of(path, error);
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
    let connection = Connection::open(path).map_err(refused)?;
    connection.busy_timeout(patience).map_err(refused)?;
    let found: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(refused)?;
    let known = schema.migrations.len() as i64;
    if !(0..=known).contains(&found) {
        // Closing would bring what stands in its log into the file.
        let keeps_log = log > 0;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keeps_log).map_err(refused)?;
        return Err(Error::Newer { path: path.to_owned(), found, known });
    }
    ready(connection, path, synchronous, found as usize, schema).map_err(refused)
}

fn ready(
    mut connection: Connection,
    path: &Path,
    synchronous: &str,
    found: usize,
    schema: &Schema,
) -> rusqlite::Result<Connection> {
    // Small databases: this takes milliseconds.
    let verdict = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match verdict.map_err(as_damage)?.as_str() {
        "ok" => (),
        verdict => return Err(damage(verdict)),
    }
    // SQLite takes a file for read-only if what stands in it says so.
    if connection.is_readonly(MAIN_DB)? && File::options().write(true).open(path).is_ok() {
        return Err(damage("it says that it cannot be written"));
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Whether it can be written: who reads it alone notices no lock.
    connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    let migrations = schema.migrations;
    if found < migrations.len() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for migration in &migrations[found..] {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", migrations.len() as i64)?;
        transaction.commit()?;
        info!(path = %path.display(), from = found, to = migrations.len(), "database brought up to date");
    }
    (schema.check)(&connection).map_err(as_damage)?;
    connection.busy_timeout(LATER)?;
    Ok(connection)
}

/// Of a file that can be opened, SQLite's own queries and ours are sound: what it says of them is of the file.
pub(crate) fn as_damage(error: rusqlite::Error) -> rusqlite::Error {
    let is_odd = matches!(&error, rusqlite::Error::SqlInputError { error, .. } if error.code == ErrorCode::Unknown)
        || error.sqlite_error_code() == Some(ErrorCode::Unknown);
    if is_odd { damage(&error.to_string()) } else { error }
}

fn damage(what: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(what.to_owned()))
}

/// Whether the file is not what was written.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    // We write no values of other types than we read.
    let has_strange_values = matches!(
        error,
        E::InvalidColumnType(..)
            | E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::Utf8Error(..)
    );
    let is_refused =
        matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt));
    has_strange_values || is_refused || is_cut(error)
}

/// Whether the file is shorter than it says.
fn is_cut(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_SHORT_READ)
}

/// A name beside `path` that nothing has: what was put aside before stays.
fn free_name(path: &Path) -> PathBuf {
    let numbered = (2..).map(|number| beside(path, &format!(".damaged-{number}")));
    let mut names = std::iter::once(beside(path, ".damaged")).chain(numbered);
    names.find(|name| !name.exists()).unwrap_or_else(|| beside(path, ".damaged"))
}

fn put_aside(path: &Path, aside: &Path) {
    if let Err(error) = std::fs::rename(path, aside) {
        warn!(path = %path.display(), %error, "cannot be put aside");
    }
    // Its log goes with it: it must not be taken for the new one's, and holds what was written last.
    std::fs::rename(beside(path, "-wal"), beside(aside, "-wal")).ok();
    std::fs::remove_file(beside(path, "-shm")).ok();
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE IF NOT EXISTS note (text TEXT NOT NULL)";
    const SCHEMA: Schema = Schema { migrations: &[FIRST], check: |notes| texts(notes).map(drop) };

    fn texts(connection: &Connection) -> rusqlite::Result<Vec<String>> {
        connection.prepare("SELECT text FROM note")?.query_map([], |row| row.get(0))?.collect()
    }

    fn open(path: &Path, synchronous: &str, schema: &Schema) -> Result<Connection, Error> {
        super::open(path, synchronous, AT_START, schema)
    }

    fn notes(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM note", [], |row| row.get(0)).expect("counted")
    }

    #[test]
    fn an_older_one_is_brought_up_to_date_and_a_newer_one_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.db");
        let first = open(&path, "NORMAL", &SCHEMA).expect("made");
        first.execute("INSERT INTO note VALUES ('old')", []).expect("inserted");
        drop(first);
        let migrations = &[FIRST, "ALTER TABLE note ADD COLUMN length INTEGER", "UPDATE note SET length = 3"];
        let check = |notes: &Connection| notes.prepare("SELECT text, length FROM note").map(drop);
        let later = Schema { migrations, check };
        for _ in 0..2 {
            let length: i64 = open(&path, "NORMAL", &later)
                .and_then(|connection| {
                    let length = connection.query_row("SELECT length FROM note", [], |row| row.get(0));
                    length.map_err(|error| Error::Sqlite { path: path.clone(), error })
                })
                .expect("brought up to date");
            assert_eq!(length, 3);
        }
        let before = std::fs::read(&path).expect("read");
        let error = open(&path, "NORMAL", &SCHEMA).expect_err("newer").to_string();
        assert!(error.contains("notes.db is of version 3, and this latentd knows up to 1"), "{error}");
        assert!(std::fs::read(&path).expect("read") == before, "untouched");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing beside it");
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.db");
        open(&path, "NORMAL", &SCHEMA)
            .expect("made")
            .execute("INSERT INTO note VALUES ('a')", [])
            .expect("inserted");
        let broken = Schema { migrations: &[FIRST, "DELETE FROM note", "nonsense"], ..SCHEMA };
        assert!(matches!(open(&path, "NORMAL", &broken), Err(Error::Sqlite { .. })));
        assert_eq!(notes(&open(&path, "NORMAL", &SCHEMA).expect("as before")), 1);
    }

    #[test]
    fn damage_of_any_kind_is_put_aside_and_stays_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.db");
        let connection = open(&path, "NORMAL", &SCHEMA).expect("opened");
        for _ in 0..2000 {
            connection.execute("INSERT INTO note VALUES ('what was to be kept')", []).expect("inserted");
        }
        drop(connection);
        let bytes = std::fs::read(&path).expect("read");
        assert_eq!(notes(&open(&path, "NORMAL", &SCHEMA).expect("opened")), 2000);
        let mut holed = bytes.clone();
        holed[8192..16384].fill(0xee);
        let garbage = b"garbage".repeat(1000);
        let all = [garbage, bytes[..bytes.len() / 2].to_vec(), holed];
        for damaged in &all {
            std::fs::write(&path, damaged).expect("written");
            let connection = open(&path, "NORMAL", &SCHEMA).expect("opened anew");
            assert_eq!(notes(&connection), 0);
        }
        for (suffix, damaged) in [".damaged", ".damaged-2", ".damaged-3"].into_iter().zip(&all) {
            assert!(std::fs::read(beside(&path, suffix)).expect("kept") == *damaged, "{suffix}");
        }
    }

    #[test]
    fn a_value_of_a_wrong_type_is_damage() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.db");
        for (round, value) in ["x'00ff'", "cast(x'ff' AS TEXT)"].into_iter().enumerate() {
            let connection = open(&path, "NORMAL", &SCHEMA).expect("opened");
            connection.execute(&format!("INSERT INTO note VALUES ({value})"), []).expect("inserted");
            drop(connection);
            assert_eq!(notes(&open(&path, "NORMAL", &SCHEMA).expect("opened anew")), 0, "{value}");
            assert!(free_name(&path).ends_with(format!("notes.db.damaged-{}", round + 2)), "{value}");
        }
    }

    #[test]
    fn a_flipped_bit_of_the_header_keeps_nothing_from_starting() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.db");
        drop(open(&path, "NORMAL", &SCHEMA).expect("made"));
        let sound = std::fs::read(&path).expect("read");
        // The first hundred bytes, and what follows of the page that says what the tables are.
        for bit in (0..120 * 8).filter(|bit| !(60 * 8..64 * 8).contains(bit)) {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).expect("written");
            let connection = open(&path, "OFF", &SCHEMA).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
            let written = connection.execute("INSERT INTO note VALUES ('new')", []);
            assert_eq!(written, Ok(1), "bit {bit}");
            drop(connection);
            for entry in std::fs::read_dir(folder.path()).expect("listed") {
                std::fs::remove_file(entry.expect("an entry").path()).expect("removed");
            }
        }
    }
}
