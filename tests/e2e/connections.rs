//! Connections that come, stay too long, stop in the middle, and the socket that they come by.

use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use latentd_client::codec::{Message, encode_request};
use latentd_client::protocol::{CONNECTION_ERROR_METHOD, ErrorName};
use rmpv::Value;

use crate::harness::{Daemon, Options, Raw, SOON, long, map, refused, small, within};

fn with_config(config: &str) -> Daemon {
    Daemon::with(Options { config: config.into(), ..Options::default() })
}

/// The reason why the daemon ended a connection.
fn last_words(raw: &mut Raw) -> String {
    match raw.next() {
        Some(Message::Notification { method, params }) if method == CONNECTION_ERROR_METHOD => {
            params.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn idle_connections_make_room_and_busy_ones_do_not() {
    let daemon = with_config("connections = 4\n");
    let nothing = map(&[]);
    let mut listening = Raw::connect(&daemon);
    listening.call("jobs.subscribe", &nothing).expect("subscribed");
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let mut waiting = Raw::connect(&daemon);
    waiting.send(&encode_request(100, "jobs.wait", &map(&[("job", job.as_str().into())])).expect("encodes"));
    // Requests are read in their order: the one before this has begun.
    waiting.call("ping", &nothing).expect("answered");
    // Each is used after the one before it.
    let mut idle = Raw::connect(&daemon);
    idle.call("ping", &nothing).expect("answered");
    within(client.ping()).await.expect("answered");
    let mut new = Raw::connect(&daemon);
    new.call("ping", &nothing).expect("there is room for it");
    assert!(last_words(&mut idle).contains("idle longest"));
    assert!(idle.next().is_none(), "closed");
    // Whoever listens or waits stays, whatever comes.
    for _ in 0..10 {
        Raw::connect(&daemon).call("ping", &nothing).expect("there is room for it");
    }
    let client = daemon.client().await;
    within(client.cancel(&job)).await.expect("cancelled");
    assert!(waiting.answer(100).is_err(), "cancelled");
    loop {
        match listening.next().expect("still listening") {
            Message::Notification { params, .. } if params.to_string().contains("cancelled") => break,
            _ => (),
        }
    }
}

#[test]
fn a_client_that_says_no_more_still_hears_its_answers() {
    let daemon = Daemon::start();
    let mut raw = Raw::connect(&daemon);
    let params = rmp_serde::to_vec_named(&small(3)).expect("encodes");
    let params = rmpv::decode::read_value(&mut params.as_slice()).expect("decodes");
    raw.send(&encode_request(1, "txt2img", &params).expect("encodes"));
    raw.stream.shutdown(Shutdown::Write).expect("shut");
    let result = raw.answer(1).expect("drawn");
    assert!(result.to_string().contains("images"));
    assert!(raw.next().is_none(), "closed then");
}

#[tokio::test]
async fn a_client_that_is_gone_is_not_waited_for() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let mut raw = Raw::connect(&daemon);
    raw.send(&encode_request(1, "jobs.wait", &map(&[("job", job.as_str().into())])).expect("encodes"));
    assert_eq!(raw.call("ping", &map(&[])), Ok(map(&[])));
    drop(raw);
    while within(client.status()).await.expect("status").connections > 1 {}
    within(client.cancel(&job)).await.expect("cancelled");
    // One that said first that it says no more.
    let job = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let mut raw = Raw::connect(&daemon);
    raw.send(&encode_request(1, "jobs.wait", &map(&[("job", job.as_str().into())])).expect("encodes"));
    raw.stream.shutdown(Shutdown::Write).expect("shut");
    while within(client.status()).await.expect("status").connections < 2 {}
    drop(raw);
    while within(client.status()).await.expect("status").connections > 1 {}
    within(client.cancel(&job)).await.expect("cancelled");
}

#[test]
fn a_message_that_is_never_whole_ends_its_connection() {
    let daemon = with_config("write_stall_s = 1\n");
    let ping = encode_request(1, "ping", &map(&[])).expect("encodes");
    let mut raw = Raw::connect(&daemon);
    raw.send(&ping);
    raw.send(&ping[..3]);
    assert_eq!(raw.answer(1), Ok(map(&[])));
    assert!(last_words(&mut raw).contains("send it whole"));
    assert!(raw.next().is_none(), "closed");
    assert_eq!(Raw::connect(&daemon).call("ping", &map(&[])), Ok(map(&[])));
}

#[test]
fn large_messages_wait_for_each_other_and_small_ones_for_none() {
    let daemon = with_config("buffers_bytes = 1048576\n");
    let request = |id| {
        let image = map(&[("png", Value::Binary(vec![7; 900_000]))]);
        encode_request(id, "image.info", &map(&[("image", image)])).expect("encodes")
    };
    let bytes = request(1);
    let mut first = Raw::connect(&daemon);
    let (begin, end) = bytes.split_at(800_000);
    first.send(begin);
    assert_eq!(Raw::connect(&daemon).call("ping", &map(&[])), Ok(map(&[])));
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..4)
            .map(|_| {
                let mut other = Raw::connect(&daemon);
                scope.spawn(move || {
                    // Sent in full only as it is read.
                    other.send(&request(1));
                    other.answer(1).expect_err("no picture").name
                })
            })
            .collect();
        assert_eq!(Raw::connect(&daemon).call("ping", &map(&[])), Ok(map(&[])));
        first.send(end);
        assert_eq!(first.answer(1).expect_err("no picture").name, ErrorName::InvalidParams);
        for other in others {
            assert_eq!(other.join().expect("no panic"), ErrorName::InvalidParams);
        }
    });
}

/// Connects as soon as somebody listens there.
fn connected(daemon: &Daemon) -> Raw {
    let deadline = Instant::now() + SOON;
    while UnixStream::connect(&daemon.socket).is_err() {
        assert!(Instant::now() < deadline, "nobody listens:\n{}", daemon.log());
        std::thread::yield_now();
    }
    Raw::connect(daemon)
}

#[test]
fn a_socket_that_is_removed_is_bound_again() {
    let daemon = Daemon::start();
    let mut before = Raw::connect(&daemon);
    assert_eq!(before.call("ping", &map(&[])), Ok(map(&[])));
    std::fs::remove_file(&daemon.socket).expect("removed");
    assert_eq!(connected(&daemon).call("ping", &map(&[])), Ok(map(&[])));
    // As a cleaner does at log-out: the lock goes with it.
    std::fs::remove_dir_all(daemon.socket.parent().expect("a folder")).expect("removed");
    assert_eq!(connected(&daemon).call("ping", &map(&[])), Ok(map(&[])));
    assert_eq!(before.call("ping", &map(&[])), Ok(map(&[])), "connections live on");
    daemon.wait_log("bound again");
    // It is locked as before.
    let output = daemon.command(&["serve"]).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("process {}", daemon.process.id())), "{text}");
}

#[test]
fn a_daemon_whose_place_is_taken_ends_and_leaves_it_alone() {
    let mut daemon = Daemon::start();
    std::fs::remove_file(&daemon.socket).expect("removed");
    let other = UnixListener::bind(&daemon.socket).expect("bound");
    assert!(daemon.ended().success());
    daemon.wait_log("something else stands at");
    let _client = UnixStream::connect(&daemon.socket).expect("it is still there");
    other.accept().expect("connected");
}

#[tokio::test]
async fn all_connections_in_use_are_too_many() {
    let daemon = with_config("connections = 2\n");
    let nothing = map(&[]);
    let mut both: Vec<Raw> = (0..2).map(|_| Raw::connect(&daemon)).collect();
    for raw in &mut both {
        raw.call("jobs.subscribe", &nothing).expect("subscribed");
    }
    let third = daemon.client().await;
    let text = refused(within(third.ping()).await, ErrorName::Busy);
    assert!(text.contains("2 connections are open and in use"), "{text}");
    drop(both.pop());
    while within(daemon.client().await.ping()).await.is_err() {}
}
