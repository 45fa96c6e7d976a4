//! A log that cannot be written holds up nobody and ends nothing.

use std::io::Read;

use crate::harness::{Daemon, LogTo, Options, Raw, map, small, within};

/// Enough lines for any pipe.
fn make_lines(daemon: &Daemon) {
    let client = map(&[("name", "n".repeat(250).into()), ("version", "v".repeat(250).into())]);
    let mut raw = Raw::connect(daemon);
    for _ in 0..400 {
        raw.call("initialize", &map(&[("client", client.clone())])).expect("introduced");
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_written_ends_nothing() {
    for log in [LogTo::Full, LogTo::Nobody] {
        let mut daemon = Daemon::with(Options { log, ..Options::default() });
        make_lines(&daemon);
        let client = daemon.client().await;
        for seed in 0..3 {
            within(client.txt2img(&small(seed))).await.expect("drawn");
        }
        daemon.signal(libc::SIGTERM);
        assert!(daemon.ended().success());
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing_and_says_later_what_it_lost() {
    let mut daemon = Daemon::with(Options { log: LogTo::Unread, ..Options::default() });
    // More than waits in memory.
    for _ in 0..8 {
        make_lines(&daemon);
    }
    let client = daemon.client().await;
    for seed in 0..3 {
        within(client.txt2img(&small(seed))).await.expect("drawn");
    }
    let mut errors = daemon.process.stderr.take().expect("kept");
    let reader = std::thread::spawn(move || {
        let mut log = String::new();
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = errors.read(&mut bytes) {
            log.push_str(&String::from_utf8_lossy(&bytes[..count]));
            if log.contains("lines of this log were lost") {
                break;
            }
        }
        // Nobody reads it again: the end does not wait for it either.
        (log, errors)
    });
    let (log, _errors) = reader.join().expect("read");
    assert!(log.contains("lines of this log were lost"), "{log}");
    daemon.signal(libc::SIGTERM);
    assert!(daemon.ended().success());
}
