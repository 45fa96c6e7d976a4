//! Cancelling, at every stage and by many at once.

use std::sync::Arc;

use latentd_client::protocol::{ErrorName, EventKind, JobListParams, JobState, Txt2ImgParams};

use crate::harness::{Daemon, long, refused, small, within};

#[tokio::test]
async fn a_long_prompt_is_cancelled_while_it_is_encoded() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    // The model is there already, so that the prompt is what takes long.
    within(client.txt2img(&small(1))).await.expect("drawn");
    let params = Txt2ImgParams { prompt: "a cat, ".repeat(28_000).into(), ..long() };
    let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    loop {
        let event = within(events.next()).await.expect("events");
        match event.kind {
            EventKind::Progress { .. } => break,
            other => assert!(!other.is_last(), "{other:?}"),
        }
    }
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    let view = within(client.job(&job)).await.expect("known");
    assert_eq!((view.state, view.step), (JobState::Cancelled, 0), "no step was made");
    within(client.txt2img(&small(1))).await.expect("the next job is fine");
}

#[tokio::test]
async fn cancelling_again_or_too_late_changes_nothing() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let running = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let waiting = within(client.submit("txt2img", &long(), Some("waiting"))).await.expect("submitted");
    for _ in 0..3 {
        assert_eq!(within(client.cancel(&waiting)).await.expect("cancelled").state, JobState::Cancelled);
    }
    let text = refused(within(client.wait(&waiting)).await, ErrorName::Cancelled);
    assert!(text.contains("before its turn"), "{text}");
    let mut events = within(client.subscribe(&waiting, 0)).await.expect("subscribed");
    let mut kinds = Vec::new();
    while let Some(event) = within(events.next()).await {
        kinds.push(event.kind);
    }
    assert_eq!(kinds, [EventKind::Queued, EventKind::Cancelled], "told once");
    for _ in 0..3 {
        within(client.cancel(&running)).await.expect("cancelled");
    }
    refused(within(client.wait(&running)).await, ErrorName::Cancelled);
    // Submitting a cancelled job's id again gives that job, not another.
    within(client.submit("txt2img", &long(), Some("waiting"))).await.expect("known");
    assert_eq!(within(client.job(&waiting)).await.expect("known").state, JobState::Cancelled);

    let done = within(client.submit("txt2img", &small(1), None)).await.expect("submitted");
    let before = within(client.wait(&done)).await.expect("finished");
    assert_eq!(within(client.cancel(&done)).await.expect("as it is").state, JobState::Finished);
    assert_eq!(within(client.wait(&done)).await.expect("still there"), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_from_eight_connections_at_once_is_one_job() {
    let daemon = Arc::new(Daemon::start());
    let start = Arc::new(tokio::sync::Barrier::new(8));
    let clients = (0..8).map(|_| {
        let (daemon, start) = (Arc::clone(&daemon), Arc::clone(&start));
        tokio::spawn(async move {
            let client = daemon.client().await;
            start.wait().await;
            let job = within(client.submit("txt2img", &small(5), Some("same"))).await.expect("submitted");
            within(client.wait(&job)).await.expect("drawn")
        })
    });
    let mut results = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        results.push(within(client).await.expect("no panic"));
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "the same result, timings included");
    let jobs = within(daemon.client().await.jobs(&JobListParams::default())).await.expect("listed");
    assert_eq!(jobs.len(), 1);
}
