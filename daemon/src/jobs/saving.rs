//! What is kept of jobs that have ended, on the disk and in memory, and for how long.

use std::io;
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use tracing::{info, warn};

use super::job::{Answer, Job};
use super::store::{Keep, NewRow, StoreError};
use super::{Jobs, State, Unsaved};
use crate::clock;
use crate::error::{Class, Error};

/// Ended jobs that stay in memory though they are on the disk, for those who ask for their events.
const RECENT: usize = 256;

impl Jobs {
    /// Forgets what is older, or more, than is kept, and writes what the disk refused before.
    pub(crate) fn purge(&self) {
        let limits = self.limits.get();
        let oldest = clock::now() - limits.ttl_s as f64;
        let keep = Keep { oldest, jobs: limits.history, result_bytes: limits.total_bytes };
        // Whether it could be done or not; that is logged.
        self.in_store("old jobs", |store| store.purge(keep, &self.wanted)).ok();
        self.save_again();
        let mut state = self.lock();
        let unsaved = state.forget_ended(oldest, limits.memory_bytes, |job| self.wanted.contains(&job.id));
        *self.unsaved() = unsaved;
        drop(state);
        // An engine may have waited for room.
        self.queued.notify_all();
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Bytes of what waits for room on the disk.
    pub(crate) fn unsaved_bytes(&self) -> u64 {
        self.unsaved().bytes
    }

    /// Whether what the disk refused fills the memory for it. Then only what somebody waits for is done.
    pub(super) fn is_full(&self) -> bool {
        self.unsaved().kept_bytes >= self.limits.get().memory_bytes
    }

    /// Why no more jobs are taken, if so.
    pub(super) fn refuses_to_hold(&self) -> Option<Error> {
        self.is_full().then(|| {
            let held = self.unsaved().kept_bytes;
            let folder = self.state_dir.path().display();
            let text = format!(
                "results of {held} bytes could not be written and wait in memory, which is the limit; make room on the \
                 disk of {folder}, or fetch them"
            );
            Error::new(Class::Busy, text)
        })
    }

    fn unsaved(&self) -> MutexGuard<'_, Unsaved> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a result on the disk and gives how long it is there; else it stays in memory.
    pub(super) fn keep_result(&self, job: &Job, bytes: Vec<u8>) -> Option<u64> {
        match self.write_result(job, &bytes) {
            Ok(()) => Some(bytes.len() as u64),
            Err(error) => {
                warn!(job = job.id, %error, "result could not be written; kept in memory");
                job.lock().result = Some(Arc::new(bytes));
                None
            }
        }
    }

    fn write_result(&self, job: &Job, bytes: &[u8]) -> io::Result<()> {
        // The folder may have been removed, and another daemon have made its own there.
        self.state_dir.keep().map_err(io::Error::other)?;
        self.results.write(&job.id, &job.request.method, bytes)
    }

    /// Stores all jobs that are in memory: the history was begun anew.
    pub(super) fn store_all(&self) {
        let listed: Vec<_> = self.lock().jobs.values().filter(|job| job.is_listed()).cloned().collect();
        for job in listed {
            if self.put(&job).is_err() {
                // Each of them would say so.
                return;
            }
        }
    }

    /// Writes what the disk refused, the oldest first, until it refuses again.
    fn save_again(&self) {
        let _alone = match self.saving.try_lock() {
            Err(TryLockError::WouldBlock) => return,
            Ok(alone) => Some(alone),
            Err(TryLockError::Poisoned(alone)) => Some(alone.into_inner()),
        };
        let unsaved: Vec<_> = self.lock().recent.iter().filter(|job| job.lock().unsaved).cloned().collect();
        let mut saved = 0;
        for job in unsaved {
            let result = job.lock().result.clone();
            if let Some(result) = &result {
                if self.write_result(&job, result).is_err() {
                    break;
                }
                let mut inner = job.lock();
                inner.standing.result_bytes = Some(result.len() as u64);
                inner.result = None;
            }
            if self.put(&job).is_err() {
                break;
            }
            job.lock().unsaved = false;
            saved += 1;
        }
        if saved > 0 {
            info!(saved, "jobs that the disk refused are on it now");
        }
    }

    fn put(&self, job: &Job) -> Result<(), StoreError> {
        let inner = job.lock();
        let (standing, last_seq) = (inner.standing.clone(), inner.last_seq);
        drop(inner);
        self.in_store("a job", |store| store.put(&NewRow { job, standing: &standing, last_seq }))
    }
}

impl State {
    /// Forgets ended jobs, of which a few stay. Those that are not on the disk stay until they are read; then, and where
    /// nobody was promised that they stay, as long as all take no more than `most` bytes. What is `wanted` stays in any case,
    /// and the newest too.
    fn forget_ended(&mut self, oldest: f64, most: u64, wanted: impl Fn(&Job) -> bool) -> Unsaved {
        struct OnlyHere {
            place: usize,
            is_kept: bool,
            must_stay: bool,
            bytes: u64,
        }
        let mut stays = vec![false; self.recent.len()];
        let (mut on_disk, mut only_here) = (0, Vec::new());
        for (place, (job, stays)) in self.recent.iter().zip(&mut stays).enumerate().rev() {
            let must_stay = wanted(job) || place + 1 == self.recent.len();
            let bytes = job.held_bytes();
            let inner = job.lock();
            let has_expired = inner.standing.finished_at.is_some_and(|finished| finished < oldest);
            if inner.unsaved && (must_stay || !has_expired) {
                let is_kept = job.answer == Answer::Id && !inner.read;
                only_here.push(OnlyHere { place, is_kept, must_stay, bytes });
            } else if !inner.unsaved {
                *stays = !has_expired && on_disk < RECENT;
                on_disk += 1;
            }
        }
        // Each half still the newest first.
        only_here.sort_by_key(|job| !job.is_kept);
        let (mut sum, mut unsaved) = (0u64, Unsaved::default());
        for job in only_here {
            sum = sum.saturating_add(job.bytes);
            if job.is_kept || job.must_stay || sum <= most {
                unsaved.bytes += job.bytes;
                unsaved.kept_bytes += if job.is_kept { job.bytes } else { 0 };
                if let Some(stays) = stays.get_mut(job.place) {
                    *stays = true;
                }
            }
        }
        let mut stays = stays.into_iter();
        let jobs = &mut self.jobs;
        self.recent.retain(|job| {
            let stays = stays.next().unwrap_or(true);
            if !stays {
                jobs.remove(&job.id);
            }
            stays
        });
        unsaved
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use latentd_client::protocol::JobState;

    use super::*;
    use crate::error::Class;
    use crate::jobs::JobLimits;
    use crate::jobs::fixture::{self, LIMITS};
    use crate::tasks::DeviceId;

    /// A result of this many bytes, which is a sound map.
    fn result_of(bytes: u16) -> Vec<u8> {
        let payload = bytes - 6;
        let [high, low] = payload.to_be_bytes();
        [vec![0x81, 0xa1, b'x', 0xc5, high, low], vec![7; payload.into()]].concat()
    }

    fn finish(jobs: &Jobs, id: &str, bytes: u16) {
        finish_as(jobs, id, Answer::Result, bytes);
    }

    fn finish_as(jobs: &Jobs, id: &str, answer: Answer, bytes: u16) {
        fixture::queue(jobs, id, answer).expect("taken");
        let job = jobs.next(DeviceId(0)).expect("ready");
        assert_eq!(job.id, id);
        jobs.finish(&job, Ok(result_of(bytes)));
    }

    fn fetch(jobs: &Jobs, id: &str) -> Result<usize, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("started");
        jobs.result(&runtime.block_on(jobs.wait(jobs.want(id)))).map(|result| result.len())
    }

    /// No file can be made where a file stands instead of the folder.
    fn block(folder: &Path) {
        fs::remove_dir_all(folder.join("results")).expect("removed");
        fs::write(folder.join("results"), b"").expect("written");
    }

    #[test]
    fn what_the_disk_refuses_stays_in_memory_however_many_and_is_written_once_there_is_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = fixture::jobs(folder.path(), LIMITS);
        block(folder.path());
        let ids: Vec<_> = (0..RECENT + 50).map(|index| format!("j{index}")).collect();
        for id in &ids {
            finish(&jobs, id, 100);
        }
        assert!(jobs.unsaved_bytes() > 0);
        assert!(ids.iter().all(|id| fetch(&jobs, id) == Ok(100)));
        fs::remove_file(folder.path().join("results")).expect("removed");
        jobs.purge();
        assert_eq!(jobs.unsaved_bytes(), 0);
        assert_eq!(jobs.lock().recent.len(), RECENT);
        drop(jobs);
        let jobs = fixture::jobs(folder.path(), LIMITS);
        assert!(ids.iter().all(|id| fetch(&jobs, id) == Ok(100)));
    }

    #[test]
    fn what_was_promised_is_held_and_no_more_is_taken_than_there_is_memory_for() {
        let folder = tempfile::tempdir().expect("a folder");
        // Room for two, with what each costs itself.
        let jobs = fixture::jobs(folder.path(), JobLimits { memory_bytes: 4500, ..LIMITS });
        block(folder.path());
        finish_as(&jobs, "a", Answer::Id, 1000);
        finish_as(&jobs, "b", Answer::Id, 1000);
        assert_eq!(fetch(&jobs, "b"), Ok(1000));
        finish_as(&jobs, "c", Answer::Id, 1000);
        assert!(fetch(&jobs, "b").is_err(), "it was read, so it goes first");
        let waiting = fixture::queue(&jobs, "waiting", Answer::Id).expect("not full yet");
        finish_first(&jobs, &waiting, "d");
        assert!(jobs.is_full());
        let refused = fixture::queue(&jobs, "e", Answer::Id).map(drop).expect_err("refused");
        assert!(refused.class == Class::Busy && refused.text.contains("make room"), "{refused}");
        // What somebody waits for is done, and does not push out what was promised.
        let called = fixture::queue(&jobs, "called", Answer::Result).expect("taken");
        assert!(jobs.ready(&jobs.lock(), DeviceId(0)).is_none());
        let wanted = jobs.want("called");
        let next = jobs.next(DeviceId(0)).expect("ready");
        assert!(Arc::ptr_eq(&next, &called));
        jobs.finish(&next, Ok(result_of(3000)));
        for (id, bytes) in [("a", 1000), ("c", 1000), ("d", 1000), ("called", 3000)] {
            assert_eq!(fetch(&jobs, id), Ok(bytes), "{id}");
        }
        drop(wanted);
        jobs.purge();
        assert_eq!(jobs.next(DeviceId(0)).expect("there is room again").id, "waiting");
        fixture::queue(&jobs, "e", Answer::Id).expect("taken");
    }

    /// Has another job done before `waiting`.
    fn finish_first(jobs: &Jobs, waiting: &Arc<Job>, id: &str) {
        jobs.lock().queue.retain(|job| !Arc::ptr_eq(job, waiting));
        finish_as(jobs, id, Answer::Id, 1000);
        jobs.lock().queue.push_back(Arc::clone(waiting));
    }

    #[test]
    fn what_somebody_waits_for_is_kept_until_it_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = JobLimits { total_bytes: 1, history: 1, memory_bytes: 1, ..LIMITS };
        let jobs = fixture::jobs(folder.path(), limits);
        for is_blocked in [false, true] {
            if is_blocked {
                block(folder.path());
            }
            let (a, b) = (format!("a-{is_blocked}"), format!("b-{is_blocked}"));
            let wanted = jobs.want(&a);
            // Queued before the memory for them is full.
            for id in [&a, &b] {
                fixture::queue(&jobs, id, Answer::Result).expect("taken");
            }
            for _ in 0..2 {
                let job = jobs.next(DeviceId(0)).expect("ready");
                jobs.finish(&job, Ok(result_of(100)));
            }
            assert_eq!(fetch(&jobs, &a), Ok(100), "{a}");
            drop(wanted);
            jobs.purge();
            assert!(fetch(&jobs, &a).is_err(), "{a}");
            assert_eq!(fetch(&jobs, &b), Ok(100), "the newest stays");
            jobs.purge();
        }
    }

    #[test]
    fn a_submit_that_cannot_be_stored_is_refused_and_a_call_is_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = fixture::jobs(folder.path(), LIMITS);
        jobs.store().forbid_writing();
        let refused = fixture::queue(&jobs, "a", Answer::Id).map(drop).expect_err("refused");
        assert!(refused.class == Class::Internal && refused.text.contains("cannot be stored"), "{refused}");
        assert!(jobs.get("a").is_err() && jobs.is_idle());
        finish(&jobs, "a", 100);
        assert_eq!(fetch(&jobs, "a"), Ok(100));
        assert!(jobs.unsaved_bytes() > 0);
    }

    #[test]
    fn a_locked_history_holds_up_nobody_and_gets_its_rows_once_it_is_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = fixture::jobs(folder.path(), LIMITS);
        let other = rusqlite::Connection::open(folder.path().join("state.db")).expect("opened");
        other.execute_batch("BEGIN EXCLUSIVE").expect("locked");
        for _ in 0..2 {
            let refused = fixture::queue(&jobs, "a", Answer::Id).map(drop).expect_err("refused");
            let expected = "is locked by another process; retry once it lets go";
            assert!(refused.class == Class::Busy && refused.text.contains(expected), "{refused}");
            assert_eq!(jobs.store().patience(), 0);
        }
        // It can be read, and still nobody waits for what cannot be written.
        assert_eq!(jobs.get("none").map(drop).expect_err("none").class, Class::NotFound);
        assert_eq!(jobs.store().patience(), 0);
        finish(&jobs, "a", 100);
        assert_eq!(fetch(&jobs, "a"), Ok(100));
        assert!(jobs.unsaved_bytes() > 0);
        other.execute_batch("ROLLBACK").expect("let go");
        jobs.purge();
        assert_eq!(jobs.unsaved_bytes(), 0);
        assert!(jobs.store().patience() > 0);
        fixture::queue(&jobs, "b", Answer::Id).expect("taken again");
        drop((jobs, other));
        let jobs = fixture::jobs(folder.path(), LIMITS);
        assert_eq!(fetch(&jobs, "a"), Ok(100));
    }

    #[test]
    fn a_result_is_there_when_its_folder_is_said_to_have_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = fixture::jobs(folder.path(), JobLimits { history: 1, ..LIMITS });
        let mut changes = jobs.changes();
        for id in ["a", "b"] {
            finish(&jobs, id, 100);
            assert!(changes.has_changed().expect("there"));
            changes.mark_unchanged();
            assert_eq!(fs::read_dir(folder.path().join("results")).expect("listed").count(), 1);
        }
    }

    #[test]
    fn a_submit_on_a_full_disk_is_to_be_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = fixture::jobs(folder.path(), JobLimits { queue: 1000, ..LIMITS });
        jobs.store().forbid_growth(true);
        let submit = |number: u32| fixture::queue(&jobs, &format!("j{number}"), Answer::Id).map(drop);
        let refused = (0..1000).find_map(|number| submit(number).err()).expect("full");
        assert!(
            refused.class == Class::Busy && refused.text.ends_with("the disk is full; make room"),
            "{refused}"
        );
        jobs.store().forbid_growth(false);
        submit(1000).expect("taken again");
    }

    #[test]
    fn strange_values_are_damage_wherever_they_are_met() {
        type Ask = fn(&Jobs);
        let asks: [Ask; 4] = [
            |jobs| drop(jobs.get("lost")),
            |jobs| drop(jobs.list(&latentd_client::protocol::JobListParams::default())),
            Jobs::purge,
            |_| (),
        ];
        let values = [
            "finished_at = x'00', step = x'00'",
            "finished_at = 1, id = x'00ff'",
            "step = -1, result_bytes = -1",
            "result_bytes = 9223372036854775807",
            "result_bytes = 'many', steps = 4.5",
            "method = cast(x'ff' AS TEXT), result_bytes = x'00'",
        ];
        for values in values {
            for (place, ask) in asks.iter().enumerate() {
                let folder = tempfile::tempdir().expect("a folder");
                finish(&fixture::jobs(folder.path(), LIMITS), "kept", 100);
                finish(&fixture::jobs(folder.path(), LIMITS), "lost", 100);
                fs::remove_file(folder.path().join("results/lost.msgpack")).expect("removed");
                // Not in memory any more.
                let jobs = fixture::jobs(folder.path(), LIMITS);
                let database = rusqlite::Connection::open(folder.path().join("state.db")).expect("opened");
                database.execute(&format!("UPDATE job SET {values} WHERE id = 'lost'"), []).expect("written");
                drop(database);
                let jobs = if place == 3 {
                    drop(jobs);
                    fixture::jobs(folder.path(), LIMITS)
                } else {
                    jobs
                };
                ask(&jobs);
                jobs.purge();
                finish(&jobs, "new", 100);
                for id in ["kept", "new"] {
                    assert_eq!(fetch(&jobs, id), Ok(100), "{values} {place} {id}");
                }
                // Purging, and what looks for another id, may not come to see them.
                let is_aside = folder.path().join("state.db.damaged").exists();
                assert!(is_aside || [0, 2].contains(&place), "{values} {place}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_said_to_be_unknown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        for harm in ["UPDATE job SET step = x'00'", "ALTER TABLE job DROP COLUMN step", "DROP TABLE job"] {
            let job = fixture::jobs(folder.path(), LIMITS);
            finish(&job, "a", 100);
            drop(job);
            fs::remove_dir_all(folder.path().join("results")).expect("removed");
            let jobs = fixture::jobs(folder.path(), LIMITS);
            rusqlite::Connection::open(&path).expect("opened").execute_batch(harm).expect("harmed");
            let error = jobs.get("a").map(drop).expect_err("lost");
            assert!(
                error.class == Class::Internal && error.text.contains("cannot be read"),
                "{harm}: {error}"
            );
            fixture::queue(&jobs, "b", Answer::Id).expect("taken");
        }
    }

    #[test]
    fn results_of_which_no_row_speaks_are_in_the_history_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = fixture::jobs(folder.path(), LIMITS);
        for id in ["a", "b"] {
            finish(&jobs, id, 100);
        }
        drop(jobs);
        // As the first version writes it, and two that are no results.
        let results = folder.path().join("results");
        fs::write(results.join("old.msgpack"), result_of(50)).expect("written");
        fs::write(results.join("damaged.msgpack"), &result_of(50)[1..]).expect("written");
        for name in ["state.db", "state.db-wal"] {
            fs::remove_file(folder.path().join(name)).ok();
        }
        let jobs = fixture::jobs(folder.path(), LIMITS);
        for (id, expected) in [("a", Some(100)), ("b", Some(100)), ("old", Some(50)), ("damaged", None)] {
            assert_eq!(fetch(&jobs, id).ok(), expected, "{id}");
        }
        assert!(results.join("damaged.msgpack").exists());
        // The same request is known by its id.
        let request = crate::tasks::Request { method: "nothing".into(), digest: [9; 32], bytes: 1 };
        let Ok(crate::jobs::Reserved::New(job)) = jobs.reserve(request, Some("a".into()), Answer::Id, None)
        else {
            panic!("looked up later");
        };
        jobs.resolve(&job, || panic!("it is not done again"));
        assert_eq!(fetch(&jobs, "a"), Ok(100));
        // And the usual limits hold.
        drop((jobs, job));
        let jobs = fixture::jobs(folder.path(), JobLimits { total_bytes: 1, ..LIMITS });
        let kept = fs::read_dir(&results).expect("listed").count();
        assert_eq!(kept, 2, "the newest, and the damaged one");
        drop(jobs);
    }

    #[test]
    fn a_folder_that_is_removed_is_made_anew_with_what_is_in_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let jobs = fixture::jobs(&state, LIMITS);
        finish(&jobs, "gone", 100);
        fixture::queue(&jobs, "running", Answer::Id).expect("taken");
        fixture::queue(&jobs, "waiting", Answer::Id).expect("taken");
        let running = jobs.next(DeviceId(0)).expect("ready");
        fs::remove_dir_all(&state).expect("removed");
        jobs.finish(&running, Ok(result_of(100)));
        assert_eq!(fetch(&jobs, "running"), Ok(100));
        assert!(fetch(&jobs, "gone").is_err());
        assert!(crate::state_dir::claim(&state).is_err(), "it is taken again");
        drop((jobs, running));
        let jobs = fixture::jobs(&state, LIMITS);
        assert_eq!(fetch(&jobs, "running"), Ok(100));
        let state_of = |id| jobs.get(id).map(|view| view.state);
        assert_eq!(state_of("waiting"), Ok(JobState::Interrupted));
        assert_eq!(state_of("gone"), Ok(JobState::Finished));
    }

    #[test]
    fn a_history_that_cannot_be_read_is_not_one_without_the_job() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let jobs = fixture::jobs(&state, LIMITS);
        finish(&jobs, "a", 100);
        let waiting = fixture::queue(&jobs, "b", Answer::Result).expect("taken");
        fs::remove_dir_all(&state).expect("removed");
        let other = crate::state_dir::claim(&state).expect("somebody else is quicker");
        for outcome in [jobs.get("c").map(drop), fetch(&jobs, "c").map(drop)] {
            let error = outcome.expect_err("it cannot be told");
            assert!(error.class == Class::Internal && error.text.contains("cannot be read"), "{error}");
        }
        assert!(fixture::queue(&jobs, "c", Answer::Id).is_err());
        // What is done meanwhile stays in memory, and nothing is written where it is not ours.
        let next = jobs.next(DeviceId(0)).expect("ready");
        assert!(Arc::ptr_eq(&next, &waiting));
        jobs.finish(&next, Ok(result_of(100)));
        assert_eq!(fetch(&jobs, "b"), Ok(100));
        assert_eq!(fs::read_dir(state.join("results")).expect("listed").count(), 0);
        drop(other);
        jobs.purge();
        assert_eq!(fs::read_dir(state.join("results")).expect("listed").count(), 1);
    }

    #[test]
    fn a_history_that_is_damaged_under_way_is_put_aside_and_made_of_the_results() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        for (round, cut) in [false, true].into_iter().enumerate() {
            let id = format!("j{round}");
            let jobs = fixture::jobs(folder.path(), LIMITS);
            finish(&jobs, &id, 100);
            drop(jobs);
            // Not in memory any more, nor in a log beside the file.
            let jobs = fixture::jobs(folder.path(), LIMITS);
            let database = rusqlite::Connection::open(&path).expect("opened");
            database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("brought in");
            drop(database);
            let length = fs::metadata(&path).expect("there").len();
            let file = fs::File::options().write(true).open(&path).expect("opened");
            if cut {
                file.set_len(length / 2).expect("cut");
            } else {
                std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xee; length as usize], 0)
                    .expect("written");
            }
            // Whatever SQLite still holds in memory: with the next rows it notices.
            for number in 0..3 {
                finish(&jobs, &format!("{id}-{number}"), 100);
            }
            assert_eq!(fetch(&jobs, &id), Ok(100), "cut: {cut}");
            drop(jobs);
            let jobs = fixture::jobs(folder.path(), LIMITS);
            for name in [id.clone(), format!("{id}-0"), format!("{id}-2")] {
                assert_eq!(fetch(&jobs, &name), Ok(100), "{name}");
            }
        }
        assert!(folder.path().join("state.db.damaged").exists());
    }
}
