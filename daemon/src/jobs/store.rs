//! Jobs that outlive the daemon: a row each in SQLite. Which of them, and of their results, are kept.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use latentd_client::protocol::{JobState, JobView};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::job::Job;
use super::results::Results;
use crate::database;
use crate::error::{Class, Error};
use crate::tasks::Request;

/// See [`database::open`].
const MIGRATIONS: &[&str] = &[FIRST];

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
    connection: Connection,
    results: Results,
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
    /// Opens `state.db` in the state folder, and forgets results that no row speaks of.
    pub(super) fn open(state_dir: &Path, results: Results) -> Result<Self, StoreError> {
        let path = state_dir.join("state.db");
        let connection = database::open(&path, "NORMAL", MIGRATIONS).map_err(|error| match error {
            database::Error::Newer { .. } => StoreError::Newer(error),
            database::Error::Sqlite { error, .. } => StoreError::Sqlite { path: path.clone(), error },
        })?;
        let open = || {
            let mut with_result = connection.prepare("SELECT id FROM job WHERE result_bytes IS NOT NULL")?;
            let known = with_result.query_map([], |row| row.get(0))?.collect::<Result<HashSet<_>, _>>()?;
            results.retain(&known);
            drop(with_result);
            Ok(Self { connection, results })
        };
        open().map_err(|error| StoreError::Sqlite { path: path.clone(), error })
    }

    /// Marks what a daemon before this one left unfinished. Gives how many there were.
    pub(super) fn interrupt_unfinished(&self, error: &Error, now: f64) -> rusqlite::Result<usize> {
        self.connection.execute(
            "UPDATE job SET state = 'interrupted', finished_at = ?, error_code = ?, error_text = ?, \
             last_seq = last_seq + 1 WHERE state IN ('resolving', 'queued', 'running')",
            params![now, error.class.code(), error.text],
        )
    }

    /// A new row for a job.
    pub(super) fn insert(&self, job: &Job) -> rusqlite::Result<()> {
        let inner = job.lock();
        self.connection
            .prepare_cached(
                "INSERT INTO job (id, method, request_sha256, state, created_at, step, steps, last_seq) \
                 VALUES (?, ?, ?, ?, ?, 0, ?, 0)",
            )?
            .execute(params![
                job.id,
                job.request.method,
                stored_digest(&job.request),
                inner.state.name(),
                job.created_at,
                inner.steps
            ])
            .map(drop)
    }

    /// Brings a job's row up to date. A row that was never written is an error.
    pub(super) fn update(&self, job: &Job, result_bytes: Option<usize>) -> rusqlite::Result<()> {
        let inner = job.lock();
        let rows = self
            .connection
            .prepare_cached(
                "UPDATE job SET state = ?, started_at = ?, finished_at = ?, step = ?, steps = ?, error_code = ?, \
                 error_text = ?, last_seq = ?, result_bytes = ? WHERE id = ?",
            )?
            .execute(params![
                inner.state.name(),
                inner.started_at,
                inner.finished_at,
                inner.step,
                inner.steps,
                inner.error.as_ref().map(|error| error.class.code()),
                inner.error.as_ref().map(|error| &error.text),
                inner.last_seq.cast_signed(),
                result_bytes.map(|bytes| bytes as i64),
                job.id,
            ])?;
        if rows == 0 { Err(rusqlite::Error::QueryReturnedNoRows) } else { Ok(()) }
    }

    /// One job.
    pub(super) fn get(&self, id: &str) -> rusqlite::Result<Option<StoredJob>> {
        self.connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM job WHERE id = ?"))?
            .query_row([id], read)
            .optional()
    }

    /// The newest jobs.
    pub(super) fn list(&self, state: Option<JobState>, limit: u32) -> rusqlite::Result<Vec<StoredJob>> {
        let sql =
            format!("SELECT {COLUMNS} FROM job WHERE ?1 IS NULL OR state = ?1 ORDER BY number DESC LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![state.map(JobState::name), limit], read)?;
        rows.collect()
    }

    /// Forgets jobs and results that are older, or more, than is kept.
    pub(super) fn purge(&self, keep: Keep) -> rusqlite::Result<()> {
        let mut expired = self.connection.prepare_cached(
            "DELETE FROM job WHERE finished_at < ?1 \
             OR (finished_at IS NOT NULL AND number <= (SELECT max(number) FROM job) - ?2) RETURNING id",
        )?;
        for id in expired.query_map(params![keep.oldest, keep.jobs], |row| row.get::<_, String>(0))? {
            self.results.remove(&id?);
        }
        let mut kept = self.connection.prepare_cached(
            "SELECT id, result_bytes FROM job WHERE result_bytes IS NOT NULL ORDER BY finished_at DESC, number DESC",
        )?;
        let rows =
            kept.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        let mut sum = 0u64;
        for (age, row) in rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().enumerate() {
            let (id, bytes) = row;
            sum = sum.saturating_add(bytes);
            if age > 0 && sum > keep.result_bytes {
                self.results.remove(&id);
                self.connection.execute("UPDATE job SET result_bytes = NULL WHERE id = ?", [&id])?;
            }
        }
        Ok(())
    }
}

impl StoredJob {
    /// Whether it is of this request. Digests of before version 1 were of the request with its defaults, which tells
    /// nothing of one as it was sent: such a job is known by its id and method alone.
    pub(super) fn is_of(&self, request: &Request) -> bool {
        let is_older = self.digest.len() == request.digest.len();
        self.view.method == request.method && (is_older || self.digest == stored_digest(request))
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
    /// SQLite refuses it.
    #[error("cannot open {}: {error}; move it away (job history and results are lost, nothing else), or give another --state-dir", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
}
