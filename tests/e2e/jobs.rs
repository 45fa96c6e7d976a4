//! Queueing, events, cancelling, and what stays.

use std::sync::Arc;

use latentd_client::codec::Message;
use latentd_client::protocol::{
    ErrorName, EventKind, InitializeParams, JobListParams, JobState, PreviewParams, Txt2ImgParams, WireError,
};

use crate::harness::{Daemon, Raw, long, map, refused, small, within};

#[tokio::test]
async fn events_come_in_order_and_can_be_replayed() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let params = Txt2ImgParams {
        steps: 6,
        preview: Some(PreviewParams { every: 2, ..Default::default() }),
        ..small(1)
    };
    let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    let mut seen = Vec::new();
    while let Some(event) = within(events.next()).await {
        seen.push(event);
    }
    assert!(seen.windows(2).all(|pair| pair[0].seq < pair[1].seq), "{seen:?}");
    assert_eq!(seen.first().map(|event| (&event.kind, event.seq)), Some((&EventKind::Queued, 1)));
    assert_eq!(seen.last().map(|event| &event.kind), Some(&EventKind::Finished));
    assert!(seen.iter().any(|event| event.kind == EventKind::Started));
    for event in &seen {
        match &event.kind {
            EventKind::Progress { step, steps, .. } => assert!(*steps == 6 && step <= steps, "{event:?}"),
            EventKind::Preview { step, image, .. } => {
                assert_eq!((step % 2, image.width, image.height), (0, 8, 8), "{event:?}");
                assert!(image.png.as_ref().is_some_and(|png| png.0.starts_with(b"\x89PNG")), "{event:?}");
            }
            _ => (),
        }
    }
    // Late: the last event at least, and only what is newer than asked.
    let last = seen.last().expect("events").seq;
    let mut replay = within(client.subscribe(&job, last - 1)).await.expect("subscribed");
    let event = within(replay.next()).await.expect("the last event");
    assert_eq!((event.seq, event.kind), (last, EventKind::Finished));
    assert!(within(replay.next()).await.is_none());
}

#[test]
fn a_client_chooses_the_name_of_its_events() {
    let daemon = Daemon::start();
    let mut raw = Raw::connect(&daemon);
    raw.call("initialize", &map(&[("events", "my_events".into())])).expect("initialized");
    let request = map(&[("steps", 2.into()), ("width", 64.into()), ("height", 64.into())]);
    raw.call("jobs.submit", &map(&[("method", "txt2img".into()), ("params", request)])).expect("submitted");
    // The answer and the first events come in any order; the last event comes in any case.
    loop {
        match raw.next().expect("events") {
            Message::Notification { method, params } => {
                assert_eq!(method, "my_events");
                if params.to_string().contains("finished") {
                    return;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nobody_is_told_what_they_did_not_ask_for() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let mut silent = Raw::connect(&daemon);
    within(client.txt2img(&small(1))).await.expect("drawn");
    silent.send(&latentd_client::codec::encode_request(1, "ping", &map(&[])).expect("encodes"));
    assert!(matches!(silent.next(), Some(Message::Response { .. })));
}

#[tokio::test]
async fn cancelling_acts_within_a_step() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let running = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let mut events = within(client.subscribe(&running, 0)).await.expect("subscribed");
    let before = loop {
        let event = within(events.next()).await.expect("progress");
        if let EventKind::Progress { step, .. } = event.kind
            && step >= 1
        {
            break step;
        }
    };
    // Only now: of two that are still resolved either may come first.
    let waiting = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let view = within(client.cancel(&waiting)).await.expect("cancelled");
    assert_eq!(view.state, JobState::Cancelled, "one that waits ends at once");
    let at_cancel = within(client.cancel(&running)).await.expect("cancelled").step;
    assert!(at_cancel >= before);
    refused(within(client.wait(&running)).await, ErrorName::Cancelled);
    let after = within(client.job(&running)).await.expect("known");
    assert_eq!(after.state, JobState::Cancelled);
    assert!(after.step <= at_cancel + 1, "cancelled at step {at_cancel}, went on to {}", after.step);
    // Again, and on what is not there.
    assert_eq!(within(client.cancel(&running)).await.expect("as it is").state, JobState::Cancelled);
    refused(within(client.cancel("no-such-job")).await, ErrorName::NotFound);
    within(client.txt2img(&small(1))).await.expect("the next job is fine");
}

#[tokio::test]
async fn an_id_makes_a_submit_idempotent_also_after_a_restart() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    for _ in 0..3 {
        assert_eq!(
            within(client.submit("txt2img", &small(5), Some("mine"))).await.expect("submitted"),
            "mine"
        );
    }
    let first = within(client.wait("mine")).await.expect("finished");
    refused(within(client.submit("txt2img", &small(6), Some("mine"))).await, ErrorName::InvalidParams);
    for id in ["", "a/b", "../x", ".hidden", "é", &"x".repeat(65)] {
        refused(within(client.submit("txt2img", &small(6), Some(id))).await, ErrorName::InvalidParams);
    }
    daemon.signal(libc::SIGTERM);
    assert!(daemon.ended().success());
    daemon.restart();
    let client = daemon.client().await;
    assert_eq!(within(client.submit("txt2img", &small(5), Some("mine"))).await.expect("submitted"), "mine");
    assert_eq!(within(client.wait("mine")).await.expect("kept"), first);
    assert_eq!(within(client.jobs(&JobListParams::default())).await.expect("listed").len(), 1);
    let mut events = within(client.subscribe("mine", 0)).await.expect("subscribed");
    assert_eq!(within(events.next()).await.map(|event| event.kind), Some(EventKind::Finished));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_clients_with_fifty_jobs_each_lose_none() {
    let daemon = Arc::new(Daemon::start());
    let clients = (0..8).map(|number| {
        let daemon = Arc::clone(&daemon);
        tokio::spawn(async move {
            let client = daemon.client().await;
            let mut jobs = Vec::new();
            for index in 0..50 {
                let seed = number * 50 + index;
                let params = Txt2ImgParams { steps: 1, ..small(seed) };
                jobs.push((seed, client.submit("txt2img", &params, None).await.expect("submitted")));
            }
            for (seed, job) in jobs {
                let result = client.wait(&job).await.expect("finished");
                assert_eq!(result.job, job);
                assert_eq!(result.images[0].seed, u64::try_from(seed).ok());
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        tokio::time::timeout(crate::harness::SOON * 3, client).await.expect("in time").expect("all right");
    }
}

#[test]
fn a_thousand_submits_at_once_fill_the_queue_and_no_more() {
    let daemon = Daemon::start();
    let mut raw = Raw::connect(&daemon);
    let long = map(&[("steps", 1000.into()), ("width", 256.into()), ("height", 256.into())]);
    let submit = map(&[("method", "txt2img".into()), ("params", long)]);
    let mut bytes = Vec::new();
    for id in 0..1000 {
        bytes.extend(latentd_client::codec::encode_request(id, "jobs.submit", &submit).expect("encodes"));
    }
    raw.send(&bytes);
    let (mut taken, mut busy) = (0, 0);
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 1000 {
        // In any order: what is refused is answered before what is still being looked up.
        let Some(Message::Response { id, error, .. }) = raw.next() else { panic!("no answer") };
        assert!(answered.insert(id), "{id} is answered twice");
        if error.is_nil() {
            taken += 1;
        } else {
            let error = WireError::from_value(&error);
            assert_eq!(error.name, ErrorName::Busy, "{error}");
            busy += 1;
        }
    }
    // One may have left the queue to run.
    assert!((512..=513).contains(&taken) && taken + busy == 1000, "{taken} taken, {busy} busy");
    assert_eq!(raw.call("ping", &map(&[])), Ok(map(&[])));
}

#[tokio::test]
async fn the_api_describes_itself() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let introduced = within(client.initialize(&InitializeParams::default())).await.expect("initialized");
    assert_eq!((introduced.server.name.as_str(), introduced.protocol), ("latentd", 1));
    let api = within(client.api_info()).await.expect("described");
    assert_eq!(api.methods.keys().cloned().collect::<Vec<_>>(), introduced.capabilities.methods);
    for (name, method) in &api.methods {
        assert!(method.params.get("type").is_some() && method.result.is_object(), "{name}");
        assert_eq!(
            method.params.get("additionalProperties"),
            Some(&false.into()),
            "{name} takes unknown fields"
        );
        for (field, schema) in method.params["properties"].as_object().into_iter().flatten() {
            let described = schema.get("description").is_some();
            assert!(described, "{name}: {field} has no description");
        }
    }
    let any = &api.methods["jobs.wait"].result;
    let link = any["anyOf"][0]["$ref"].as_str().and_then(|link| link.strip_prefix('#')).expect("a link");
    assert!(any.pointer(link).is_some_and(|result| result["properties"]["images"].is_object()), "{any}");
    let steps = &api.methods["txt2img"].params["properties"]["steps"];
    assert_eq!((steps["minimum"].as_i64(), steps["maximum"].as_i64()), (Some(1), Some(1000)));
    assert!(api.notifications.contains_key("job.event"));
}
