//! What is in memory: models under a budget, answers that nobody takes yet.

use latentd_client::codec::{Message, encode_request};
use latentd_client::protocol::{
    ErrorName, EventKind, JobListParams, JobState, LibraryListParams, OutputFormat, OutputParams,
    Txt2ImgParams,
};
use rmpv::Value;

use crate::harness::{Daemon, Raw, long, map, refused, small, within};

const ONE: &str = "tiny-sd1";
const OTHER: &str = "tiny-sd1-ema";

/// Bytes that the two models take.
async fn sizes() -> [u64; 2] {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let mut sizes = [0; 2];
    for (size, name) in sizes.iter_mut().zip([ONE, OTHER]) {
        *size = within(client.load_model(name)).await.expect("loaded").bytes;
    }
    sizes
}

async fn names(client: &latentd_client::Client) -> Vec<String> {
    let models = within(client.loaded_models()).await.expect("listed");
    models.into_iter().map(|model| model.name).collect()
}

#[tokio::test]
async fn the_budget_evicts_the_oldest_but_nothing_that_is_pinned_or_drawn_with() {
    let budget = sizes().await.into_iter().max().expect("two");
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
    let sizes = sizes().await;
    let (small_one, large_one) = if sizes[0] < sizes[1] { (ONE, OTHER) } else { (OTHER, ONE) };
    let largest = sizes[0].max(sizes[1]);
    let daemon = Daemon::with_flags(&["--memory-bytes", &(largest - 1).to_string()]);
    let client = daemon.client().await;
    within(client.load_model(small_one)).await.expect("loaded");
    let text = refused(within(client.load_model(large_one)).await, ErrorName::Memory);
    assert!(text.contains("raise memory_bytes") && !text.contains("pinned"), "{text}");
    assert_eq!(names(&client).await, [small_one]);
}

/// Starts a job that goes on until it is cancelled, and waits until it draws.
async fn drawing(client: &latentd_client::Client, checkpoint: &str) -> String {
    let params =
        Txt2ImgParams { checkpoint: Some(checkpoint.into()), width: Some(64), height: Some(64), ..long() };
    let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    loop {
        match within(events.next()).await.expect("progress").kind {
            EventKind::Progress { step: 1.., .. } => return job,
            EventKind::Failed { error } => panic!("{error}"),
            _ => (),
        }
    }
}

async fn ended(client: &latentd_client::Client, job: &str) {
    within(client.cancel(job)).await.expect("cancelled");
    refused(within(client.wait(job)).await, ErrorName::Cancelled);
}

/// Bytes of networks, and the models that are listed.
async fn in_memory(client: &latentd_client::Client) -> (u64, Vec<String>) {
    (within(client.status()).await.expect("told").memory.models_bytes, names(client).await)
}

#[tokio::test]
async fn a_pinned_model_counts_once() {
    let bytes = sizes().await[0];
    // Room for the model and a small picture.
    let daemon = Daemon::with_flags(&["--memory-bytes", &(bytes + (6 << 20)).to_string()]);
    let client = daemon.client().await;
    let before = within(client.txt2img(&small(1))).await.expect("drawn").images;
    within(client.load_model(ONE)).await.expect("loaded");
    within(client.pin_model(ONE, true)).await.expect("pinned");
    assert_eq!(within(client.txt2img(&small(1))).await.expect("drawn").images, before);
    within(client.load_model(ONE)).await.expect("is there already");
    // As much as a model that is drawn with.
    within(client.pin_model(ONE, false)).await.expect("unpinned");
    let job = drawing(&client, ONE).await;
    within(client.load_model(ONE)).await.expect("is there already");
    ended(&client, &job).await;
}

#[tokio::test]
async fn what_is_unloaded_while_it_is_drawn_with_goes_with_the_job() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let request = Txt2ImgParams { steps: 40, width: Some(256), height: Some(256), ..small(1) };
    let job = within(client.submit("txt2img", &request, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    while !matches!(within(events.next()).await.expect("told").kind, EventKind::Progress { step: 1.., .. }) {}
    assert!(within(client.unload_model(ONE)).await.expect("unloaded"));
    let text = refused(within(client.pin_model(ONE, true)).await, ErrorName::NotFound);
    assert!(text.contains("not in memory"), "{text}");
    within(client.wait(&job)).await.expect("drawn to its end");
    assert_eq!(in_memory(&client).await, (0, vec![]));
    // Loaded again meanwhile, it stays.
    let job = drawing(&client, ONE).await;
    assert!(within(client.unload_model(ONE)).await.expect("unloaded"));
    let bytes = within(client.load_model(ONE)).await.expect("loaded").bytes;
    ended(&client, &job).await;
    assert_eq!(in_memory(&client).await, (bytes, vec![ONE.to_owned()]));
}

/// A models folder with the first fixture as "one", and its path.
fn one() -> (tempfile::TempDir, std::path::PathBuf) {
    let models = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(models.path().join("Stable-diffusion")).expect("made");
    let file = models.path().join("Stable-diffusion/one.safetensors");
    put(ONE, &file);
    (models, file)
}

/// Puts a fixture there at once, in the place of what was there.
fn put(name: &str, file: &std::path::Path) {
    let (from, beside) = (
        crate::harness::fixtures().join(format!("Stable-diffusion/{name}.safetensors")),
        file.with_extension("new"),
    );
    std::fs::copy(from, &beside).expect("copied");
    std::fs::rename(beside, file).expect("renamed");
}

#[tokio::test]
async fn a_job_with_a_file_that_is_replaced_leaves_the_new_one_alone() {
    let (models, file) = one();
    let options = crate::harness::Options { models: Some(models.path().to_owned()), ..Default::default() };
    let daemon = Daemon::with(options);
    let client = daemon.client().await;
    let request = Txt2ImgParams {
        checkpoint: Some("one".into()),
        steps: 40,
        width: Some(256),
        height: Some(256),
        n_iter: 2,
        ..small(1)
    };
    let running = within(client.submit("txt2img", &request, None)).await.expect("submitted");
    let waiting = within(client.submit("txt2img", &request, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&running, 0)).await.expect("subscribed");
    while !matches!(within(events.next()).await.expect("told").kind, EventKind::Progress { step: 1.., .. }) {}
    within(client.pin_model("one", true)).await.expect("pinned");
    put(OTHER, &file);
    let new = within(client.load_model("one")).await.expect("loaded");
    assert!(new.pinned, "as what stood in its place");
    // Both draw with the file as it was when they were submitted, in all their phases.
    for job in [running, waiting] {
        within(client.wait(&job)).await.expect("drawn");
    }
    let left = within(client.loaded_models()).await.expect("listed");
    let left: Vec<_> = left.iter().map(|model| (model.dtype.as_str(), model.bytes, model.pinned)).collect();
    assert_eq!(left, [("bf16", new.bytes, true)]);
    assert_eq!(in_memory(&client).await.0, new.bytes, "nothing is left of the old one");
}

#[tokio::test]
async fn a_model_whose_file_is_gone_can_be_unpinned_and_unloaded() {
    let (models, file) = one();
    let options = crate::harness::Options { models: Some(models.path().to_owned()), ..Default::default() };
    let daemon = Daemon::with(options);
    let client = daemon.client().await;
    within(client.load_model("one")).await.expect("loaded");
    within(client.pin_model("one", true)).await.expect("pinned");
    std::fs::remove_file(&file).expect("removed");
    assert!(!within(client.pin_model("one", false)).await.expect("unpinned").pinned);
    assert!(within(client.unload_model(&file.display().to_string())).await.expect("unloaded"));
    assert_eq!(in_memory(&client).await, (0, vec![]));
    refused(within(client.unload_model("one")).await, ErrorName::NotFound);
}

#[tokio::test]
async fn loads_at_once_under_a_budget_for_one_take_turns() {
    let budget = sizes().await.into_iter().max().expect("two");
    let daemon = Daemon::with_flags(&["--memory-bytes", &budget.to_string()]);
    let client = daemon.client().await;
    for _ in 0..8 {
        let loads =
            async { tokio::join!(client.load_model(ONE), client.load_model(OTHER), client.load_model(ONE)) };
        let (one, other, again) = within(loads).await;
        let outcomes =
            [one, other, again].map(|outcome| outcome.map(|_| ()).map_err(|error| error.to_string()));
        assert_eq!(outcomes, [Ok(()), Ok(()), Ok(())]);
    }
}

/// Bytes of a checkpoint that differs from another in its UNet alone.
fn with_another_unet(name: &str) -> Vec<u8> {
    let file = crate::harness::fixtures().join(format!("Stable-diffusion/{name}.safetensors"));
    let mut bytes = std::fs::read(file).expect("read");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let offsets = &header["model.diffusion_model.out.2.bias"]["data_offsets"];
    let at = 8 + length + offsets[0].as_u64().expect("an offset") as usize;
    bytes[at] ^= 1;
    bytes
}

#[tokio::test]
async fn what_two_checkpoints_have_in_common_is_there_once() {
    let models = tempfile::tempdir().expect("a folder");
    let folder = models.path().join("Stable-diffusion");
    std::fs::create_dir(&folder).expect("made");
    std::fs::copy(
        crate::harness::fixtures().join("Stable-diffusion/tiny-sd1.safetensors"),
        folder.join("one.safetensors"),
    )
    .expect("copied");
    std::fs::write(folder.join("two.safetensors"), with_another_unet(ONE)).expect("written");
    let options = crate::harness::Options { models: Some(models.path().to_owned()), ..Default::default() };
    let daemon = Daemon::with(options);
    let client = daemon.client().await;
    let draw = async |name: &str| {
        let request = Txt2ImgParams { checkpoint: Some(name.into()), ..small(1) };
        within(client.txt2img(&request)).await.expect("drawn").images.remove(0).png
    };
    let before = (draw("one").await, draw("two").await);
    let deadline = std::time::Instant::now() + crate::harness::SOON;
    let shared = loop {
        let loaded = within(client.loaded_models()).await.expect("listed");
        assert_eq!(loaded.len(), 2);
        let shared: Vec<u64> = loaded.iter().map(|model| model.shared_bytes).collect();
        let networks = within(client.status()).await.expect("told").memory.models_bytes;
        // Text encoder and VAE; the UNets differ.
        if shared[0] > 0 && networks == loaded[0].bytes + loaded[1].bytes - shared[0] {
            break shared;
        }
        assert!(std::time::Instant::now() < deadline, "{shared:?} shared\n{}", daemon.log());
        tokio::task::yield_now().await;
    };
    assert_eq!(shared[0], shared[1]);
    assert_eq!((draw("one").await, draw("two").await), before, "and draws as before");
    assert!(within(client.unload_model("one")).await.expect("unloaded"));
    let left = within(client.loaded_models()).await.expect("listed");
    assert_eq!(
        (left.len(), left[0].name.as_str(), left[0].shared_bytes),
        (1, "two", 0),
        "what was shared stays"
    );
    assert_eq!(draw("two").await, before.1);
}

/// Bytes that are in use, once nothing is going on.
async fn resident(client: &latentd_client::Client) -> u64 {
    within(client.status()).await.expect("told").memory.rss_bytes.expect("known here")
}

#[tokio::test]
async fn two_models_in_turn_under_a_budget_for_one() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let mut bytes = 0;
    for name in [ONE, OTHER] {
        bytes = bytes.max(within(client.load_model(name)).await.expect("loaded").bytes);
    }
    drop((client, daemon));
    // Room for the larger one and a small picture, not for both.
    let daemon = Daemon::with_flags(&["--memory-bytes", &(bytes + (6 << 20)).to_string()]);
    let client = daemon.client().await;
    let mut measured = vec![];
    let mut first = vec![];
    for turn in 0..50 {
        let name = if turn % 2 == 0 { ONE } else { OTHER };
        let request = Txt2ImgParams { checkpoint: Some(name.into()), ..small(1) };
        let drawn = within(client.txt2img(&request)).await.expect("no E_MEMORY").images.remove(0).png;
        if turn < 2 {
            first.push(drawn);
        } else {
            assert!(drawn == first[turn % 2], "turn {turn}: another picture");
        }
        measured.push(resident(&client).await);
        let networks = within(client.status()).await.expect("told").memory.models_bytes;
        assert!(networks <= bytes + (4 << 20), "turn {turn}: {networks} bytes of networks");
    }
    // The first turns warm up what is kept for ever: threads' stacks, the tokenizer, the allocator's own.
    // These models are small: what threads and the allocator keep for themselves, once, counts beside them.
    let (warm, after) = measured.split_at(10);
    let most = |part: &[u64]| part.iter().max().copied().unwrap_or_default();
    assert!(most(after) <= most(warm) + most(warm) / 50 + (8 << 20), "memory grows: {measured:?}");
}

#[tokio::test]
async fn what_never_fits_is_refused_when_it_is_submitted() {
    let daemon = Daemon::with_flags(&["--memory-bytes", &(64 << 20).to_string()]);
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let large = Txt2ImgParams { width: Some(2048), height: Some(2048), ..small(1) };
    // On a busy machine that takes longer than a submit waits: then it is a job, which fails before its turn.
    let submitted = within(client.submit("txt2img", &large, None)).await;
    let made = usize::from(submitted.is_ok());
    let text = match submitted {
        Ok(job) => refused(within(client.wait(&job)).await, ErrorName::Memory),
        refusal => refused(refusal, ErrorName::Memory),
    };
    assert!(text.contains("bytes of memory") && text.contains("draw smaller"), "{text}");
    let jobs = within(client.jobs(&JobListParams::default())).await.expect("listed");
    assert_eq!(jobs.len(), 1 + made);
    // Its tokens take a while to count; it fails before its turn all the same.
    let long_prompt = Txt2ImgParams { prompt: "a cat, ".repeat(25_000).into(), ..small(1) };
    refused(within(client.txt2img(&long_prompt)).await, ErrorName::Memory);
    within(client.cancel(&job)).await.expect("cancelled");
}

#[tokio::test]
async fn a_device_with_memory_of_its_own_draws_the_same_and_fails_one_job() {
    let fake = |fail: &str| {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = vec![variable("LATENTD_DEVICE", "fake"), variable("LATENTD_FAKE_FAIL", fail)];
        Daemon::with(crate::harness::Options { environment, ..Default::default() })
    };
    let (here, there) = (Daemon::start(), fake("unet.middle"));
    let wanted = within(here.client().await.txt2img(&small(1))).await.expect("drawn").images;
    let client = there.client().await;
    assert_eq!(within(client.status()).await.expect("told").devices[0].kind, "fake");
    let text = refused(within(client.txt2img(&small(1))).await, ErrorName::Internal);
    assert!(text.contains("failed in unet.middle"), "{text}");
    assert_eq!(within(client.txt2img(&small(1))).await.expect("drawn").images, wanted);
    // A device that is too small says so.
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let environment = vec![variable("LATENTD_DEVICE", "fake"), variable("LATENTD_FAKE_BYTES", "1000000")];
    let tiny = Daemon::with(crate::harness::Options { environment, ..Default::default() });
    refused(within(tiny.client().await.txt2img(&small(1))).await, ErrorName::Memory);
}

#[tokio::test]
async fn what_lies_idle_in_the_way_on_a_device_goes() {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let environment = vec![variable("LATENTD_DEVICE", "fake"), variable("LATENTD_FAKE_BYTES", "12000000")];
    let daemon = Daemon::with(crate::harness::Options { environment, ..Default::default() });
    let client = daemon.client().await;
    // There is room for the second one beside the first, but not in one piece.
    for name in [ONE, OTHER, ONE, OTHER] {
        let precision = latentd_client::protocol::Precision::F32;
        let request = Txt2ImgParams { checkpoint: Some(name.into()), precision, ..small(1) };
        within(client.txt2img(&request)).await.expect("no E_MEMORY");
    }
}

/// The most memory that a process ever held.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("there");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

/// What long prompts become is part of what is reserved: the longest that are taken stay within the budget.
#[tokio::test]
async fn long_prompts_stay_within_the_budget() {
    const BUDGET: u64 = 160 << 20;
    let daemon = Daemon::with_flags(&["--memory-bytes", &BUDGET.to_string()]);
    let client = daemon.client().await;
    let request = |words: usize| Txt2ImgParams {
        prompt: "a b c d e f g h ".repeat(words / 8).into(),
        negative_prompt: "h g f e d c b a ".repeat(words / 8).into(),
        steps: 1,
        precision: latentd_client::protocol::Precision::F32,
        ..small(1)
    };
    within(client.txt2img(&small(1))).await.expect("drawn");
    let before = peak(daemon.process.id());
    // What is refused is refused before anything is taken for it.
    let (mut fits, mut too_many) = (75, 99_000);
    while too_many - fits > 1_000 {
        let middle = usize::midpoint(fits, too_many);
        match within(client.submit("txt2img", &request(middle), None)).await {
            Ok(job) => {
                // It may be found too large only after the submit was answered.
                while within(client.job(&job)).await.expect("known").state == JobState::Resolving {}
                within(client.cancel(&job)).await.expect("cancelled");
                match within(client.wait(&job)).await {
                    Err(error) if error.wire().is_some_and(|wire| wire.name == ErrorName::Memory) => {
                        too_many = middle;
                    }
                    _ => fits = middle,
                }
            }
            refusal => {
                let text = refused(refusal, ErrorName::Memory);
                assert!(text.contains("shorten the prompts"), "{text}");
                too_many = middle;
            }
        }
    }
    within(client.txt2img(&request(fits))).await.expect("drawn");
    let grown = peak(daemon.process.id()).saturating_sub(before);
    assert!(fits > 1_000, "{fits}");
    // What is not of pictures, such as the words themselves, is beside it.
    assert!(grown < BUDGET + BUDGET / 16, "{fits} words take {grown} bytes");
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

/// Lets a process take this much address space beside what it has; any if `None`.
fn limit_address_space(daemon: &Daemon, more: Option<u64>) {
    let pid = daemon.process.id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let taken = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("told");
    let taken: u64 = taken.trim().trim_end_matches("kB").trim().parse().expect("a number");
    let allowed = more.map_or(libc::RLIM_INFINITY, |more| taken * 1024 + more);
    let limit = libc::rlimit { rlim_cur: allowed, rlim_max: libc::RLIM_INFINITY };
    let pid = i32::try_from(pid).expect("a process id");
    // SAFETY: it reads one limit of ours, and writes nothing.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_AS, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(set, 0);
}

#[tokio::test]
async fn what_the_system_refuses_costs_a_job_and_nothing_else() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    // Answered once the folders are watched: no thread is still to begin.
    within(client.library(&LibraryListParams::default())).await.expect("listed");
    let request = |mib: u64| {
        let side = if mib.is_multiple_of(2) { 64 } else { 128 };
        let checkpoint = if mib.is_multiple_of(5) { "tiny-sd1-ema" } else { "tiny-sd1" };
        Txt2ImgParams {
            steps: 1,
            width: Some(side),
            height: Some(side),
            batch_size: 1 + u32::try_from(mib % 2).expect("small"),
            checkpoint: Some(checkpoint.into()),
            precision: latentd_client::protocol::Precision::F32,
            ..small(1)
        }
    };
    // All threads have begun: those that load, compute, hash.
    for mib in [1, 5] {
        within(client.txt2img(&request(mib))).await.expect("drawn");
    }
    for checkpoint in ["tiny-sd1", "tiny-sd1-ema"] {
        within(client.unload_model(checkpoint)).await.expect("answered");
    }
    let mut refused = 0;
    for mib in (0..48).step_by(3) {
        limit_address_space(&daemon, Some(mib << 20));
        match within(client.txt2img(&request(mib))).await {
            Ok(_) => (),
            Err(error) => {
                let name = error.wire().unwrap_or_else(|| panic!("{mib}: {error}\n{}", daemon.log())).name;
                assert_eq!(name, ErrorName::Memory, "{mib}: {error}");
                refused += 1;
            }
        }
        limit_address_space(&daemon, None);
        within(client.unload_model("tiny-sd1")).await.expect("answered");
    }
    assert!(refused > 0, "there was always enough");
    within(client.txt2img(&request(1))).await.expect("drawn once there is memory");
}

#[tokio::test]
async fn a_checkpoint_stays_for_as_long_as_it_is_told_to() {
    let daemon = Daemon::with_flags(&["--preload", OTHER, "--preload", "no such"]);
    let client = daemon.client().await;
    daemon.wait_log("not brought into memory at the start");
    assert_eq!(names(&client).await, [OTHER]);
    let draw = async |keep_alive| {
        within(client.txt2img(&Txt2ImgParams { keep_alive, ..small(1) })).await.expect("drawn");
        names(&client).await
    };
    assert_eq!(draw(Some(0.0)).await, [OTHER], "it goes at once");
    assert_eq!(draw(Some(3600.0)).await, [OTHER, ONE]);
    assert_eq!(draw(None).await, [OTHER, ONE]);
    assert!(draw(Some(0.001)).await.len() <= 2);
    while names(&client).await != [OTHER] {
        tokio::task::yield_now().await;
    }
    let wrong = Txt2ImgParams { keep_alive: Some(-2.0), ..small(1) };
    refused(within(client.txt2img(&wrong)).await, ErrorName::InvalidParams);
}
