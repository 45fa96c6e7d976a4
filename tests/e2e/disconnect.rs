//! Connections that end before what they asked for does.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use latentd_client::protocol::{EventKind, JobState, OnDisconnect, Txt2ImgParams};
use latentd_client::{Client, SubmitOptions};

use crate::harness::{Daemon, Raw, long, map, within};

async fn submit(client: &Client, id: &str, on_disconnect: OnDisconnect) {
    let options = SubmitOptions { id: Some(id), on_disconnect };
    assert_eq!(within(client.submit_with("txt2img", &long(), options)).await.expect("submitted"), id);
}

/// Waits until a job has ended; how.
async fn end_of(client: &Client, job: &str) -> EventKind {
    let mut events = within(client.subscribe(job, 0)).await.expect("subscribed");
    let mut last = None;
    while let Some(event) = within(events.next()).await {
        last = Some(event.kind);
    }
    last.expect("an event")
}

#[tokio::test]
async fn a_job_ends_with_its_connection_if_it_should() {
    let daemon = Daemon::start();
    let (client, other) = (daemon.client().await, daemon.client().await);
    // One runs, the others wait.
    submit(&client, "runs", OnDisconnect::Cancel).await;
    let mut events = within(other.subscribe("runs", 0)).await.expect("subscribed");
    while within(events.next()).await.expect("events").kind != EventKind::Started {}
    submit(&client, "waits", OnDisconnect::Cancel).await;
    submit(&client, "stays", OnDisconnect::Keep).await;
    // Of several submits the last decides.
    submit(&client, "taken-over", OnDisconnect::Cancel).await;
    submit(&other, "taken-over", OnDisconnect::Cancel).await;
    submit(&client, "kept-after-all", OnDisconnect::Cancel).await;
    submit(&other, "kept-after-all", OnDisconnect::Keep).await;
    drop(client);
    for job in ["runs", "waits"] {
        assert_eq!(end_of(&other, job).await, EventKind::Cancelled, "{job}");
        let error = within(other.wait(job)).await.expect_err("cancelled").to_string();
        assert!(error.contains("E_CANCELLED"), "{error}");
    }
    for job in ["stays", "taken-over", "kept-after-all"] {
        let state = within(other.job(job)).await.expect("known").state;
        assert!(!state.is_terminal(), "{job} is {state}");
    }
}

#[tokio::test]
async fn the_field_of_a_request_says_it_too() {
    let daemon = Daemon::start();
    let other = daemon.client().await;
    let mut events = within(other.subscribe_all()).await.expect("subscribed");
    let params = Txt2ImgParams { on_disconnect: OnDisconnect::Cancel, ..long() };
    let client = daemon.client().await;
    let call = tokio::spawn(async move { client.txt2img(&params).await });
    let started = loop {
        let event = within(events.next()).await.expect("events");
        if event.kind == EventKind::Started {
            break event.job;
        }
    };
    call.abort();
    assert_eq!(end_of(&other, &started).await, EventKind::Cancelled);
    // Told to nobody yet when its connection ends: it comes to nothing, or is cancelled.
    for _ in 0..20 {
        let mut raw = Raw::connect(&daemon);
        let params = map(&[("steps", 1000.into()), ("on_disconnect", "cancel".into())]);
        raw.send(&latentd_client::codec::encode_request(1, "txt2img", &params).expect("encodes"));
    }
    while within(other.status()).await.expect("status").connections > 1 {}
    for job in within(other.jobs(&latentd_client::protocol::JobListParams::default())).await.expect("listed")
    {
        if !job.state.is_terminal() {
            end_of(&other, &job.job).await;
        }
        let state = within(other.job(&job.job)).await.expect("known").state;
        assert_eq!(state, JobState::Cancelled);
    }
    let wrong = map(&[("on_disconnect", "stop".into())]);
    let error = Raw::connect(&daemon).call("txt2img", &wrong).expect_err("refused");
    assert!(error.text.contains("on_disconnect: 'stop' is none of keep, cancel"), "{error}");
}

#[tokio::test]
async fn a_generate_that_is_gone_leaves_no_job_behind() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for signal in [libc::SIGKILL, libc::SIGHUP] {
        let mut events = within(client.subscribe_all()).await.expect("subscribed");
        let mut command = daemon.command(&["generate", "x", "-o", "x.png", "--steps=1000"]);
        command.args(["--width=256", "--height=256", "--checkpoint", "tiny-sd1"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("spawned");
        let job = loop {
            let event = within(events.next()).await.expect("events");
            if event.kind == EventKind::Started {
                break event.job;
            }
        };
        let process = i32::try_from(child.id()).expect("a process id");
        // SAFETY: the process is our child and not yet waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
        assert_eq!(child.wait().expect("ended").code(), None, "by the signal");
        let said = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        assert!(said.last().is_none_or(|line| line.starts_with("step")));
        assert_eq!(end_of(&client, &job).await, EventKind::Cancelled);
    }
}
