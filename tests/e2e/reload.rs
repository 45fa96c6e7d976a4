//! SIGHUP: the configuration is read again, or the terminal is gone.

use std::fs::{self, File};
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use latentd_client::protocol::{ConfigStatus, ErrorName};

use crate::harness::{Daemon, Options, SOON, first_line, refused, serve, small, within};

/// Gives the configuration file this text and asks the daemon to read it; what `status` says of it then.
async fn reload(daemon: &Daemon, text: &str) -> ConfigStatus {
    let client = daemon.client().await;
    let before = within(client.status()).await.expect("status").config;
    fs::write(daemon.folder.path().join("config.toml"), text).expect("written");
    daemon.signal(libc::SIGHUP);
    let deadline = Instant::now() + SOON;
    loop {
        let status = within(client.status()).await.expect("status").config;
        if status != before {
            return status.expect("told");
        }
        assert!(Instant::now() < deadline, "not heard:\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn what_can_be_changed_is_and_the_rest_is_told() {
    let daemon = Daemon::with(Options {
        config: "queue = 5\nresult_bytes = 1_000_000".into(),
        flags: vec!["--threads".into(), "1".into()],
        ..Options::default()
    });
    let client = daemon.client().await;
    assert_eq!(within(client.status()).await.expect("status").config, None, "nothing was read again");

    let text =
        "queue = 7\nresult_bytes = 1000\nlog_level = 'debug'\nmemory_bytes = 5_000_000_000\nthreads = 3";
    let told = reload(&daemon, text).await;
    assert_eq!(told.changed, ["log_level", "queue", "result_bytes"]);
    assert_eq!(told.needs_restart, ["memory_bytes"], "the flag for threads goes before the file");
    assert!(told.reloaded_at.is_some() && told.error.is_none(), "{told:?}");
    assert_eq!(within(client.status()).await.expect("status").queue.limit, 7);
    let error = refused(within(client.txt2img(&small(1))).await, ErrorName::InvalidParams);
    assert!(error.contains("1000"), "{error}");
    daemon.wait_log("these settings changed and wait for a restart settings=\"memory_bytes\"");

    // Wrong: a value, a name, a filter, no TOML. Nothing changes.
    for (text, expected) in [
        ("queue = 0", "queue: 0 is out of range"),
        ("que = 3", "did you mean 'queue'?"),
        ("queue = 3\nlog_level = 'a=b=c'", "log_level: 'a=b=c'"),
        ("queue = ", "TOML parse error"),
    ] {
        let told = reload(&daemon, text).await;
        assert!(told.error.as_deref().is_some_and(|error| error.contains(expected)), "{told:?}");
        assert!(told.changed.is_empty() && told.needs_restart == ["memory_bytes"], "{told:?}");
        assert_eq!(within(client.status()).await.expect("status").queue.limit, 7);
    }
    daemon.wait_log("the configuration is wrong; the one before stays in force");

    // And back: what waited for a restart waits no more.
    let told = reload(&daemon, "queue = 5\nresult_bytes = 1_000_000").await;
    assert_eq!((told.changed.len(), told.needs_restart.len()), (3, 0), "{told:?}");
    within(client.txt2img(&small(1))).await.expect("drawn again");
}

#[test]
fn a_changed_time_until_it_is_idle_holds_at_once() {
    let mut daemon = Daemon::with(Options { config: "idle_exit_s = 86400".into(), ..Options::default() });
    // The connection ends with the runtime.
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let told = runtime.block_on(reload(&daemon, "idle_exit_s = 1"));
    drop(runtime);
    assert_eq!(told.changed, ["idle_exit_s"]);
    assert!(daemon.ended().success(), "{}", daemon.log());
}

/// A pseudoterminal: its two ends.
fn terminal() -> (File, File) {
    let (mut ours, mut theirs) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: both numbers are ours to write to; null asks for no name and the usual settings.
    assert_eq!(unsafe { libc::openpty(&raw mut ours, &raw mut theirs, none, none.cast(), none.cast()) }, 0);
    // The daemon must not hold our end, or it would never be gone.
    // SAFETY: openpty gave these two descriptors to nobody else, and fcntl sets a flag of theirs.
    unsafe {
        for end in [ours, theirs] {
            assert_eq!(libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC), 0);
        }
        (File::from_raw_fd(ours), File::from_raw_fd(theirs))
    }
}

#[test]
fn a_daemon_whose_terminal_is_gone_ends() {
    let folder = tempfile::Builder::new().prefix("latentd-").tempdir().expect("a folder");
    let (ours, theirs) = terminal();
    let mut command = serve(folder.path(), &Options::default());
    command
        .stdin(theirs.try_clone().expect("cloned"))
        .stdout(Stdio::piped())
        .stderr(theirs.try_clone().expect("cloned"));
    // SAFETY: setsid and ioctl are async-signal-safe; standard input is in place by then.
    unsafe {
        command.pre_exec(move || {
            if libc::setsid() < 0 || libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut process = command.spawn().expect("spawned");
    drop((command, theirs));
    assert!(first_line(&mut process).is_some(), "ready");
    let id = i32::try_from(process.id()).expect("a process id");
    // While the terminal is there SIGHUP is no end: the next signal finds it alive, and the system sends that one.
    // SAFETY: the process is our child and not yet waited for.
    assert_eq!(unsafe { libc::kill(id, libc::SIGHUP) }, 0);
    let socket = folder.path().join("run/latentd/latentd.sock");
    let mut client = latentd_client::blocking::Client::connect(Some(&socket)).expect("connected");
    let deadline = Instant::now() + SOON;
    while client.status().expect("status").config.is_none() {
        assert!(Instant::now() < deadline, "not heard");
    }
    drop(client);
    drop(ours);
    let status = loop {
        if let Some(status) = process.try_wait().expect("a child") {
            break status;
        }
        if Instant::now() > deadline {
            process.kill().expect("killed");
            panic!("it lives on");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{status}");
    assert!(!socket.exists(), "the socket is gone");
}
