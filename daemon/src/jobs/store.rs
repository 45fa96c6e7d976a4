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
use std::time::Duration;

use latentd_client::protocol::{JobState, JobView};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use tracing::{info, warn};

use super::id;
use super::job::{Job, Standing};
use super::results::{Identity, Results};
use super::wanted::WantedResults;
use crate::database::{self, Schema, Shortage};
use crate::error::{Class, Error};
use crate::file_holder::FileHolder;
use crate::state_dir::{StateDir, StateDirError};
use crate::tasks::Request;
use crate::{clock, lock_file};

/// See [`database::open`].
const SCHEMA: Schema = Schema {
    migrations: &[FIRST],
    check: |connection| read_all(connection, "ORDER BY number", []).map(drop),
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
    trouble: Option<Trouble>,
}

/// What was refused last, until something is written again: reading may go well meanwhile.
struct Trouble {
    /// Why, as it is in the log.
    said: String,
    /// It is waited for no more: whoever has locked it may keep it so.
    is_lock: bool,
    /// Rows that were written before.
    rows: u64,
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
        let mut store = Self { state_dir, results, open: None, trouble: None };
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
        let is_locked = self.trouble.as_ref().is_some_and(|trouble| trouble.is_lock);
        let patience = if is_locked { Duration::ZERO } else { database::AT_START };
        let connection = database::open(&path, "NORMAL", patience, &SCHEMA)?;
        self.trouble = None;
        let file = File::open(&path).map_err(|error| StoreError::Io { path: path.clone(), error })?;
        if let Err(error) = adopt(&connection, &self.results) {
            warn!(%error, "results of which the history does not know could not be put into it");
        }
        self.open = Some(Open { connection, file });
        Ok(Ready::Anew)
    }

    /// Why the rows refuse something. Damage is looked at, and put aside, when they are opened next.
    pub(super) fn refused(&mut self, error: rusqlite::Error) -> StoreError {
        let error = database::as_damage(error);
        if database::is_damage(&error) {
            self.open = None;
        }
        database::Error::of(&self.path(), error).into()
    }

    /// Whether it is, and was not found to be damaged.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Something went well: if it was written, the trouble is over.
    pub(super) fn succeeded(&mut self) {
        let rows = self.rows_written();
        if self.trouble.take_if(|trouble| trouble.rows != rows).is_some() {
            info!("the job history takes rows again");
            self.set_patience(database::LATER);
        }
    }

    /// Something did not go well. Gives whether that is news.
    pub(super) fn failed(&mut self, error: &StoreError) -> bool {
        let (said, is_lock) = (error.to_string(), matches!(error, StoreError::Locked { .. }));
        let is_news = self.trouble.as_ref().is_none_or(|trouble| trouble.said != said);
        self.trouble = Some(Trouble { said, is_lock, rows: self.rows_written() });
        if is_lock {
            self.set_patience(Duration::ZERO);
        }
        is_news
    }

    fn rows_written(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.connection.total_changes())
    }

    fn set_patience(&self, patience: Duration) {
        if let Some(open) = &self.open {
            // Of an open connection it is only a number.
            open.connection.busy_timeout(patience).ok();
        }
    }

    /// Milliseconds that a lock is waited for.
    #[cfg(test)]
    pub(super) fn patience(&self) -> u32 {
        let connection = self.connection().expect("open");
        connection.pragma_query_value(None, "busy_timeout", |row| row.get(0)).expect("known")
    }

    /// As a disk that is full: what fits into the file as it is can be written.
    #[cfg(test)]
    pub(super) fn forbid_growth(&self, forbid: bool) {
        let pages = if forbid { 1 } else { 1 << 20 };
        let connection = self.connection().expect("open");
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).expect("set");
    }

    /// As a file that cannot be written.
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
                &*job.request.method,
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

    /// The newest jobs.
    pub(super) fn list(&self, state: Option<JobState>, limit: u32) -> rusqlite::Result<Vec<StoredJob>> {
        let which = "WHERE ?1 IS NULL OR state = ?1 ORDER BY number DESC LIMIT ?2";
        read_all(self.connection()?, which, params![state.map(JobState::name), limit])
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
            .query_row([], |row| bytes(0, row.get(0)?))?;
        if sum <= keep.result_bytes {
            return Ok(());
        }
        let mut kept = connection.prepare_cached(
            "SELECT id, result_bytes FROM job WHERE result_bytes IS NOT NULL ORDER BY finished_at DESC, number DESC",
        )?;
        let rows = kept.query_map([], |row| Ok((row.get::<_, String>(0)?, bytes(1, row.get(1)?)?)))?;
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
        self.view.method == *request.method && (is_unknown || self.digest == stored_digest(request))
    }
}

/// A digest as it is stored: the version of how it was made, then the digest.
fn stored_digest(request: &Request) -> Vec<u8> {
    [&[DIGEST_VERSION], &request.digest[..]].concat()
}

fn read_all(connection: &Connection, which: &str, params: impl Params) -> rusqlite::Result<Vec<StoredJob>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM job {which}"))?;
    statement.query_map(params, read)?.collect()
}

/// A number of bytes, of which all that are kept can be added.
fn bytes(column: usize, found: i64) -> rusqlite::Result<u64> {
    let bytes = u64::try_from(found).ok().filter(|bytes| *bytes < 1 << 48);
    bytes.ok_or(rusqlite::Error::IntegralValueOutOfRange(column, found))
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
        result_bytes: row.get::<_, Option<i64>>(12)?.map(|found| bytes(12, found)).transpose()?,
    })
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A newer latentd wrote it.
    #[error("{0}; start that one, or give another --state-dir")]
    Newer(database::Error),
    /// Another process has it to itself.
    #[error("{} is locked by {holder}; end it, or give another --state-dir", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who that is.
        holder: FileHolder,
    },
    /// It cannot grow.
    #[error("cannot write {}: {shortage}, or give another --state-dir", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What there is too little of.
        shortage: Shortage,
    },
    /// SQLite refuses it.
    #[error("cannot use {}: {error}; look at its rights, move it away (job history is lost, nothing else), or give another --state-dir", path.display())]
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

impl From<database::Error> for StoreError {
    fn from(error: database::Error) -> Self {
        match error {
            database::Error::Newer { .. } => Self::Newer(error),
            database::Error::Locked { path, holder } => Self::Locked { path, holder },
            database::Error::Full { path, shortage } => Self::Full { path, shortage },
            database::Error::Sqlite { path, error } => Self::Sqlite { path, error },
        }
    }
}

impl StoreError {
    /// What is said to whoever asked for something that `failed`, such as "the job cannot be stored".
    pub(super) fn refusal(&self, failed: &str) -> Error {
        match self {
            Self::Locked { holder, .. } => Error::new(
                Class::Busy,
                format!("{failed}: the job history is locked by {holder}; retry once it lets go"),
            ),
            Self::Full { path, shortage } => {
                Error::new(Class::Busy, format!("{failed}: cannot write {}: {shortage}", path.display()))
            }
            _ => Error::internal(format!("{failed}: {self}")),
        }
    }
}
