//! Plugins in processes of their own: what a stranger's plugin may do with its process costs the job that named it, and no more. By a
//! plugin that does with it whatever it likes.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use latentd_client::protocol::{ErrorName, ImageOut, PluginParams, Precision, Txt2ImgParams};
use latentd_models::image::Picture;
use serde_json::json;

use crate::harness::{Daemon, Options, refused, small, within};
use crate::plugin_library::{build, install};

fn hostile() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| build("tests/fixtures/plugins/hostile.cpp", &["-pthread"]))
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams { precision: Precision::F32, ..small(3) }
}

fn asking(how: &str) -> Txt2ImgParams {
    let params = PluginParams::from_json(json!({"how": how}).as_object().expect("a map").clone());
    Txt2ImgParams { plugins: [("hostile".to_owned(), params)].into(), ..plain() }
}

fn png(image: &ImageOut) -> &[u8] {
    &image.png.as_ref().expect("a PNG").0
}

async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<u8> {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    decoded(&drawn.images[0])
}

fn decoded(image: &ImageOut) -> Vec<u8> {
    Picture::decode(png(image), 1 << 24).expect("decodes").pixels
}

fn daemon() -> Daemon {
    let daemon = Daemon::with(Options {
        config: "[plugins.hostile]\ndeadline_seconds = 2\n".into(),
        ..Options::default()
    });
    install(&daemon, "hostile.so", hostile());
    daemon
}

/// Processes of the daemon's that run a plugin.
pub(crate) fn children(daemon: &Daemon) -> Vec<i32> {
    let mut found = vec![];
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).map(str::trim);
        if parent == Some(&daemon.id().to_string()) {
            found.push(id);
        }
    }
    found
}

/// What each does, and what is said of the job.
const ENDS: &[(&str, &[&str])] = &[
    ("segfault", &["its process ended", "SIGSEGV"]),
    ("abort", &["its process ended", "SIGABRT"]),
    ("exit", &["its process ended", "exit code 3"]),
    ("exit-cleanly", &["its process ended", "exit code 0"]),
    ("throw", &["its process ended", "SIGABRT"]),
    ("overflow", &["its process ended", "SIGSEGV"]),
    ("loop", &["longer than 2 s by itself"]),
    ("sleep", &["longer than 2 s by itself"]),
    ("release-twice", &["refused: released twice"]),
    ("use-after-release", &["refused: used after"]),
    ("wrong-thread", &["refused: wrong thread"]),
    ("write-input", &["its process ended", "SIGSEGV"]),
    ("garbage", &["it sent a message of 4294967295 bytes", "was ended"]),
    ("half-a-message", &["longer than 2 s by itself"]),
    ("never-read", &["it does not read what it is told", "was ended"]),
    ("close", &["it closed its socket", "was ended"]),
    ("flood", &["flooded"]),
    ("ten-gigabytes", &["refused: Cannot allocate memory"]),
    ("shared-gigabytes", &["refused: "]),
    ("fork", &["refused: "]),
    ("socket", &["refused: "]),
    ("home", &["refused: "]),
    ("ptrace", &["refused: "]),
    ("kill-parent", &["refused: "]),
    ("memory-of-parent", &["refused: "]),
    ("execute", &["refused: "]),
];

#[tokio::test]
async fn what_a_plugin_does_with_its_process_costs_its_job() {
    let daemon = daemon();
    let plain_pixels = pixels(&daemon, &plain()).await;
    for (how, words) in ENDS {
        let client = daemon.client().await;
        let beside = within(client.submit("txt2img", &plain(), None)).await.expect("submitted");
        let text = refused(within(daemon.client().await.txt2img(&asking(how))).await, ErrorName::Plugin);
        for word in [&"plugin 'hostile', image.post"].into_iter().chain(*words) {
            assert!(text.contains(word), "{how}: {text}");
        }
        let beside = within(client.wait(&beside)).await.expect("the job beside it");
        assert!(decoded(&beside.images[0]) == plain_pixels, "beside {how}");
        // Also so that it is not set aside.
        assert!(pixels(&daemon, &asking("nothing")).await == plain_pixels, "after {how}");
    }
    assert!(children(&daemon).len() <= 2, "{:?}", children(&daemon));
}

#[tokio::test]
async fn what_a_plugin_changes_of_its_process_stays_there() {
    let daemon = daemon();
    let plain_pixels = pixels(&daemon, &plain()).await;
    assert!(pixels(&daemon, &asking("locale")).await == plain_pixels);
    // What it goes on to write after the stage is not seen.
    let black = pixels(&daemon, &asking("write-after")).await;
    assert!(black.iter().skip(1).all(|value| *value == 0));
    assert!(pixels(&daemon, &plain()).await == plain_pixels);
}

#[tokio::test]
async fn a_plugin_that_ends_again_and_again_is_set_aside() {
    let daemon = daemon();
    for _ in 0..5 {
        let text = refused(within(daemon.client().await.txt2img(&asking("abort"))).await, ErrorName::Plugin);
        assert!(text.contains("SIGABRT"), "{text}");
    }
    let text = refused(within(daemon.client().await.txt2img(&asking("nothing"))).await, ErrorName::Plugin);
    assert!(text.contains("set aside") && text.contains("plugins enable hostile"), "{text}");
    let listed = within(daemon.client().await.plugins()).await.expect("listed").plugins;
    assert_eq!(listed[0].isolation.as_deref(), Some("process"));
    assert!(listed[0].reason.as_deref().is_some_and(|why| why.contains("5 times in a row")), "{listed:?}");
}

#[tokio::test]
async fn a_child_ends_with_its_daemon_and_whoever_stops_it_by_hand_costs_its_job() {
    let mut daemon = daemon();
    let signals = [(libc::SIGKILL, "signal 9"), (libc::SIGSTOP, "longer than 2 s by itself")];
    for ((signal, words), how) in signals.into_iter().zip(["wait for the one", "wait for the other"]) {
        let client = daemon.client().await;
        let job = within(client.submit("txt2img", &asking(how), None)).await.expect("submitted");
        let child = busy(&daemon, how).await;
        // SAFETY: it is a child of the daemon's.
        assert_eq!(unsafe { libc::kill(child, signal) }, 0);
        let ended = within(client.wait(&job)).await;
        let text = refused(ended, ErrorName::Plugin);
        assert!(text.contains(words), "{text}");
    }
    let client = daemon.client().await;
    within(client.submit("txt2img", &asking("loop"), None)).await.expect("submitted");
    busy(&daemon, "loop").await;
    let running = children(&daemon);
    daemon.signal(libc::SIGKILL);
    daemon.ended();
    let begun = Instant::now();
    while running.iter().any(|id| is_there(*id)) {
        assert!(begun.elapsed() < Duration::from_secs(30), "children are left: {running:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The process whose plugin has begun to do something.
async fn busy(daemon: &Daemon, how: &str) -> i32 {
    let begun = Instant::now();
    let line = format!("begins to {how}");
    loop {
        assert!(begun.elapsed() < Duration::from_mins(1), "nobody {line}: {}", daemon.log());
        let has_begun = daemon.log().contains(&line);
        let running = if has_begun { children(daemon) } else { vec![] };
        // Another one may wait after the plan.
        if let Some(child) = running.into_iter().find(|id| is_busy(*id)) {
            return child;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process has used its processor lately, or waits in the plugin: it is no longer waiting for its socket.
fn is_busy(id: i32) -> bool {
    let waits = fs::read_to_string(format!("/proc/{id}/wchan")).unwrap_or_default();
    !waits.is_empty() && !waits.contains("poll")
}

fn is_there(id: i32) -> bool {
    fs::read_to_string(format!("/proc/{id}/status")).is_ok_and(|status| !status.contains("State:\tZ"))
}

#[tokio::test]
async fn a_job_that_is_cancelled_ends_a_plugin_that_does_not_listen() {
    let daemon = Daemon::start();
    install(&daemon, "hostile.so", hostile());
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &asking("sleep"), None)).await.expect("submitted");
    busy(&daemon, "sleep").await;
    within(client.cancel(&job)).await.expect("cancelled");
    let ended = within(client.wait(&job)).await;
    refused(ended, ErrorName::Cancelled);
    assert!(pixels(&daemon, &asking("nothing")).await == pixels(&daemon, &plain()).await);
}

/// The file is written over, not put in the place of another: a process that had it mapped would see that.
#[tokio::test]
async fn a_library_that_is_written_over_while_it_runs_is_the_next_job_s() {
    let daemon = Daemon::start();
    install(&daemon, "hostile.so", hostile());
    let client = daemon.client().await;
    let job = within(client.submit("txt2img", &asking("wait"), None)).await.expect("submitted");
    busy(&daemon, "wait").await;
    let path = crate::plugin_library::folder_of(&daemon).join("hostile.so");
    fs::write(&path, []).expect("emptied");
    let newer = build("tests/fixtures/plugins/hostile.cpp", &["-pthread", "-DGRANTED=\"/nowhere\""]);
    fs::write(&path, newer).expect("written");
    let next = within(client.submit("txt2img", &asking("granted-read"), None)).await.expect("submitted");
    within(client.cancel(&job)).await.expect("cancelled");
    // It went on, and noticed that.
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    let text = refused(within(client.wait(&next)).await, ErrorName::Plugin);
    assert!(text.contains("refused: No such file"), "{text}");
    assert!(!daemon.log().contains("was ended"), "{}", daemon.log());
}

/// Executables in other languages, if these are here: Python with NumPy and msgpack in the tests' own environment, and Node.
#[tokio::test]
async fn plugins_may_be_executables_in_any_language() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let examples = repository.join("plugin-api/examples");
    let python = repository.join("tests/.venv/bin/python");
    let base =
        Command::new(&python).args(["-c", "import sys; print(sys.base_prefix)"]).output().expect("Python");
    let base = String::from_utf8(base.stdout).expect("a path");
    let config = format!(
        "[plugins.solarise]\nreads = [{:?}, {:?}]\n",
        base.trim(),
        repository.join("tests/.venv").canonicalize().expect("an environment"),
    );
    let daemon = Daemon::with(Options { config, ..Options::default() });
    let script = fs::read_to_string(examples.join("solarise-python/solarise.py")).expect("read");
    let script = script.replacen("#!/usr/bin/env python3", &format!("#!{}", python.display()), 1);
    install_executable(
        &daemon,
        "solarise.py",
        script.as_bytes(),
        &examples.join("solarise-python/solarise.toml"),
    );
    let script = fs::read(examples.join("halftone-js/halftone.js")).expect("read");
    install_executable(&daemon, "halftone.js", &script, &examples.join("halftone-js/halftone.toml"));
    let before = pixels(&daemon, &plain()).await;
    let with = |name: &str, params: serde_json::Value| {
        let params = PluginParams::from_json(params.as_object().expect("a map").clone());
        Txt2ImgParams { plugins: [(name.to_owned(), params)].into(), ..plain() }
    };
    let solarised = pixels(&daemon, &with("solarise", json!({"threshold": 100}))).await;
    let expected: Vec<u8> =
        before.iter().map(|value| if *value > 100 { 255 - value } else { *value }).collect();
    assert!(solarised == expected);
    let dotted = pixels(&daemon, &with("halftone", json!({}))).await;
    assert!(dotted.iter().all(|value| [0, 255].contains(value)));
    let light =
        |pixels: &[u8]| pixels.iter().map(|value| f64::from(*value)).sum::<f64>() / pixels.len() as f64;
    assert!((light(&dotted) - light(&before)).abs() < 25.0, "{} {}", light(&dotted), light(&before));
}

fn install_executable(daemon: &Daemon, name: &str, script: &[u8], manifest: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    install(daemon, name, script);
    let folder = crate::plugin_library::folder_of(daemon);
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).expect("set");
    fs::copy(manifest, folder.join(manifest.file_name().expect("a name"))).expect("copied");
}
