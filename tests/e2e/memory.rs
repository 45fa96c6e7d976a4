//! What is in memory: models under a budget, answers that nobody takes yet.

use latentd_client::codec::{Message, encode_request};
use latentd_client::protocol::{ErrorName, EventKind, OutputFormat, OutputParams, Txt2ImgParams};
use rmpv::Value;

use crate::harness::{Daemon, Raw, long, map, refused, small, within};

const ONE: &str = "tiny-sd1";
const OTHER: &str = "tiny-sd1-ema";

/// Bytes that the larger of the two models takes, and its file: whichever is more.
async fn largest() -> u64 {
    let client_of = Daemon::start();
    let client = client_of.client().await;
    let mut most = 0;
    for name in [ONE, OTHER] {
        let model = within(client.load_model(name)).await.expect("loaded");
        most =
            most.max(model.bytes).max(std::fs::metadata(model.path.expect("a file")).expect("there").len());
    }
    most
}

async fn names(client: &latentd_client::Client) -> Vec<String> {
    let models = within(client.loaded_models()).await.expect("listed");
    models.into_iter().map(|model| model.name).collect()
}

#[tokio::test]
async fn the_budget_evicts_the_oldest_but_nothing_that_is_pinned_or_drawn_with() {
    let budget = largest().await;
    let daemon = Daemon::with_flags(&["--memory-bytes", &budget.to_string()]);
    let client = daemon.client().await;
    for name in [ONE, OTHER, ONE] {
        within(client.load_model(name)).await.expect("loaded");
        assert_eq!(names(&client).await, [name], "one at a time fits");
    }
    within(client.pin_model(ONE, true)).await.expect("pinned");
    let text = refused(within(client.load_model(OTHER)).await, ErrorName::Memory);
    assert!(text.contains(OTHER) && text.contains("unpin") && text.contains("memory_bytes"), "{text}");
    assert_eq!(names(&client).await, [ONE]);
    let other = Txt2ImgParams { checkpoint: Some(OTHER.into()), ..small(1) };
    refused(within(client.txt2img(&other)).await, ErrorName::Memory);
    within(client.pin_model(ONE, false)).await.expect("unpinned");
    within(client.load_model(OTHER)).await.expect("loaded now");
}

#[tokio::test]
async fn a_model_that_is_drawn_with_is_not_dropped_for_another() {
    // Room for one model and a picture, not for two models.
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let sizes = [
        within(client.load_model(ONE)).await.expect("loaded").bytes,
        within(client.load_model(OTHER)).await.expect("loaded").bytes,
    ];
    drop((client, daemon));
    let daemon = Daemon::with_flags(&["--memory-bytes", &(sizes[0] + sizes[1] - 1).to_string()]);
    let client = daemon.client().await;
    let params = Txt2ImgParams { width: Some(64), height: Some(64), ..long() };
    let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    loop {
        match within(events.next()).await.expect("progress").kind {
            EventKind::Progress { step: 1.., .. } => break,
            EventKind::Failed { error } => panic!("{error}"),
            _ => (),
        }
    }
    let text = refused(within(client.load_model(OTHER)).await, ErrorName::Memory);
    assert!(text.contains("wait for the job"), "{text}");
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    let other = Txt2ImgParams { checkpoint: Some(OTHER.into()), ..small(1) };
    within(client.txt2img(&other)).await.expect("its turn");
}

#[tokio::test]
async fn loads_and_pictures_at_once_never_wait_for_each_other_for_ever() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for _ in 0..8 {
        let picture = Txt2ImgParams { checkpoint: Some(OTHER.into()), ..small(1) };
        let all = async {
            tokio::join!(
                client.load_model(ONE),
                client.txt2img(&picture),
                client.load_model(OTHER),
                client.load_model(ONE)
            )
        };
        let (one, picture, other, again) = within(all).await;
        assert!(picture.is_ok() && one.is_ok() && other.is_ok() && again.is_ok());
        for name in [ONE, OTHER] {
            within(client.unload_model(name)).await.expect("unloaded");
        }
    }
}

#[tokio::test]
async fn a_model_that_can_never_fit_evicts_nothing_and_says_so() {
    let size = |name: &str| {
        let path = crate::harness::fixtures().join(format!("Stable-diffusion/{name}.safetensors"));
        std::fs::metadata(path).expect("there").len()
    };
    let (small_one, large_one) = if size(ONE) < size(OTHER) { (ONE, OTHER) } else { (OTHER, ONE) };
    let daemon = Daemon::with_flags(&["--memory-bytes", &(size(large_one) - 1).to_string()]);
    let client = daemon.client().await;
    within(client.load_model(small_one)).await.expect("loaded");
    let text = refused(within(client.load_model(large_one)).await, ErrorName::Memory);
    assert!(text.contains("raise memory_bytes") && !text.contains("pinned"), "{text}");
    assert_eq!(names(&client).await, [small_one]);
}

/// The most memory that a process ever held.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("there");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

#[tokio::test]
async fn results_that_nobody_takes_are_not_all_held_in_memory() {
    const WAITS: u32 = 600;
    let config = "outbox_bytes = 65536\n".to_owned();
    let daemon = Daemon::with(crate::harness::Options { config, ..Default::default() });
    let client = daemon.client().await;
    let raw = OutputParams { format: OutputFormat::Raw, dir: None };
    let params =
        Txt2ImgParams { steps: 1, n_iter: 2, width: Some(256), height: Some(256), output: raw, ..small(1) };
    let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    within(client.wait(&job)).await.expect("drawn");
    let before = peak(daemon.process.id());
    let mut greedy = Raw::connect(&daemon);
    let wait = map(&[("job", job.as_str().into())]);
    let waits = (0..WAITS).flat_map(|id| encode_request(id, "jobs.wait", &wait).expect("encodes"));
    // At once: many small writes would fill the socket long before the daemon is asked for all of them.
    greedy.send(&waits.collect::<Vec<_>>());
    // Answered in time, although the other reads nothing.
    for _ in 0..100 {
        within(client.ping()).await.expect("alive");
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < WAITS as usize {
        match greedy.next().expect("none is lost") {
            Message::Response { id, error: Value::Nil, result: Value::Map(_) } => {
                assert!(answered.insert(id));
            }
            _ => panic!("no result"),
        }
    }
    let grown = peak(daemon.process.id()).saturating_sub(before);
    let held_at_once = grown / (2 * 256 * 256 * 3);
    assert!(held_at_once < 40, "{grown} bytes, {held_at_once} of {WAITS} answers");
}
