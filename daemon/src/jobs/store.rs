//! Jobs that outlive the daemon: a row each in SQLite, and a file for each result.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use latentd_client::protocol::{ErrorName, JobState, JobView, WireError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::job::Job;
use crate::whole_file;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS job (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, method TEXT NOT NULL, request BLOB NOT NULL,
        state TEXT NOT NULL, created_at REAL NOT NULL, started_at REAL, finished_at REAL,
        step INTEGER NOT NULL, steps INTEGER NOT NULL, error_code INTEGER, error_text TEXT,
        last_seq INTEGER NOT NULL, result_bytes INTEGER
    );
    CREATE INDEX IF NOT EXISTS job_finished ON job (finished_at);
";

const COLUMNS: &str = "id, method, request, state, created_at, started_at, finished_at, step, steps, error_code, \
                       error_text, last_seq, result_bytes";

/// The rows and the files.
pub(super) struct Store {
    connection: Connection,
    results: PathBuf,
}

/// A job as its row says.
pub(super) struct StoredJob {
    pub view: JobView,
    pub request: Vec<u8>,
    pub last_seq: u64,
    pub has_result: bool,
}

impl Store {
    /// Opens `state.db` and `results/` in the state folder.
    pub(super) fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join("state.db");
        let results = state_dir.join("results");
        fs::create_dir_all(&results).map_err(|error| StoreError::Folder { path: results.clone(), error })?;
        let open = || {
            let connection = Connection::open(&path)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        let connection = open().map_err(|error| StoreError::Database { path, error })?;
        Ok(Self { connection, results })
    }

    /// Marks what a daemon before this one left unfinished. Gives how many there were.
    pub(super) fn interrupt_unfinished(&self, error: &WireError, now: f64) -> rusqlite::Result<usize> {
        self.connection.execute(
            "UPDATE job SET state = 'interrupted', finished_at = ?, error_code = ?, error_text = ?, \
             last_seq = last_seq + 1 WHERE state IN ('queued', 'running')",
            params![now, error.name.code(), error.text],
        )
    }

    /// A new row for a job.
    pub(super) fn insert(&self, job: &Job) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO job (id, method, request, state, created_at, step, steps, last_seq) \
                 VALUES (?, ?, ?, 'queued', ?, 0, ?, 0)",
            )?
            .execute(params![job.id, job.method, job.encoded, job.created_at, job.lock().steps])
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
                inner.error.as_ref().map(|error| error.name.code()),
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

    /// Forgets jobs that ended before `oldest`, and the oldest results beyond `total_bytes`.
    pub(super) fn purge(&self, oldest: f64, total_bytes: u64) -> rusqlite::Result<()> {
        let mut expired = self.connection.prepare_cached("SELECT id FROM job WHERE finished_at < ?")?;
        for id in expired.query_map([oldest], |row| row.get::<_, String>(0))? {
            self.remove_result(&id?);
        }
        self.connection.execute("DELETE FROM job WHERE finished_at < ?", [oldest])?;
        let mut kept = self.connection.prepare_cached(
            "SELECT id, result_bytes FROM job WHERE result_bytes IS NOT NULL ORDER BY finished_at DESC",
        )?;
        let rows =
            kept.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        let mut sum = 0u64;
        for row in rows.collect::<rusqlite::Result<Vec<_>>>()? {
            let (id, bytes) = row;
            sum = sum.saturating_add(bytes);
            if sum > total_bytes {
                self.remove_result(&id);
                self.connection.execute("UPDATE job SET result_bytes = NULL WHERE id = ?", [&id])?;
            }
        }
        Ok(())
    }

    /// Writes a result, whole or not at all.
    pub(super) fn write_result(&self, id: &str, bytes: &[u8]) -> io::Result<()> {
        whole_file::write(&self.result_path(id), bytes)
    }

    /// Reads a result.
    pub(super) fn read_result(&self, id: &str) -> io::Result<Vec<u8>> {
        fs::read(self.result_path(id))
    }

    fn remove_result(&self, id: &str) {
        // It may never have had one.
        fs::remove_file(self.result_path(id)).ok();
    }

    fn result_path(&self, id: &str) -> PathBuf {
        // Ids are checked when they come in: no separators, no leading dot.
        self.results.join(format!("{id}.msgpack"))
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredJob> {
    let state: String = row.get(3)?;
    let code: Option<i64> = row.get(9)?;
    let text: Option<String> = row.get(10)?;
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
            error: code.zip(text).map(|(code, text)| WireError::new(ErrorName::from_code(code), text)),
            position: None,
        },
        request: row.get(2)?,
        last_seq: row.get::<_, i64>(11)?.cast_unsigned(),
        has_result: row.get::<_, Option<i64>>(12)?.is_some(),
    })
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot make {}: {error}", path.display())]
    Folder { path: PathBuf, error: io::Error },
    #[error("cannot open {}: {error}; if it is damaged, move it away (job history is lost, nothing else)", path.display())]
    Database { path: PathBuf, error: rusqlite::Error },
}
