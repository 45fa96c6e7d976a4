//! Killed at any moment, started on damaged or forbidden ground.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use latentd_client::protocol::{
    ErrorName, EventKind, JobListParams, JobState, OutputFormat, OutputParams, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::Picture;

use crate::harness::{Daemon, Options, fixtures, refused, serve, small, within};

/// Names of files that were never finished.
fn parts(state: &Path) -> Vec<String> {
    let folders = ["results", "outputs"].map(|name| fs::read_dir(state.join(name)).expect("there"));
    let names = folders.into_iter().flatten().map(|entry| entry.expect("read").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with('.')).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_lose_nothing_that_was_finished() {
    let mut daemon = Daemon::start();
    let state = daemon.folder.path().join("state/latentd");
    let mut finished: HashMap<String, Txt2ImgResult> = HashMap::new();
    let mut submitted = Vec::new();
    for round in 0..5_usize {
        // What a kill in the middle of a write leaves.
        for folder in ["results", "outputs"] {
            fs::write(state.join(folder).join(".latentd-x1y2z3.part"), b"half").expect("written");
        }
        fs::write(state.join("results/nobodys.msgpack"), b"of no job").expect("written");
        if round > 0 {
            daemon.restart();
        }
        let client = daemon.client().await;
        assert!(round == 0 || parts(&state).is_empty(), "{:?}", parts(&state));
        for (job, result) in &finished {
            assert_eq!(within(client.wait(job)).await.expect("kept"), *result, "{job}");
        }
        for view in within(client.jobs(&JobListParams::default())).await.expect("listed") {
            let expected =
                if finished.contains_key(&view.job) { JobState::Finished } else { JobState::Interrupted };
            // One may have finished without anybody having heard of it.
            assert!(view.state == expected || view.state == JobState::Finished, "{view:?}");
        }
        let mut jobs = Vec::new();
        for index in 0..8_usize {
            let format = if index % 2 == 0 { OutputFormat::File } else { OutputFormat::Png };
            let seed = i64::try_from(round * 8 + index).expect("small");
            let params =
                Txt2ImgParams { output: OutputParams { format, dir: None }, steps: 1, ..small(seed) };
            jobs.push(within(client.submit("txt2img", &params, None)).await.expect("submitted"));
        }
        // A different moment each time: after this many results and, with the others under way, now.
        for job in jobs.iter().take(round + 1) {
            finished.insert(job.clone(), within(client.wait(job)).await.expect("finished"));
        }
        submitted.extend(jobs);
        daemon.signal(libc::SIGKILL);
        daemon.ended();
    }
    daemon.restart();
    let client = daemon.client().await;
    for job in &submitted {
        let view = within(client.job(job)).await.expect("known");
        assert!(matches!(view.state, JobState::Finished | JobState::Interrupted), "{view:?}");
    }
    assert!(state.join("results/nobodys.msgpack").exists(), "what is not understood is left alone");
    refused(within(client.wait("nobodys")).await, ErrorName::NotFound);
    for result in finished.values() {
        for path in result.images.iter().filter_map(|image| image.path.as_ref()) {
            let png = fs::read(path).expect("whole");
            Picture::decode(&png, 1 << 20).expect("whole");
        }
    }
    within(client.txt2img(&small(1))).await.expect("the next job is fine");
}

#[tokio::test]
async fn what_was_told_is_there_after_a_kill_at_that_moment() {
    let mut daemon = Daemon::start();
    for round in 0..30 {
        let id = format!("job-{round}");
        let client = daemon.client().await;
        let params = Txt2ImgParams { steps: 1, ..small(round) };
        // Each is told: that it is queued, that it began, that it is finished.
        let wanted = [EventKind::Queued, EventKind::Started, EventKind::Finished][round as usize % 3].clone();
        let mut events = within(client.subscribe_all()).await.expect("subscribed");
        let submitted = client.submit("txt2img", &params, Some(&id));
        let told = async { while within(events.next()).await.expect("told").kind != wanted {} };
        tokio::join!(async { drop(submitted.await) }, async {
            told.await;
            daemon.signal(libc::SIGKILL);
        });
        daemon.ended();
        daemon.restart();
        let client = daemon.client().await;
        let view = within(client.job(&id)).await.expect("known");
        match (&wanted, view.state) {
            (_, JobState::Finished) => drop(within(client.wait(&id)).await.expect("kept")),
            (EventKind::Started, JobState::Interrupted) => assert!(view.started_at.is_some(), "{view:?}"),
            (EventKind::Queued, JobState::Interrupted) => (),
            _ => panic!("told {wanted:?}: {view:?}"),
        }
    }
}

#[tokio::test]
async fn damaged_databases_are_put_aside_and_results_stay() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let before = within(client.submit("txt2img", &small(1), None)).await.expect("submitted");
    let result = within(client.wait(&before)).await.expect("drawn");
    daemon.signal(libc::SIGTERM);
    daemon.ended();
    let state = daemon.folder.path().join("state/latentd");
    let database = rusqlite::Connection::open(state.join("state.db")).expect("opened");
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("brought in");
    drop(database);
    // A bit of its header: the size of its pages.
    let mut flipped = fs::read(state.join("state.db")).expect("read");
    flipped[16] ^= 1;
    fs::write(state.join("state.db"), &flipped).expect("written");
    daemon.restart();
    let client = daemon.client().await;
    assert_eq!(within(client.wait(&before)).await.expect("kept"), result);
    assert_eq!(within(client.job(&before)).await.expect("known").state, JobState::Finished);
    daemon.signal(libc::SIGTERM);
    daemon.ended();
    for name in ["state.db", "library.db"] {
        fs::write(state.join(name), b"garbage".repeat(1000)).expect("written");
        fs::write(state.join(format!("{name}-wal")), b"garbage".repeat(1000)).expect("written");
    }
    daemon.restart();
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &small(2), None)).await.expect("submitted");
    within(client.wait(&job)).await.expect("drawn");
    daemon.wait_log("put aside");
    assert_eq!(within(client.wait(&before)).await.expect("kept"), result);
    assert!(fs::read(state.join("state.db.damaged")).expect("kept") == flipped);
    for name in ["state.db.damaged-2", "library.db.damaged"] {
        assert!(state.join(name).exists(), "{name}");
    }
    daemon.signal(libc::SIGKILL);
    daemon.ended();
    daemon.restart();
    within(daemon.client().await.wait(&job)).await.expect("remembered by the new one");
}

#[test]
fn a_state_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), b"").expect("written");
    let state = folder.path().join("file/state").display().to_string();
    let options = Options { flags: vec!["--state-dir".into(), state.clone()], ..Options::default() };
    let output = serve(folder.path(), &options).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&state) && text.contains("--state-dir"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
}

#[tokio::test]
async fn two_daemons_do_not_share_a_state_folder() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &crate::harness::long(), None)).await.expect("submitted");
    let other = daemon.folder.path().join("run/other.sock");
    let mut second = daemon.command(&["serve", "--models-dir"]);
    let output = second.arg(fixtures()).arg("--socket").arg(&other).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("already keeps its state") && output.status.code() == Some(1), "{text}");
    assert!(!other.exists(), "its socket is gone");
    assert!(!within(client.job(&job)).await.expect("known").state.is_terminal(), "not interrupted");
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
}
