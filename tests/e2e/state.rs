//! What lies in the state folder: of older versions, of newer ones, and damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use latentd_client::protocol::{
    ErrorName, JobListParams, JobState, OutputFormat, OutputParams, Txt2ImgParams,
};

use crate::harness::{Daemon, Options, first_line, refused, serve, small, within};

fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/state").join(version)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).expect("copied") }
    }
}

fn state(daemon: &Daemon) -> PathBuf {
    daemon.folder.path().join("state/latentd")
}

/// A daemon that has ended.
fn ended() -> Daemon {
    // The kept files are old.
    let config = "result_ttl_s = 10_000_000_000".to_owned();
    let mut daemon = Daemon::with(Options { config, ..Options::default() });
    daemon.signal(libc::SIGTERM);
    daemon.ended();
    daemon
}

#[tokio::test]
async fn the_first_versions_folder_is_taken_over() {
    let mut daemon = ended();
    fs::remove_dir_all(state(&daemon)).expect("removed");
    copy(&fixture("v1"), &state(&daemon));
    // Twice: what the first start makes of it is read by the second.
    for _ in 0..2 {
        daemon.restart();
        let client = daemon.client().await;
        let jobs = within(client.jobs(&JobListParams::default())).await.expect("listed");
        let kept = jobs.iter().filter(|job| !job.job.starts_with('j'));
        let mut states: Vec<_> = kept.map(|job| (job.job.as_str(), job.state)).collect();
        states.sort_by_key(|(id, _)| *id);
        let expected = [
            ("cancelled", JobState::Cancelled),
            ("failed", JobState::Failed),
            ("finished", JobState::Finished),
            ("queued", JobState::Interrupted),
            ("running", JobState::Interrupted),
        ];
        assert_eq!(states, expected);
        let result = within(client.wait("finished")).await.expect("fetched");
        let png = &result.images[0].png.as_ref().expect("a PNG").0;
        let infotext = latentd_models::image::read_infotext(png).expect("a picture").expect("an infotext");
        assert!(infotext.starts_with("a red circle\nSteps: 2"), "{infotext}");
        assert!(refused(within(client.wait("failed")).await, ErrorName::Model).contains("broken"));
        within(client.txt2img(&small(1))).await.expect("drawn");
        daemon.signal(libc::SIGTERM);
        daemon.ended();
        assert!(!daemon.log().contains("no library index"), "{}", daemon.log());
    }
}

#[test]
fn a_history_of_a_newer_version_is_refused_and_left_alone() {
    let daemon = ended();
    let path = state(&daemon).join("state.db");
    set_version(&path, 999);
    let before = fs::read(&path).expect("read");
    let mut command = serve(daemon.folder.path(), &Options::default());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned");
    let line = first_line(&mut process);
    if line.is_some() {
        process.kill().expect("a child");
    }
    let output = process.wait_with_output().expect("ended");
    assert_eq!((line, output.status.code()), (None, Some(1)));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("state.db is of version 999, and this latentd knows up to 1: a newer one wrote it"),
        "{text}"
    );
    assert!(text.contains("give another --state-dir"), "{text}");
    assert!(fs::read(&path).expect("read") == before, "untouched");
}

#[tokio::test]
async fn an_index_of_a_newer_version_is_gone_without() {
    let mut daemon = ended();
    let path = state(&daemon).join("library.db");
    set_version(&path, 999);
    let before = fs::read(&path).expect("read");
    daemon.restart();
    within(daemon.client().await.txt2img(&small(1))).await.expect("drawn");
    daemon.signal(libc::SIGTERM);
    daemon.ended();
    let log = daemon.log();
    assert!(log.contains("library.db is of version 999, and this latentd knows up to 4"), "{log}");
    assert!(fs::read(&path).expect("read") == before, "untouched");
}

#[tokio::test]
async fn a_damaged_result_fails_its_job_by_name_and_is_never_sent() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &small(1), Some("damaged"))).await.expect("submitted");
    within(client.wait(&job)).await.expect("sound");
    let path = state(&daemon).join("results/damaged.msgpack");
    let sound = fs::read(&path).expect("read");
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    let newer = [&sound[..8], &999u16.to_be_bytes(), &sound[10..]].concat();
    // As the first version wrote it, without a header: more than one value, and less.
    let header = sound.len() - length_of_result(&state(&daemon), "damaged");
    let bare = &sound[header..];
    let two = [&[0x80], &bare[1..]].concat();
    let half = [&[0x8f], &bare[1..]].concat();
    for (bytes, expected) in [
        (&sound[..sound.len() / 2], "damaged on the disk"),
        (b"", "damaged on the disk"),
        (&flipped, "checksum"),
        (&newer, "version 999"),
        (&two, "it is no result"),
        (&half, "it is no result"),
    ] {
        fs::write(&path, bytes).expect("written");
        let error = refused(within(client.wait(&job)).await, ErrorName::Internal);
        assert!(error.contains("'damaged'") && error.contains(expected), "{error}");
    }
    fs::remove_file(&path).expect("removed");
    assert!(refused(within(client.wait(&job)).await, ErrorName::NotFound).contains("no longer kept"));
    fs::write(&path, &sound).expect("written");
    within(client.wait(&job)).await.expect("sound again, on the same connection");
}

#[tokio::test]
async fn what_lies_in_the_folders_is_told() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    within(client.txt2img(&small(1))).await.expect("drawn");
    let file = OutputParams { format: OutputFormat::File, dir: None };
    let result = within(client.txt2img(&Txt2ImgParams { output: file, ..small(2) })).await.expect("drawn");
    let picture = fs::metadata(result.images[0].path.as_ref().expect("a file")).expect("there").len();
    // Counted now and then.
    let told = loop {
        let told = within(client.status()).await.expect("told").storage;
        if told.outputs.files > 0 && told.results.files > 1 {
            break told;
        }
    };
    assert_eq!((told.outputs.files, told.outputs.bytes, told.unsaved_bytes), (1, picture, 0));
    assert_eq!(told.outputs.path, state(&daemon).join("outputs").display().to_string());
    let results = fs::read_dir(state(&daemon).join("results")).expect("listed");
    let bytes = results.map(|entry| entry.expect("an entry").metadata().expect("there").len()).sum::<u64>();
    assert_eq!((told.results.files, told.results.bytes), (2, bytes));
    let output = daemon.command(&["doctor"]).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&format!("{}: 1 files, ", told.outputs.path)), "{text}");
}

#[tokio::test]
async fn a_state_folder_that_is_removed_is_made_anew() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let before = within(client.submit("txt2img", &small(1), None)).await.expect("submitted");
    within(client.wait(&before)).await.expect("drawn");
    fs::remove_dir_all(state(&daemon)).expect("removed");
    let file = OutputParams { format: OutputFormat::File, dir: None };
    let params = Txt2ImgParams { output: file, ..small(2) };
    let after = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    let result = within(client.wait(&after)).await.expect("drawn");
    assert!(result.images[0].path.as_ref().is_some_and(|path| Path::new(path).exists()));
    let second = daemon.command(&["serve", "--socket"]).arg(daemon.folder.path().join("other")).output();
    let text = String::from_utf8_lossy(&second.expect("ran").stderr).into_owned();
    assert!(text.contains("already keeps its state"), "{text}");
    daemon.signal(libc::SIGKILL);
    daemon.ended();
    daemon.restart();
    let client = daemon.client().await;
    assert_eq!(within(client.wait(&after)).await.expect("kept"), result);
    // Of what was removed only that it was there is known.
    assert_eq!(within(client.job(&before)).await.expect("known").state, JobState::Finished);
    refused(within(client.wait(&before)).await, ErrorName::NotFound);
}

#[tokio::test]
async fn who_has_locked_the_history_is_said_and_holds_up_nobody() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let lock = rusqlite::Connection::open(state(&daemon).join("state.db")).expect("opened");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    for _ in 0..3 {
        let text = refused(within(client.submit("txt2img", &small(1), None)).await, ErrorName::Busy);
        let expected = format!("locked by process {} (", std::process::id());
        assert!(text.contains(&expected) && text.contains("retry once it lets go"), "{text}");
    }
    let mut results = Vec::new();
    for seed in 0..5 {
        results.push(within(client.txt2img(&small(seed))).await.expect("drawn"));
    }
    assert_eq!(daemon.log().matches("the job history refused").count(), 1, "{}", daemon.log());
    lock.execute_batch("ROLLBACK").expect("let go");
    daemon.wait_log("jobs that the disk refused are on it now");
    let stored: u32 = lock.query_row("SELECT count(*) FROM job", [], |row| row.get(0)).expect("counted");
    assert_eq!(stored, 5);
    within(client.submit("txt2img", &small(1), None)).await.expect("taken again");
}

fn length_of_result(state: &Path, id: &str) -> usize {
    let database = rusqlite::Connection::open(state.join("state.db")).expect("opened");
    let read = |row: &rusqlite::Row<'_>| row.get::<_, u32>(0);
    database.query_row("SELECT result_bytes FROM job WHERE id = ?", [id], read).expect("a row") as usize
}

/// Sets SQLite's `user_version`, and leaves nothing in a log beside the file.
fn set_version(path: &Path, version: u32) {
    let database = rusqlite::Connection::open(path).expect("opened");
    database.pragma_update(None, "user_version", version).expect("set");
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("brought in");
}
