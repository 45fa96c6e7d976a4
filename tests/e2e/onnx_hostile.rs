//! ONNX graphs of the library that need all memory, never end, or whose process ends: each costs the request that ran it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use latentd_client::protocol::{ErrorName, JobState, PluginParams, Precision, Txt2ImgParams};
use latentd_models::image::Picture;

use crate::harness::{Daemon, Options, SOON, fixtures, refused, small, within};
use crate::plugin_library::{build_crate, install};

/// With tiny-sd1, these graphs among the annotators, and the plugin that runs them.
fn start(graphs: &[&str], settings: &str) -> (Daemon, tempfile::TempDir) {
    let models = tempfile::tempdir().expect("a folder");
    let copy = |from: &Path, to: &str| {
        let to = models.path().join(to);
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(from, to).expect("copied");
    };
    copy(&fixtures().join("Stable-diffusion/tiny-sd1.safetensors"), "Stable-diffusion/tiny-sd1.safetensors");
    for name in graphs {
        copy(&fixtures().join(format!("../onnx/{name}.onnx")), &format!("annotators/{name}.onnx"));
    }
    let config = settings.to_owned();
    let daemon =
        Daemon::with(Options { models: Some(models.path().to_owned()), config, ..Options::default() });
    install(&daemon, "onnx_filter.so", &build_crate("plugin-api/examples/onnx-filter"));
    (daemon, models)
}

fn with(graph: &str) -> Txt2ImgParams {
    let params = PluginParams(vec![("model".into(), graph.into())].into_iter().collect());
    Txt2ImgParams {
        plugins: [("onnx-filter".to_owned(), params)].into(),
        precision: Precision::F32,
        ..small(3)
    }
}

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<u8> {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    drawn.images[0].png.as_ref().expect("a PNG").0.clone()
}

async fn fails(daemon: &Daemon, graph: &str, name: ErrorName) -> String {
    refused(within(daemon.client().await.txt2img(&with(graph))).await, name)
}

/// Numbers of the processes that run graphs for this one.
fn hosts(daemon: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("a folder").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_host = |number: &u32| {
        let status = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        let told: Vec<&str> = status.rsplit_once(") ").map_or(vec![], |(_, rest)| rest.split(' ').collect());
        let command = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        told.get(1) == Some(&daemon.to_string().as_str())
            && command.split(|byte| *byte == 0).nth(1) == Some(b"onnx-host")
    };
    numbers.filter(is_host).collect()
}

fn is_gone(number: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
}

/// Hundredths of seconds that it computed.
fn ticks(number: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    let told = status.rsplit_once(") ").map_or("", |(_, rest)| rest);
    told.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn memory_that_is_not_granted_costs_the_request() {
    let (daemon, _models) = start(&["hungry", "larger", "folded", "sharper"], "onnx_bytes = 300000000");
    let plain = draw(&daemon, &small(3)).await;
    let sharper = draw(&daemon, &with("sharper")).await;
    let text = fails(&daemon, "hungry", ErrorName::Memory).await;
    assert!(text.contains("onnx-filter") && text.contains("needs more than the 300000000 bytes"), "{text}");
    let text = fails(&daemon, "folded", ErrorName::Model).await;
    assert!(text.contains("annotator 'folded' cannot be run as ONNX: reading it takes more than"), "{text}");
    // What is thought to be enough is not; it gets more, and makes of a picture the same picture.
    let plainly = Txt2ImgParams { precision: Precision::F32, ..small(3) };
    let pixels = |png: Vec<u8>| Picture::decode(&png, 1 << 24).expect("decodes").pixels;
    assert_eq!(pixels(draw(&daemon, &with("larger")).await), pixels(draw(&daemon, &plainly).await));
    assert_eq!(draw(&daemon, &with("sharper")).await, sharper);
    assert_eq!(draw(&daemon, &small(3)).await, plain);
    // One for each graph that can be run.
    assert!(hosts(daemon.process.id()).len() <= 3);
}

#[tokio::test]
async fn what_never_ends_is_ended() {
    let (daemon, _models) = start(&["endless", "sharper"], "onnx_time_s = 6");
    let sharper = draw(&daemon, &with("sharper")).await;
    let text = fails(&daemon, "endless", ErrorName::Model).await;
    assert!(text.contains("onnx-filter") && text.contains("more than 6 s and was ended"), "{text}");
    // The other one's process is there still.
    assert_eq!(hosts(daemon.process.id()).len(), 1);
    assert_eq!(draw(&daemon, &with("sharper")).await, sharper);
}

#[tokio::test]
async fn a_process_that_ends_or_is_not_wanted_any_more_leaves_nothing() {
    let (mut daemon, _models) = start(&["endless", "sharper"], "");
    let number = daemon.process.id();
    let sharper = draw(&daemon, &with("sharper")).await;
    let idle = hosts(number);
    let [idle] = idle[..] else { panic!("{idle:?}") };
    // It ends while nobody looks.
    // SAFETY: a signal to a process that is there.
    unsafe { libc::kill(idle as i32, libc::SIGKILL) };
    assert_eq!(draw(&daemon, &with("sharper")).await, sharper);
    let kept = hosts(number);
    assert_ne!(kept, [idle]);
    // Not one that has only read its graph: it would be kept.
    let busy = || hosts(number).into_iter().find(|host| !kept.contains(host) && ticks(*host) > 40);
    let client = daemon.client().await;

    // In the middle of a run.
    let job = within(client.submit("txt2img", &with("endless"), None)).await.expect("submitted");
    let host = until("no process", busy).await;
    // SAFETY: as above.
    unsafe { libc::kill(host as i32, libc::SIGILL) };
    let text = refused(within(client.wait(&job)).await, ErrorName::Model);
    assert!(text.contains("its process ended by signal 4 (SIGILL)"), "{text}");
    assert!(is_gone(host));

    // Cancelled.
    let job = within(client.submit("txt2img", &with("endless"), None)).await.expect("submitted");
    let host = until("no process", busy).await;
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    until("it is not ended", || is_gone(host).then_some(())).await;
    assert_eq!(draw(&daemon, &with("sharper")).await, sharper);

    // The daemon itself.
    let job = within(client.submit("txt2img", &with("endless"), None)).await.expect("submitted");
    let host = until("no process", busy).await;
    assert_eq!(within(client.job(&job)).await.expect("there").state, JobState::Running);
    daemon.process.kill().expect("killed");
    until("it outlives the daemon", || is_gone(host).then_some(())).await;
    for host in kept {
        until("it outlives the daemon", || is_gone(host).then_some(())).await;
    }
    daemon.process.wait().expect("waited");
}
