//! Limits that are settings, and how it is said that they are reached.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use latentd_client::codec::{Message, encode_request};
use latentd_client::protocol::{CONNECTION_ERROR_METHOD, ErrorName, EventKind, JobState, Txt2ImgParams};

use crate::harness::{Daemon, Options, Raw, SOON, long, map, refused, small, within};

fn with_config(config: &str) -> Daemon {
    Daemon::with(Options { config: config.into(), ..Options::default() })
}

#[tokio::test]
async fn one_request_too_many_is_answered_so() {
    let daemon = with_config("requests_per_connection = 3\n");
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let mut raw = Raw::connect(&daemon);
    let wait = map(&[("job", job.as_str().into())]);
    for id in 1..=4 {
        raw.send(&encode_request(id, "jobs.wait", &wait).expect("encodes"));
    }
    let error = raw.answer(4).expect_err("refused");
    assert!(error.name == ErrorName::Busy && error.text.contains("3 requests"), "{error}");
    // What is answered at once is no such request.
    raw.send(&encode_request(5, "ping", &map(&[])).expect("encodes"));
    assert_eq!(raw.answer(5), Ok(map(&[])));
    within(client.cancel(&job)).await.expect("cancelled");
    let mut answers: Vec<_> = (1..=3).map(|_| raw.next()).collect();
    answers.sort_by_key(|answer| if let Some(Message::Response { id, .. }) = answer { *id } else { 0 });
    for (answer, wanted) in answers.into_iter().zip(1..) {
        assert!(matches!(answer, Some(Message::Response { id, .. }) if id == wanted), "{answer:?}");
    }
    within(daemon.client().await.txt2img(&small(1))).await.expect("the next job is fine");
}

#[tokio::test]
async fn jobs_that_are_too_old_are_forgotten_and_said_to_be() {
    let mut daemon = with_config("result_ttl_s = 1\n");
    let client = daemon.client().await;
    within(client.submit("txt2img", &small(1), Some("old"))).await.expect("submitted");
    within(client.wait("old")).await.expect("kept for a while");
    let deadline = tokio::time::Instant::now() + SOON;
    // Each job that ends is an occasion to look for old ones.
    while within(client.job("old")).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it stays");
        within(client.txt2img(&small(2))).await.expect("drawn");
    }
    let text = refused(within(client.wait("old")).await, ErrorName::NotFound);
    assert!(text.contains("too old"), "{text}");
    assert!(!daemon.folder.path().join("state/latentd/results/old.msgpack").exists());
    // The id is free again.
    within(client.submit("txt2img", &small(3), Some("old"))).await.expect("submitted");
    let again = within(client.wait("old")).await.expect("drawn");
    assert_eq!(again.images[0].seed, Some(3));
    // What grew old while no daemon ran is forgotten at the start.
    daemon.signal(libc::SIGKILL);
    daemon.ended();
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        daemon.restart();
        if let Err(error) = within(daemon.client().await.job("old")).await {
            refused::<()>(Err(error), ErrorName::NotFound);
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "it stays");
        daemon.signal(libc::SIGKILL);
        daemon.ended();
    }
}

#[tokio::test]
async fn results_beyond_the_limit_go_the_oldest_first_and_the_newest_stays() {
    // Less than one result.
    let daemon = with_config("results_total_bytes = 100\n");
    let client = daemon.client().await;
    for (seed, id) in [(1, "a"), (2, "b")] {
        within(client.submit("txt2img", &small(seed), Some(id))).await.expect("submitted");
        within(client.wait(id)).await.expect("the newest stays");
    }
    let text = refused(within(client.wait("a")).await, ErrorName::NotFound);
    assert!(text.contains("no longer kept"), "{text}");
    assert_eq!(within(client.job("a")).await.expect("remembered").state, JobState::Finished);
    within(client.wait("b")).await.expect("still there");
}

#[tokio::test]
async fn a_result_that_is_waited_for_is_kept_however_slowly_its_client_reads() {
    // Less than one result, and a client that takes nothing until all are done.
    let daemon = with_config("results_total_bytes = 100\noutbox_bytes = 65536\nhistory = 1\n");
    let mut slow = Raw::connect(&daemon);
    let size = 256;
    let output = map(&[("format", "raw".into())]);
    let request = map(&[
        ("steps", 1.into()),
        ("width", size.into()),
        ("height", size.into()),
        ("checkpoint", "tiny-sd1".into()),
        ("output", output),
    ]);
    let client = daemon.client().await;
    let mut events = within(client.subscribe_all()).await.expect("subscribed");
    let first = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    while within(events.next()).await.expect("events").kind != EventKind::Started {}
    let (calls, waits) = (1..=6, 7..=10);
    for id in calls.clone() {
        slow.send(&encode_request(id, "txt2img", &request).expect("encodes"));
    }
    for id in waits.clone() {
        let job = format!("job-{id}");
        let params = Txt2ImgParams { width: Some(256), height: Some(256), steps: 1, ..small(1) };
        within(client.submit("txt2img", &params, Some(&job))).await.expect("submitted");
        slow.send(&encode_request(id, "jobs.wait", &map(&[("job", job.into())])).expect("encodes"));
    }
    slow.send(&encode_request(0, "ping", &map(&[])).expect("encodes"));
    slow.answer(0).expect("all is heard");
    within(client.cancel(&first)).await.expect("cancelled");
    let mut finished = 0;
    while finished < 10 {
        finished += usize::from(within(events.next()).await.expect("events").kind == EventKind::Finished);
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 10 {
        let Some(Message::Response { id, error, .. }) = slow.next() else { panic!("no answer") };
        assert!(error.is_nil(), "{id}: {error}");
        answered.insert(id);
    }
    assert_eq!(answered, calls.chain(waits).collect());
}

#[tokio::test]
async fn no_more_jobs_are_remembered_than_are_to_be() {
    let daemon = with_config("history = 3\n");
    let client = daemon.client().await;
    for seed in 0..5 {
        let id = format!("job{seed}");
        within(client.submit("txt2img", &small(seed), Some(&id))).await.expect("submitted");
        within(client.wait(&id)).await.expect("drawn");
    }
    let kept = std::fs::read_dir(daemon.folder.path().join("state/latentd/results")).expect("there");
    assert_eq!(kept.count(), 3);
}

/// Does something as another user. Only this thread becomes that user, and only while it does that.
fn act_as<T: Send + 'static>(
    user: libc::uid_t,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let unchanged = libc::uid_t::MAX;
    let thread = std::thread::spawn(move || {
        // SAFETY: the system call itself, unlike libc's function, changes this thread alone, which then ends.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, unchanged, user, unchanged) };
        if changed == 0 { work() } else { Err(std::io::Error::last_os_error()) }
    });
    thread.join().expect("no panic")
}

fn connect_as(user: libc::uid_t, socket: &std::path::Path) -> std::io::Result<UnixStream> {
    let socket = socket.to_owned();
    act_as(user, move || UnixStream::connect(socket))
}

#[tokio::test]
#[allow(clippy::print_stderr)]
async fn a_daemon_of_another_user_is_sent_nothing() {
    const NOBODY: libc::uid_t = 65534;
    if latentd_client::socket::effective_user() != 0 {
        eprintln!("skipped: only root can act as another user");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let temporary = folder.path().join("tmp");
    let place = temporary.join("latentd-0");
    std::fs::create_dir_all(&place).expect("made");
    for path in [folder.path(), &temporary, &place] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("opened");
    }
    let socket = place.join("latentd.sock");
    let theirs = socket.clone();
    let listener = act_as(NOBODY, move || std::os::unix::net::UnixListener::bind(theirs)).expect("bound");
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).expect("opened");
    // What is read by whoever connects; nothing if they hang up at once.
    let heard = std::thread::spawn(move || {
        let read = |mut stream: UnixStream| stream.read(&mut [0]).expect("read or closed");
        listener.incoming().take(3).map(|stream| read(stream.expect("connected"))).collect::<Vec<_>>()
    });
    let commands = [&["generate", "a secret"][..], &["jobs", "list"], &["doctor", "--json"]];
    let run = |arguments: &[&str]| {
        let mut command = crate::harness::program(folder.path());
        command.args(arguments).env_remove("XDG_RUNTIME_DIR").env("TMPDIR", &temporary);
        let output = command.current_dir(folder.path()).output().expect("ran");
        String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned()
    };
    // Its place is theirs, or open to them: not even connected to.
    for arguments in commands {
        assert!(run(arguments).contains("is not safe: others may write to it"), "{}", run(arguments));
    }
    std::os::unix::fs::lchown(&place, Some(NOBODY), None).expect("given away");
    assert!(run(commands[0]).contains("is not safe: it belongs to user 65534"), "{}", run(commands[0]));
    // Named all the same, or moved to where it looks well.
    let odd = folder.path().join("tmp/../tmp/latentd-0/latentd.sock");
    let refused = latentd_client::Client::connect(Some(&odd));
    let error = within(refused).await.expect_err("refused").to_string();
    assert!(error.contains("user 65534 listens there, and you are user 0"), "{error}");
    std::os::unix::fs::lchown(&place, Some(0), None).expect("taken back");
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o700)).expect("closed");
    for arguments in &commands[..2] {
        assert!(run(arguments).contains("user 65534 listens there"), "{}", run(arguments));
    }
    assert_eq!(heard.join().expect("no panic"), [0, 0, 0]);
}

#[test]
#[allow(clippy::print_stderr)]
fn another_user_is_not_let_in() {
    const NOBODY: libc::uid_t = 65534;
    if latentd_client::socket::effective_user() != 0 {
        eprintln!("skipped: only root can act as another user");
        return;
    }
    let daemon = Daemon::start();
    let refused = connect_as(NOBODY, &daemon.socket).expect_err("the folder keeps others out");
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    // Somebody opened every door; the daemon itself still asks who comes.
    for folder in daemon.socket.ancestors().take_while(|path| path.starts_with(daemon.folder.path())) {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).expect("opened");
    }
    let mut stream = connect_as(NOBODY, &daemon.socket).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("set");
    assert_eq!(stream.read(&mut [0; 64]).expect("closed"), 0);
    daemon.wait_log("another user was refused");
    assert_eq!(Raw::connect(&daemon).call("ping", &map(&[])), Ok(map(&[])), "its own user is served");
}

#[test]
#[allow(clippy::print_stderr)]
fn a_socket_folder_of_another_user_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = folder.path().join("theirs");
    std::fs::create_dir(&theirs).expect("made");
    if std::os::unix::fs::chown(&theirs, Some(65534), None).is_err() {
        eprintln!("skipped: only root can give a folder away");
        return;
    }
    let flags = vec!["--socket".into(), theirs.join("s").display().to_string()];
    let options = Options { flags, ..Options::default() };
    let output = crate::harness::serve(folder.path(), &options).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("belongs to user 65534") && output.status.code() == Some(1), "{text}");
}

#[test]
fn events_that_nobody_reads_end_the_connection() {
    let daemon = with_config("outbox_bytes = 65536\nqueue = 10000\n");
    let mut deaf = Raw::connect(&daemon);
    // Each event carries this name.
    let name = "e".repeat(250);
    deaf.call("initialize", &map(&[("events", name.as_str().into())])).expect("initialized");
    deaf.call("jobs.subscribe", &map(&[])).expect("subscribed");
    let mut busy = Raw::connect(&daemon);
    let request = map(&[("steps", 1000.into()), ("width", 256.into()), ("height", 256.into())]);
    let submit = map(&[("method", "txt2img".into()), ("params", request)]);
    for _ in 0..3000 {
        busy.call("jobs.submit", &submit).expect("submitted");
    }
    let mut seen = 0;
    while let Some(message) = deaf.next() {
        assert!(
            !matches!(&message, Message::Notification { method, .. } if method == CONNECTION_ERROR_METHOD)
        );
        seen += 1;
    }
    assert!(seen < 3000, "{seen} events");
}
