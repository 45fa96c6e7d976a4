//! Starting, ending, and being ended.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use latentd_client::protocol::{ErrorName, JobState, LibraryListParams};

use crate::harness::{Daemon, Options, SOON, first_line, fixtures, long, refused, serve, small, within};

#[tokio::test]
async fn sigterm_finishes_what_runs_and_interrupts_what_waits() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let mut running = small(1);
    running.steps = 200;
    let running = within(client.submit("txt2img", &running, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&running, 0)).await.expect("subscribed");
    while !matches!(
        within(events.next()).await.expect("events").kind,
        latentd_client::protocol::EventKind::Progress { step: 1.., .. }
    ) {}
    let waiting = within(client.submit("txt2img", &small(2), None)).await.expect("submitted");
    daemon.signal(libc::SIGTERM);
    let (ran, waited) = tokio::join!(within(client.wait(&running)), within(client.wait(&waiting)));
    assert_eq!(ran.expect("finished").images.len(), 1);
    assert!(refused(waited, ErrorName::Internal).contains("interrupted"));
    assert!(daemon.ended().success(), "{}", daemon.log());
    assert!(!daemon.socket.exists(), "the socket is gone");
    daemon.restart();
    let client = daemon.client().await;
    assert_eq!(within(client.job(&running)).await.expect("known").state, JobState::Finished);
    assert_eq!(within(client.job(&waiting)).await.expect("known").state, JobState::Interrupted);
    within(client.wait(&running)).await.expect("kept");
}

#[tokio::test]
async fn what_runs_for_too_long_is_interrupted() {
    let mut daemon = Daemon::with(Options { config: "stop_grace_s = 0\n".into(), ..Options::default() });
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    while within(events.next()).await.expect("events").kind != latentd_client::protocol::EventKind::Started {}
    daemon.signal(libc::SIGTERM);
    assert!(refused(within(client.wait(&job)).await, ErrorName::Internal).contains("interrupted"));
    assert!(daemon.ended().success(), "{}", daemon.log());
    daemon.restart();
    let client = daemon.client().await;
    assert_eq!(within(client.job(&job)).await.expect("known").state, JobState::Interrupted);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    while within(events.next()).await.expect("events").kind != latentd_client::protocol::EventKind::Started {}
    daemon.signal(libc::SIGTERM);
    // It has heard the first one when it takes no more jobs.
    while !within(client.status()).await.expect("status").stopping {}
    refused(within(client.submit("txt2img", &small(1), None)).await, ErrorName::Busy);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ended().code(), Some(1));
    daemon.restart();
    let client = daemon.client().await;
    assert_eq!(within(client.job(&job)).await.expect("known").state, JobState::Interrupted);
}

#[tokio::test]
async fn kill_loses_no_knowledge_of_jobs() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let done = within(client.submit("txt2img", &small(1), None)).await.expect("submitted");
    let before = within(client.wait(&done)).await.expect("finished");
    let running = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let waiting = within(client.submit("txt2img", &long(), Some("waits"))).await.expect("submitted");
    daemon.signal(libc::SIGKILL);
    daemon.ended();
    assert!(daemon.socket.exists(), "a stale socket stays");
    daemon.restart();
    let client = daemon.client().await;
    for job in [&running, &waiting] {
        assert_eq!(within(client.job(job)).await.expect("known").state, JobState::Interrupted, "{job}");
        assert!(refused(within(client.wait(job)).await, ErrorName::Internal).contains("interrupted"));
    }
    assert_eq!(within(client.wait(&done)).await.expect("kept"), before);
    within(client.txt2img(&small(9))).await.expect("the next job is fine");
}

#[test]
fn a_second_daemon_is_refused_and_the_first_lives() {
    let daemon = Daemon::start();
    let second = daemon.command(&["serve"]).output().expect("ran");
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("already listening"), "{text}");
    assert!(daemon.command(&["models", "loaded"]).status().expect("ran").success());
}

#[test]
fn a_live_listener_that_is_no_latentd_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("run/latentd/latentd.sock");
    std::fs::create_dir_all(socket.parent().expect("a folder")).expect("made");
    std::fs::set_permissions(socket.parent().expect("a folder"), PermissionsExt::from_mode(0o700))
        .expect("set");
    let _listener = UnixListener::bind(&socket).expect("bound");
    let output = serve(folder.path(), &Options::default()).output().expect("ran");
    assert!(String::from_utf8_lossy(&output.stderr).contains("already listening"));
    assert!(socket.exists());
}

#[test]
fn unsafe_places_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = folder.path().join("open");
    std::fs::create_dir(&open).expect("made");
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).expect("set");
    let long = folder.path().join("x".repeat(120));
    let rows = [(open.join("s"), "others may write"), (long, "at most 100 work")];
    for (socket, expected) in rows {
        let options =
            Options { flags: vec!["--socket".into(), socket.display().to_string()], ..Options::default() };
        let output = serve(folder.path(), &options).output().expect("ran");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(expected) && output.status.code() == Some(1), "{text}");
    }
}

#[test]
fn the_socket_is_the_users_alone() {
    let daemon = Daemon::start();
    let mode = |path: &std::path::Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&daemon.socket), 0o600);
    assert_eq!(mode(daemon.socket.parent().expect("a folder")), 0o700);
}

#[test]
fn an_idle_daemon_ends_if_it_should() {
    let mut daemon = Daemon::with_flags(&["--idle-exit-s", "1"]);
    assert!(daemon.ended().success());
}

#[tokio::test]
async fn shutdown_over_the_socket() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    within(client.shutdown()).await.expect("answered");
    assert!(daemon.ended().success());
}

#[tokio::test]
async fn a_thousand_model_files_do_not_delay_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = folder.path().join("models/Stable-diffusion");
    std::fs::create_dir_all(&models).expect("made");
    let source = fixtures().join("Stable-diffusion/tiny-sd1.safetensors");
    for index in 0..1000 {
        std::fs::hard_link(&source, models.join(format!("model-{index:04}.safetensors")))
            .or_else(|_| {
                std::os::unix::fs::symlink(&source, models.join(format!("model-{index:04}.safetensors")))
            })
            .expect("linked");
    }
    let daemon = Daemon::with(Options { models: Some(folder.path().join("models")), ..Options::default() });
    let client = daemon.client().await;
    let library = within(client.library(&LibraryListParams::default())).await.expect("listed");
    assert_eq!(library.entries.iter().filter(|entry| !entry.built_in).count(), 1000);
}

#[test]
fn wrong_settings_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { config: "que = 5\n".into(), ..Options::default() };
    let mut child =
        serve(folder.path(), &options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ran");
    assert_eq!(first_line(&mut child), None);
    let output = child.wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("did you mean 'queue'?") && output.status.code() == Some(2),
        "{text} within {SOON:?}"
    );
}
