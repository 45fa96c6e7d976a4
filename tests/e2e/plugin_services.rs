//! What plugins ask the host for beside tensors, through the socket: progress, previews, pictures beside the results, memory, a folder
//! of their own, digests, and what is kept beyond a job. By a plugin in C that says what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use latentd_client::EventStream;
use latentd_client::protocol::{
    Artifact, ErrorName, EventKind, Img2ImgParams, OutputFormat, OutputParams, PluginParams, PluginProgress,
    Precision, PreviewParams, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::{Channels, Picture};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Options, refused, small, within};
use crate::plugin_library::{build, build_crate, install};

fn installed(daemon: Daemon) -> Daemon {
    install(&daemon, "services.so", &build("tests/fixtures/plugins/services.c", &["-std=gnu99"]));
    daemon
}

fn asked(params: &Json, request: Txt2ImgParams) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [("services".to_owned(), params)].into(), ..request }
}

fn raw(seed: i64) -> Txt2ImgParams {
    Txt2ImgParams { output: OutputParams { format: OutputFormat::Raw, dir: None }, ..small(seed) }
}

async fn drawn(daemon: &Daemon, params: &Json, request: Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(&asked(params, request))).await.expect("drawn")
}

async fn failed(daemon: &Daemon, act: &str, name: ErrorName) -> String {
    let request = asked(&json!({"act": act}), raw(1));
    refused(within(daemon.client().await.txt2img(&request)).await, name)
}

/// What the plugin tells, without its name.
fn told(drawn: &Txt2ImgResult) -> Vec<&str> {
    drawn.notices.iter().filter_map(|notice| notice.strip_prefix("plugin 'services': ")).collect()
}

/// A job's events from its first on.
async fn submitted(client: &latentd_client::Client, request: &Txt2ImgParams) -> (String, EventStream) {
    let job = within(client.submit("txt2img", request, None)).await.expect("submitted");
    let events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    (job, events)
}

#[tokio::test]
async fn progress_is_told_while_a_stage_runs_and_never_goes_back() {
    let daemon = installed(Daemon::start());
    let client = daemon.client().await;
    // It tells 0.25, 0.5, 1 and 0.1, and waits until it is cancelled.
    let (job, mut events) = submitted(&client, &asked(&json!({"act": "progress"}), raw(1))).await;
    let (mut shares, mut steps) = (vec![], vec![]);
    while let Some(event) = within(events.next()).await {
        match event.kind {
            EventKind::Progress { plugin, step, stage, .. } => {
                steps.push(step);
                let Some(PluginProgress { name, share, what }) = plugin else { continue };
                assert_eq!((name.as_str(), what.as_str()), ("services", "counting"));
                assert!(stage.is_some());
                shares.push(share);
                if share == 1.0 {
                    within(client.cancel(&job)).await.expect("cancelled");
                }
            }
            EventKind::Cancelled => break,
            EventKind::Failed { error } => panic!("{error}"),
            _ => (),
        }
    }
    assert!(steps.is_sorted(), "{steps:?}");
    // A slow reader has the latest alone.
    assert!(shares.is_sorted() && shares.iter().all(|share| [0.25, 0.5, 1.0].contains(share)), "{shares:?}");
    assert_eq!(shares.last(), Some(&1.0));
}

#[tokio::test]
async fn previews_are_shown_to_who_asks_for_them() {
    let daemon = installed(Daemon::start());
    let client = daemon.client().await;
    for (preview, is_shown) in [(Some(PreviewParams::default()), true), (None, false)] {
        let request = asked(&json!({"act": "preview"}), Txt2ImgParams { preview, ..raw(1) });
        let (job, mut events) = submitted(&client, &request).await;
        let mut shown = vec![];
        while let Some(event) = within(events.next()).await {
            match event.kind {
                EventKind::Preview { plugin: Some(plugin), image, .. } => shown.push((plugin, image)),
                EventKind::Finished => break,
                EventKind::Failed { error } => panic!("{error}"),
                _ => (),
            }
        }
        assert_eq!(shown.len(), usize::from(is_shown));
        let drawn: Txt2ImgResult = within(client.wait(&job)).await.expect("drawn");
        for (plugin, image) in shown {
            let picture = Picture::decode(&image.png.expect("a PNG").0, 1 << 20).expect("decodes");
            assert_eq!(plugin, "services");
            assert_eq!(Some(picture.pixels), drawn.images[0].raw.as_ref().map(|raw| raw.0.clone()));
        }
    }
}

#[tokio::test]
async fn pictures_beside_the_results_come_with_them() {
    let daemon = installed(Daemon::start());
    let act = json!({"act": "artifact"});
    let two = Txt2ImgParams { batch_size: 2, ..raw(1) };
    let result = drawn(&daemon, &act, two.clone()).await;
    let places = |artifacts: &[Artifact]| -> Vec<(String, Option<u32>)> {
        artifacts.iter().map(|artifact| (artifact.name.clone(), artifact.image)).collect()
    };
    let mask = ("mask".to_owned(), None);
    let before = |image: u32| ("drawn: before/after".to_owned(), Some(image));
    assert_eq!(places(&result.artifacts), [before(0), before(1), mask.clone(), mask.clone()]);
    for (artifact, image) in result.artifacts.iter().zip(&result.images) {
        assert_eq!((&artifact.picture.raw, artifact.plugin.as_str()), (&image.raw, "services"));
    }
    let channels: Vec<Option<u32>> =
        result.artifacts.iter().map(|artifact| artifact.picture.channels).collect();
    assert_eq!(channels, [Some(3), Some(3), Some(1), Some(4)]);
    // Each of several batches; the job keeps them.
    let client = daemon.client().await;
    let four = asked(&act, Txt2ImgParams { n_iter: 2, ..two });
    let job = within(client.submit("txt2img", &four, None)).await.expect("submitted");
    let result: Txt2ImgResult = within(client.wait(&job)).await.expect("drawn");
    let images: Vec<Option<u32>> = result.artifacts.iter().map(|artifact| artifact.image).collect();
    assert_eq!(images, [Some(0), Some(1), None, None, Some(2), Some(3), None, None]);
    let again: Txt2ImgResult = within(client.wait(&job)).await.expect("kept");
    assert_eq!(again.artifacts, result.artifacts);
    // As the request has its pictures, but never with loss.
    let with = |format| Txt2ImgParams { output: OutputParams { format, dir: None }, ..small(1) };
    for format in [OutputFormat::Jpeg, OutputFormat::Png, OutputFormat::Webp, OutputFormat::File] {
        let result = drawn(&daemon, &act, with(format)).await;
        let decoded = result.artifacts.iter().map(|artifact| {
            let picture = &artifact.picture;
            let bytes = match &picture.path {
                Some(path) => fs::read(path).expect("written"),
                None => picture.png.clone().expect("a PNG").0,
            };
            Picture::decode(&bytes, 1 << 20).expect("decodes")
        });
        let decoded: Vec<Picture> = decoded.collect();
        let channels: Vec<Channels> = decoded.iter().map(|picture| picture.channels).collect();
        assert_eq!(channels, [Channels::Rgb, Channels::Grey, Channels::Rgba], "{format:?}");
        assert!(decoded[1].pixels.iter().all(|value| *value == 99));
    }
    // What was never called leaves nothing, nor what failed.
    assert_eq!(drawn(&daemon, &json!({"act": "artifact-skip"}), raw(1)).await.artifacts, []);
    failed(&daemon, "artifact-fail", ErrorName::Plugin).await;
    for (act, words) in [
        ("artifact-tensor", "a tensor is no picture"),
        ("artifact-name", "1 to 64 characters"),
        ("artifact-none", "there is no picture 12345, but 1 from 0"),
        ("artifact-many", "256 are possible"),
    ] {
        let text = failed(&daemon, act, ErrorName::InvalidParams).await;
        assert!(
            text.contains("plugin 'services', image.post/draft-1") && text.contains(words),
            "{act}: {text}"
        );
    }
}

#[tokio::test]
async fn loops_leave_pictures_beside_the_image_that_they_become() {
    let daemon = installed(Daemon::start());
    let client = daemon.client().await;
    let picture = within(client.txt2img(&raw(1))).await.expect("drawn").images.remove(0);
    let init = latentd_client::protocol::ImageIn::raw(picture.raw.expect("pixels").0, 64, 64, 3);
    let params = asked(&json!({"act": "artifact"}), Txt2ImgParams { steps: 4, ..raw(1) });
    let looped = Img2ImgParams {
        init_images: vec![init],
        loopback: Some(latentd_client::protocol::LoopbackParams { loops: 2, ..Default::default() }),
        drawing: params,
        ..Default::default()
    };
    let result = within(client.img2img(&looped)).await.expect("drawn");
    let images: Vec<Option<u32>> = result.artifacts.iter().map(|artifact| artifact.image).collect();
    assert_eq!((result.images.len(), images), (2, vec![Some(0), None, None, Some(1), None, None]));
}

#[tokio::test]
async fn the_command_line_writes_them_beside_its_output() {
    let daemon = installed(Daemon::start());
    let run = |arguments: &[&str]| {
        let plugin = ["--plugin", r#"services={"act": "artifact"}"#];
        let usual = ["generate", "a circle", "--seed", "7", "--steps", "2", "--checkpoint", "tiny-sd1"];
        let size = ["--width", "64", "--height", "64"];
        let arguments: Vec<&str> =
            usual.iter().chain(&size).chain(&plugin).chain(arguments).copied().collect();
        let output = daemon.command(&arguments).output().expect("run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let names = |lines: Vec<u8>| -> Vec<String> {
        String::from_utf8(lines).expect("text").lines().map(str::to_owned).collect()
    };
    let beside = ["out-services-drawn-before-after.png", "out-services-mask.png", "out-services-mask-2.png"];
    let written = names(run(&["-o", "out.jpg"]));
    assert_eq!(written[0], "out.jpg");
    assert_eq!(written[1..], beside);
    for name in &written {
        assert!(daemon.folder.path().join(name).is_file(), "{name}");
    }
    assert_eq!(names(run(&[]))[1], "latentd-7-services-drawn-before-after.png");
    assert!(run(&["-o", "-"]).starts_with(b"\x89PNG"), "on stdout is the picture alone");
}

#[tokio::test]
async fn memory_is_counted_and_refused() {
    let daemon = installed(Daemon::start());
    drawn(&daemon, &json!({"act": "reserve"}), raw(1)).await;
    let text = failed(&daemon, "reserve-all", ErrorName::Memory).await;
    assert!(text.contains("plugin 'services', noise.init/draft-1"), "{text}");
    drawn(&daemon, &json!({"act": "reserve"}), raw(1)).await;
}

#[tokio::test]
async fn a_plugin_has_a_folder_of_its_own() {
    let daemon = installed(Daemon::start());
    for count in 1..3 {
        let result = drawn(&daemon, &json!({"act": "folder"}), raw(1)).await;
        let note = daemon.folder.path().join("state/latentd/plugins/services/note");
        assert_eq!(told(&result), [note.to_str().expect("text")]);
        assert_eq!(fs::read(&note).expect("written"), vec![b'x'; count]);
        let mode = |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(note.parent().expect("a folder")), 0o700);
    }
}

#[tokio::test]
async fn digests_are_of_sizes_type_and_numbers() {
    let daemon = installed(Daemon::start());
    let result = drawn(&daemon, &json!({"act": "digest", "side": 2}), raw(1)).await;
    // hashlib.sha256(bytes([4]) + struct.pack("<4Q", 1, 3, 2, 2) + bytes([2, 32]) + struct.pack("<12f", *[1] * 12))
    assert_eq!(told(&result), ["44a0c826b8926f0f266e2798c64ae224d797647865cdb7322138d8d588820823"]);
}

#[tokio::test]
async fn what_is_kept_outlives_its_job_and_goes_where_room_is_needed() {
    let start =
        |config: &str| installed(Daemon::with(Options { config: config.to_owned(), ..Options::default() }));
    let cache = |key: &str, side: usize| json!({"act": "cache", "key": key, "side": side});
    let mut daemon = start("");
    let found = async |daemon: &Daemon, key: &str, side: usize| {
        let result = drawn(daemon, &cache(key, side), raw(1)).await;
        told(&result)[0] == "found"
    };
    assert!(!found(&daemon, "a", 8).await && found(&daemon, "a", 8).await);
    assert!(!found(&daemon, "b", 8).await && found(&daemon, "a", 8).await);
    // A job of another precision does not take what one of this made.
    let wide = async |key: &str, precision: Precision| {
        let request = Txt2ImgParams { precision, ..raw(1) };
        told(&drawn(&daemon, &cache(key, 8), request).await)[0] == "found"
    };
    let (this, other) = (Precision::F32, Precision::Bf16);
    assert!(!wide("wide", this).await && !wide("wide", other).await);
    assert!(wide("wide", this).await && wide("wide", other).await);
    // Another version, or another plugin, has its own.
    let newer = tempfile::tempdir().expect("a folder");
    let manifest = fs::read_to_string("../tests/fixtures/plugins/services.toml").expect("a manifest");
    let path = newer.path().join("services.toml");
    fs::write(&path, manifest.replace("1.0.0", "1.0.1")).expect("written");
    let flag = format!("-DMANIFEST=\"{}\"", path.display());
    install(&daemon, "services.so", &build("tests/fixtures/plugins/services.c", &["-std=gnu99", &flag]));
    assert!(!found(&daemon, "a", 8).await && found(&daemon, "a", 8).await);
    for (act, name, words) in [
        ("cache-key", ErrorName::Plugin, "the key is null"),
        ("cache-long-key", ErrorName::InvalidParams, "a key of 1048576 bytes"),
    ] {
        let text = failed(&daemon, act, name).await;
        assert!(text.contains(words), "{text}");
    }
    // It does not outlive the daemon.
    daemon.signal(libc::SIGTERM);
    assert!(daemon.ended().success());
    daemon.restart();
    assert!(!found(&daemon, "a", 8).await);
    // 3 · 64 · 64 numbers are 48 KiB: of three there is room for two.
    let daemon = start("plugin_cache_bytes = 100000");
    assert!(!found(&daemon, "a", 64).await && !found(&daemon, "b", 64).await);
    assert!(found(&daemon, "a", 64).await && !found(&daemon, "c", 64).await);
    assert!(found(&daemon, "a", 64).await && found(&daemon, "c", 64).await && !found(&daemon, "b", 64).await);
    // More than there is room for is not kept, and no failure.
    assert!(!found(&daemon, "large", 128).await && !found(&daemon, "large", 128).await);
}

#[tokio::test]
async fn a_plugin_in_rust_has_all_of_it() {
    let daemon = Daemon::start();
    install(&daemon, "librust_services.so", &build_crate("tests/fixtures/plugins/rust_services"));
    let client = daemon.client().await;
    let two = Txt2ImgParams { batch_size: 2, preview: Some(PreviewParams::default()), ..raw(9) };
    let expected = within(client.txt2img(&two)).await.expect("drawn").images;
    let plugins = [("rust-services".to_owned(), PluginParams::default())].into();
    let result = within(client.txt2img(&Txt2ImgParams { plugins, ..two })).await.expect("drawn");
    for (index, (image, before)) in result.images.iter().zip(&expected).enumerate() {
        assert_eq!(image.raw, before.raw);
        let of = |artifact: &&Artifact| artifact.image == u32::try_from(index).ok();
        let negative = result.artifacts.iter().find(of).expect("its negative");
        let (new, old) =
            (negative.picture.raw.as_ref().expect("pixels"), before.raw.as_ref().expect("pixels"));
        assert!(new.0.iter().zip(&old.0).all(|(new, old)| *new == 255 - old));
    }
    assert_eq!(result.artifacts.len(), 4);
    assert!(daemon.folder.path().join("state/latentd/plugins/rust-services/note").is_file());
}
