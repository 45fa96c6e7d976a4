//! Jobs that outlive the daemon: a row each in SQLite. Which of them, and of their results, are kept.
//!
//! A row is written before anybody hears of what it says, and survives the end of the process in any way. SQLite does not
//! wait for the disk at each of them, so a power cut may take the last ones with it. Results are on the disk before
//! their rows: one whose row is lost, for whatever reason, gets a new one from what its file says.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use latentd_client::protocol::{JobState, JobView};
use rusqlite::ffi::SQLITE_IOERR_SHORT_READ;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tracing::{info, warn};

use super::id;
use super::job::{Job, Standing};
use super::results::{Identity, Results};
use super::wanted::WantedResults;
use crate::database::{self, Schema};
use crate::error::{Class, Error};
use crate::state_dir::{StateDir, StateDirError};
use crate::tasks::Request;
use crate::{clock, lock_file};

/// See [`database::open`].
const SCHEMA: Schema = Schema {
    migrations: &[FIRST],
    probe: "SELECT number, id, method, request_sha256, state, created_at, started_at, finished_at, step, steps, \
            error_code, error_text, last_seq, result_bytes FROM job",
};

const FIRST: &str = "
    CREATE TABLE IF NOT EXISTS job (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, method TEXT NOT NULL, request_sha256 BLOB NOT NULL,
        state TEXT NOT NULL, created_at REAL NOT NULL, started_at REAL, finished_at REAL,
        step INTEGER NOT NULL, steps INTEGER NOT NULL, error_code INTEGER, error_text TEXT,
        last_seq INTEGER NOT NULL, result_bytes INTEGER
    );
    CREATE INDEX IF NOT EXISTS job_finished ON job (finished_at);
";

/// Of the digest of a request: 1 is of the parameters as they were sent.
const DIGEST_VERSION: u8 = 1;

const COLUMNS: &str = "id, method, request_sha256, state, created_at, started_at, finished_at, step, steps, error_code, \
                       error_text, last_seq, result_bytes";

/// The rows, and the files whose life they decide.
pub(super) struct Store {
    state_dir: Arc<StateDir>,
    results: Results,
    /// Opened again where it is gone or damaged.
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    /// The file, to see whether it is still the one that stands at its path.
    file: File,
}

/// Whether what was stored before is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    AsBefore,
    /// Begun anew: what is to be known has to be stored again.
    Anew,
}

/// What a row is made of.
pub(super) struct NewRow<'a> {
    pub job: &'a Job,
    pub standing: &'a Standing,
    pub last_seq: u64,
}

/// What is kept.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    /// Jobs that ended before this go.
    pub oldest: f64,
    /// Jobs that are remembered.
    pub jobs: u32,
    /// Bytes of all results; the newest stays in any case.
    pub result_bytes: u64,
}

/// A job as its row says.
pub(super) struct StoredJob {
    pub view: JobView,
    pub error: Option<Error>,
    digest: Vec<u8>,
    pub last_seq: u64,
    /// Bytes of the result that is kept.
    pub result_bytes: Option<u64>,
}

impl Store {
    /// Opens `state.db` in the state folder.
    pub(super) fn open(state_dir: Arc<StateDir>, results: Results) -> Result<Self, StoreError> {
        let mut store = Self { state_dir, results, open: None };
        store.ready()?;
        Ok(store)
    }

    /// Sees to it that rows can be read and written: the folder may have been removed, the file found to be damaged.
    pub(super) fn ready(&mut self) -> Result<Ready, StoreError> {
        self.state_dir.keep()?;
        let path = self.path();
        if self.open.as_ref().is_some_and(|open| lock_file::is_at(&open.file, &path)) {
            return Ok(Ready::AsBefore);
        }
        // First of all: what closes removes the log beside the path.
        self.open = None;
        let refused = |error| StoreError::Sqlite { path: path.clone(), error };
        let connection = database::open(&path, "NORMAL", &SCHEMA).map_err(|error| match error {
            database::Error::Newer { .. } => StoreError::Newer(error),
            database::Error::Locked { .. } => StoreError::Locked(error),
            database::Error::Sqlite { error, .. } => refused(error),
        })?;
        let file = File::open(&path).map_err(|error| StoreError::Io { path: path.clone(), error })?;
        if let Err(error) = adopt(&connection, &self.results) {
            warn!(%error, "results of which the history does not know could not be put into it");
        }
        self.open = Some(Open { connection, file });
        Ok(Ready::Anew)
    }

    /// Why the rows refuse something. Damage is looked at, and put aside, when they are opened next.
    pub(super) fn refused(&mut self, error: rusqlite::Error) -> StoreError {
        let is_cut = error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_SHORT_READ);
        if is_cut || database::is_damage(&error) {
            self.open = None;
        }
        StoreError::Sqlite { path: self.path(), error }
    }

    /// As a disk that is full.
    #[cfg(test)]
    pub(super) fn forbid_writing(&self) {
        let connection = self.connection().expect("open");
        connection.pragma_update(None, "query_only", true).expect("set");
    }

    fn path(&self) -> PathBuf {
        self.state_dir.path().join("state.db")
    }

    fn connection(&self) -> rusqlite::Result<&Connection> {
        self.open.as_ref().map(|open| &open.connection).ok_or(rusqlite::Error::InvalidQuery)
    }

    /// Marks what a daemon before this one left unfinished. Gives how many there were.
    pub(super) fn interrupt_unfinished(&self, error: &Error, now: f64) -> rusqlite::Result<usize> {
        self.connection()?.execute(
            "UPDATE job SET state = 'interrupted', finished_at = ?, error_code = ?, error_text = ?, \
             last_seq = last_seq + 1 WHERE state IN ('resolving', 'queued', 'running')",
            params![now, error.class.code(), error.text],
        )
    }

    /// Makes a job's row, or brings it up to date.
    pub(super) fn put(&self, row: &NewRow<'_>) -> rusqlite::Result<()> {
        let NewRow { job, standing, last_seq } = row;
        let connection = self.connection()?;
        let (code, text) = match &standing.error {
            Some(error) => (Some(error.class.code()), Some(&error.text)),
            None => (None, None),
        };
        let updated = connection
            .prepare_cached(
                "UPDATE job SET state = ?, started_at = ?, finished_at = ?, step = ?, steps = ?, error_code = ?, \
                 error_text = ?, last_seq = ?, result_bytes = ? WHERE id = ?",
            )?
            .execute(params![
                standing.state.name(),
                standing.started_at,
                standing.finished_at,
                standing.step,
                standing.steps,
                code,
                text,
                last_seq.cast_signed(),
                standing.result_bytes.map(u64::cast_signed),
                job.id,
            ])?;
        if updated > 0 {
            return Ok(());
        }
        // Not in one with the other: an insert that becomes an update uses up a number, and numbers count jobs.
        connection
            .prepare_cached(
                "INSERT INTO job (id, method, request_sha256, created_at, state, started_at, finished_at, step, steps, \
                 error_code, error_text, last_seq, result_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                job.id,
                job.request.method,
                stored_digest(&job.request),
                job.created_at,
                standing.state.name(),
                standing.started_at,
                standing.finished_at,
                standing.step,
                standing.steps,
                code,
                text,
                last_seq.cast_signed(),
                standing.result_bytes.map(u64::cast_signed),
            ])
            .map(drop)
    }

    /// One job.
    pub(super) fn get(&self, id: &str) -> rusqlite::Result<Option<StoredJob>> {
        self.connection()?
            .prepare_cached(&format!("SELECT {COLUMNS} FROM job WHERE id = ?"))?
            .query_row([id], read)
            .optional()
    }

    /// The newest jobs. A row that makes no sense is left out.
    pub(super) fn list(&self, state: Option<JobState>, limit: u32) -> rusqlite::Result<Vec<StoredJob>> {
        let sql =
            format!("SELECT {COLUMNS} FROM job WHERE ?1 IS NULL OR state = ?1 ORDER BY number DESC LIMIT ?2");
        let mut statement = self.connection()?.prepare_cached(&sql)?;
        let rows = statement.query_map(params![state.map(JobState::name), limit], read)?;
        rows.filter(|row| !matches!(row, Err(rusqlite::Error::InvalidColumnType(..)))).collect()
    }

    /// Forgets jobs and results that are older, or more, than is kept; none that somebody waits for.
    pub(super) fn purge(&self, keep: Keep, wanted: &WantedResults) -> rusqlite::Result<()> {
        let connection = self.connection()?;
        let mut expired = connection.prepare_cached(
            "SELECT id FROM job WHERE finished_at < ?1 \
             OR (finished_at IS NOT NULL AND number <= (SELECT max(number) FROM job) - ?2)",
        )?;
        let expired = expired.query_map(params![keep.oldest, keep.jobs], |row| row.get::<_, String>(0))?;
        for id in expired.collect::<rusqlite::Result<Vec<_>>>()? {
            if !wanted.contains(&id) {
                // First, as it makes room for what the rows need.
                self.results.remove(&id);
                connection.prepare_cached("DELETE FROM job WHERE id = ?")?.execute([&id])?;
            }
        }
        let sum = connection
            .prepare_cached("SELECT coalesce(sum(result_bytes), 0) FROM job")?
            .query_row([], |row| row.get::<_, i64>(0))?;
        if sum.cast_unsigned() <= keep.result_bytes {
            return Ok(());
        }
        let mut kept = connection.prepare_cached(
            "SELECT id, result_bytes FROM job WHERE result_bytes IS NOT NULL ORDER BY finished_at DESC, number DESC",
        )?;
        let rows =
            kept.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        let mut sum = 0u64;
        for (age, row) in rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().enumerate() {
            let (id, bytes) = row;
            sum = sum.saturating_add(bytes);
            if age > 0 && sum > keep.result_bytes && !wanted.contains(&id) {
                self.results.remove(&id);
                connection.execute("UPDATE job SET result_bytes = NULL WHERE id = ?", [&id])?;
            }
        }
        Ok(())
    }
}

/// Results of which no row speaks get one: a daemon ended before it wrote that, or the rows were lost.
fn adopt(connection: &Connection, results: &Results) -> rusqlite::Result<()> {
    let mut known = connection.prepare("SELECT id FROM job WHERE result_bytes IS NOT NULL")?;
    let known = known.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<HashSet<String>>>()?;
    let together = connection.unchecked_transaction()?;
    let mut adopted = 0;
    for found in results.files() {
        if known.contains(&found.id) || id::check(found.id.clone()).is_err() {
            continue;
        }
        let Identity { method, bytes } = match results.identify(&found.id) {
            Ok(identity) => identity,
            Err(error) => {
                warn!(job = found.id, %error, "a file among the results is of no job, and left as it is");
                continue;
            }
        };
        let finished_at = found.modified.min(clock::now());
        // What failed or was cancelled has no result: then it is that of a job of before, with the same id.
        adopted += connection
            .prepare_cached(
                "INSERT INTO job (id, method, request_sha256, state, created_at, finished_at, step, steps, last_seq, \
                 result_bytes) VALUES (?1, ?2, x'', 'finished', ?3, ?3, 0, 0, 1, ?4) \
                 ON CONFLICT (id) DO UPDATE SET state = 'finished', finished_at = excluded.finished_at, \
                 error_code = NULL, error_text = NULL, last_seq = last_seq + 1, result_bytes = excluded.result_bytes \
                 WHERE state NOT IN ('failed', 'cancelled')",
            )?
            .execute(params![found.id, method, finished_at, bytes.cast_signed()])?;
    }
    together.commit()?;
    if adopted > 0 {
        info!(adopted, "results of which the history did not know are in it again");
    }
    Ok(())
}

impl StoredJob {
    /// Whether it is of this request. Digests of before version 1 were of the request with its defaults, which tells
    /// nothing of one as it was sent; of what was adopted there is none. Such a job is known by its id and method alone.
    pub(super) fn is_of(&self, request: &Request) -> bool {
        let is_unknown = self.digest.is_empty() || self.digest.len() == request.digest.len();
        self.view.method == request.method && (is_unknown || self.digest == stored_digest(request))
    }
}

/// A digest as it is stored: the version of how it was made, then the digest.
fn stored_digest(request: &Request) -> Vec<u8> {
    [&[DIGEST_VERSION], &request.digest[..]].concat()
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredJob> {
    let state: String = row.get(3)?;
    let code: Option<i64> = row.get(9)?;
    let text: Option<String> = row.get(10)?;
    let error = code.zip(text).map(|(code, text)| Error::new(Class::from_code(code), text));
    Ok(StoredJob {
        view: JobView {
            job: row.get(0)?,
            state: JobState::from_name(&state).unwrap_or(JobState::Interrupted),
            method: row.get(1)?,
            created_at: row.get(4)?,
            started_at: row.get(5)?,
            finished_at: row.get(6)?,
            step: row.get(7)?,
            steps: row.get(8)?,
            eta_s: None,
            error: error.as_ref().map(Error::to_wire),
            position: None,
        },
        error,
        digest: row.get(2)?,
        last_seq: row.get::<_, i64>(11)?.cast_unsigned(),
        result_bytes: row.get::<_, Option<i64>>(12)?.map(i64::cast_unsigned),
    })
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A newer latentd wrote it.
    #[error("{0}; start that one, or give another --state-dir")]
    Newer(database::Error),
    /// Another process has it to itself.
    #[error("{0}; end it, or give another --state-dir")]
    Locked(database::Error),
    /// SQLite refuses it.
    #[error("cannot use {}: {error}; make room or look at its rights, move it away (job history is lost, nothing else), or give another --state-dir", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
    /// It is not there.
    #[error("cannot use {}: {error}; give another --state-dir", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its folder cannot be used.
    #[error(transparent)]
    Folder(#[from] StateDirError),
}
