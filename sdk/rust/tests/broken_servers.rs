//! A server that does not keep to the protocol: an error of the right kind, no panic, no wait without end.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use latentd_client::protocol::ErrorName;
use latentd_client::{Client, Error};

/// Whether an error is of the kind that was meant.
type Is = fn(&Error) -> bool;

const SOON: Duration = Duration::from_mins(1);

/// Answers the first request of one connection with these bytes and hangs up.
async fn ping_answered_with(bytes: Vec<u8>) -> (Result<(), Error>, Result<(), Error>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bound");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("connected");
        let mut request = [0; 256];
        assert!(stream.read(&mut request).expect("a request") > 0);
        stream.write_all(&bytes).ok();
    });
    let client = Client::connect(Some(&path)).await.expect("connected");
    let first = tokio::time::timeout(SOON, client.ping()).await.expect("in time");
    server.join().expect("served");
    let second = tokio::time::timeout(SOON, client.ping()).await.expect("in time");
    (first, second)
}

#[tokio::test]
async fn each_kind_of_nonsense_is_an_error_of_its_kind() {
    let protocol = |error: &Error| matches!(error, Error::Protocol(_));
    let closed = |error: &Error| matches!(error, Error::Closed(_));
    let rows: Vec<(&[u8], Is)> = vec![
        (b"", closed),
        (b"\xc1", protocol),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", protocol),
        // In the middle of a message.
        (b"\x94\x01\x01\xc0", closed),
        // A length of 4 GiB.
        (b"\x94\x01\x01\xc0\xc6\xff\xff\xff\xff", protocol),
        // No message, a request, an answer to something else, an answer of another type.
        (b"\x93\x01\x01\xc0", protocol),
        (b"\x94\x00\x01\xa4ping\x90", protocol),
        (b"\x94\x01\xcd\x03\xe7\xc0\x80", closed),
        (b"\x94\x01\x01\xc0\x05", protocol),
        // An event without its job.
        (b"\x93\x02\xa9job.event\x91\x81\xa4type\xa6queued", protocol),
    ];
    for (bytes, expected) in rows {
        let (first, second) = ping_answered_with(bytes.to_vec()).await;
        let error = first.expect_err("no answer");
        assert!(expected(&error), "{bytes:x?}: {error:?}");
        second.expect_err("the connection is gone");
    }
}

#[tokio::test]
async fn what_a_later_daemon_may_say_is_passed_over() {
    let newer = b"\x93\x02\xa9job.event\x91\x82\xa4type\xa6paused\xa3job\xa1x\x93\x02\xa5other\x90\x94\x01\x01\xc0\x80";
    let (first, _) = ping_answered_with(newer.to_vec()).await;
    first.expect("answered");
}

#[tokio::test]
async fn the_daemons_reason_to_close_is_its_error() {
    let reason = b"\x93\x02\xa9rpc.error\x91\x92\x03\xadE_BUSY: later";
    let (first, second) = ping_answered_with(reason.to_vec()).await;
    for outcome in [first, second] {
        let error = outcome.expect_err("refused");
        assert_eq!(error.wire().map(|wire| wire.name), Some(ErrorName::Busy), "{error}");
    }
}
