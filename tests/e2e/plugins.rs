//! Plugins through the socket: built as a stranger builds them, with a C compiler and the header alone.

use std::sync::OnceLock;

use latentd_client::protocol::{
    ErrorName, ImageIn, ImageOut, PluginParams, PluginState, Precision, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::Picture;
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Options, refused, small, within};
use crate::plugin_library::{build, folder_of, install};

/// The example that darkens corners.
fn vignette() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| build("plugin-api/examples/vignette/vignette.c", &["-std=gnu99"]))
}

fn request(name: &str, params: Json) -> Txt2ImgParams {
    let Json::Object(params) = params else { panic!("no object") };
    let plugins = [(name.to_owned(), PluginParams::from_json(params))].into();
    Txt2ImgParams { plugins, precision: Precision::F32, ..small(3) }
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams { precision: Precision::F32, ..small(3) }
}

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(params)).await.expect("drawn")
}

async fn fails(daemon: &Daemon, params: &Txt2ImgParams, name: ErrorName) -> String {
    refused(within(daemon.client().await.txt2img(params)).await, name)
}

fn png(image: &ImageOut) -> &[u8] {
    &image.png.as_ref().expect("a PNG").0
}

fn picture(image: &ImageOut) -> Picture {
    Picture::decode(png(image), 1 << 24).expect("decodes")
}

/// What the vignette's head says, of RGB.
fn darkened(picture: &Picture, strength: f64, radius: f64) -> Vec<u8> {
    let Picture { width, height, pixels, .. } = picture;
    let place = |at: usize, size: usize| (2.0 * at as f64 + 1.0) / size as f64 - 1.0;
    let light = |x: usize, y: usize| {
        let d = f64::midpoint(place(x, *width).powi(2), place(y, *height).powi(2)).sqrt();
        let t = ((d - radius) / (1.0 - radius)).max(0.0);
        1.0 - strength * t * t * (3.0 - 2.0 * t)
    };
    let value = |(at, value): (usize, &u8)| {
        let pixel = at / 3;
        (f64::from(*value) * light(pixel % width, pixel / width) + 0.5).floor() as u8
    };
    pixels.iter().enumerate().map(value).collect()
}

#[tokio::test]
async fn a_filter_in_c_changes_pictures_and_is_told_in_them() {
    let daemon = Daemon::start();
    let before = draw(&daemon, &plain()).await;
    install(&daemon, "vignette.so", vignette());
    let listed = within(daemon.client().await.plugins()).await.expect("listed").plugins;
    let [entry] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((entry.name.as_deref(), entry.version.as_deref()), (Some("vignette"), Some("1.0.0")));
    assert_eq!(
        (entry.state, entry.abi.as_deref()),
        (PluginState::Ready, Some("0.1")),
        "nothing is loaded yet"
    );
    let schema = within(daemon.client().await.plugin_schema("vignette")).await.expect("a schema");
    assert_eq!(schema.parameters["properties"]["strength"]["default"], 0.5);

    // One that nobody asks for changes nothing.
    assert_eq!(png(&draw(&daemon, &plain()).await.images[0]), png(&before.images[0]));
    let drawn = draw(&daemon, &request("vignette", json!({"strength": 0.8}))).await;
    assert!(drawn.notices.is_empty(), "{:?}", drawn.notices);
    let (image, old) = (&drawn.images[0], picture(&before.images[0]));
    assert_eq!(picture(image).pixels, darkened(&old, 0.8, 0.5));
    let usual = draw(&daemon, &request("vignette", json!({}))).await;
    // Another version of it may have other defaults.
    let text = usual.images[0].infotext.as_deref().expect("told");
    assert!(text.contains("\\\"strength\\\":0.5") && text.contains("\\\"radius\\\":0.5"), "{text}");
    assert_eq!(picture(&usual.images[0]).pixels, darkened(&old, 0.5, 0.5), "the schema's defaults");
    let listed = within(daemon.client().await.plugins()).await.expect("listed").plugins;
    assert_eq!(listed[0].state, PluginState::Loaded);

    // What the picture tells draws it again.
    let text = image.infotext.as_deref().expect("told");
    assert!(text.contains("vignette") && text.contains("1.0.0") && text.contains("0.8"), "{text}");
    let client = daemon.client().await;
    let info = within(client.image_info(ImageIn::png(png(image).to_vec()))).await.expect("read");
    assert!(info.others.is_empty(), "{:?}", info.others);
    let again = draw(&daemon, &info.request.expect("a request").into_drawing()).await;
    assert_eq!((png(&again.images[0]), &again.images[0].infotext), (png(image), &image.infotext));
    // All pictures of a batch, each by itself.
    let batch = Txt2ImgParams { batch_size: 2, ..request("vignette", json!({"strength": 0.8})) };
    assert_eq!(picture(&draw(&daemon, &batch).await.images[0]), picture(image));
}

#[tokio::test]
async fn parameters_are_looked_at_as_the_request_comes() {
    let daemon = Daemon::start();
    install(&daemon, "vignette.so", vignette());
    for (params, words) in [
        (json!({"strength": 2}), "plugins.vignette"),
        (json!({"strength": "much"}), "plugins.vignette"),
        (json!({"strenght": 0.5}), "did you mean 'strength'?"),
    ] {
        let text = fails(&daemon, &request("vignette", params), ErrorName::InvalidParams).await;
        assert!(text.contains(words), "{text}");
    }
    let text = fails(&daemon, &request("vignete", json!({})), ErrorName::NotFound).await;
    assert!(text.contains("did you mean 'vignette'?"), "{text}");
    let other = Daemon::start();
    let text = fails(&other, &request("vignette", json!({})), ErrorName::NotFound).await;
    assert!(text.contains("no plugin is called 'vignette'"), "{text}");
}

#[tokio::test]
async fn a_changed_file_is_taken_by_the_next_request() {
    let daemon = Daemon::start();
    install(&daemon, "vignette.so", vignette());
    let first = draw(&daemon, &request("vignette", json!({"strength": 0.8}))).await;
    // The same plugin, built otherwise: it does the same, and is another file.
    let source = "plugin-api/examples/vignette/vignette.c";
    install(&daemon, "vignette.so", &build(source, &["-std=gnu99", "-DANOTHER", "-O2", "-g"]));
    let listed = within(daemon.client().await.plugins()).await.expect("listed").plugins;
    assert_eq!(listed[0].state, PluginState::Ready, "the new one is not loaded");
    let second = draw(&daemon, &request("vignette", json!({"strength": 0.8}))).await;
    assert_eq!(png(&first.images[0]), png(&second.images[0]));
    std::fs::remove_file(folder_of(&daemon).join("vignette.so")).expect("removed");
    fails(&daemon, &request("vignette", json!({})), ErrorName::NotFound).await;
}

#[tokio::test]
async fn folders_that_others_may_write_to_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Daemon::start();
    install(&daemon, "vignette.so", vignette());
    let folder = folder_of(&daemon);
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).expect("opened");
    let listed = within(daemon.client().await.plugins()).await.expect("listed").plugins;
    let reason = listed[0].reason.as_deref().unwrap_or_default();
    assert!(listed[0].state == PluginState::Refused && reason.contains("chmod"), "{listed:?}");
    fails(&daemon, &request("vignette", json!({})), ErrorName::NotFound).await;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).expect("closed");
    draw(&daemon, &request("vignette", json!({}))).await;
}

#[tokio::test]
async fn the_command_line_lists_and_uses_them() {
    let daemon = Daemon::start();
    install(&daemon, "vignette.so", vignette());
    install(&daemon, "notes.so", b"not a library");
    let output = daemon.command(&["plugins", "list"]).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("vignette") && text.contains("image.post/draft-1"),
        "{text}"
    );
    assert!(text.contains("notes.so") && text.contains("not a shared library"), "{text}");
    let output = daemon.command(&["plugins", "schema", "vignette"]).output().expect("ran");
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"strength\""), "{output:?}");
    let flags = ["generate", "a circle", "--checkpoint", "tiny-sd1", "--steps", "2", "--width", "64"];
    let flags = [&flags[..], &["--height", "64", "--seed", "3", "-o", "out.png"]].concat();
    let plain = daemon.command(&flags).output().expect("ran");
    assert!(plain.status.success(), "{plain:?}");
    let old = std::fs::read(daemon.folder.path().join("out.png")).expect("a picture");
    let with = [&flags[..], &["--plugin", "vignette={\"strength\": 0.8}"]].concat();
    let output = daemon.command(&with).output().expect("ran");
    assert!(output.status.success(), "{output:?}");
    let new = std::fs::read(daemon.folder.path().join("out.png")).expect("a picture");
    let (old, new) =
        (Picture::decode(&old, 1 << 24).expect("decodes"), Picture::decode(&new, 1 << 24).expect("decodes"));
    assert_eq!(new.pixels, darkened(&old, 0.8, 0.5));
}

/// The plugin that does what it must not, built with these flags.
fn faults(flags: &[&str]) -> Vec<u8> {
    build("tests/fixtures/plugins/faults.c", &[&["-std=gnu99"], flags].concat())
}

const STAGES: [&str; 3] = ["noise.init/draft-1", "denoise.combine/draft-1", "image.post/draft-1"];

/// Where a plugin may run.
const PLACES: [&str; 2] = ["process", "inline"];

/// A daemon that runs the plugin `faults` there.
fn running_faults(isolation: &str) -> Daemon {
    let config = format!("[plugins.faults]\nisolation = \"{isolation}\"\n");
    Daemon::with(Options { config, ..Options::default() })
}

#[tokio::test]
async fn a_fault_costs_one_job_which_names_plugin_and_stage() {
    for isolation in PLACES {
        each_fault(&running_faults(isolation)).await;
    }
}

async fn each_fault(daemon: &Daemon) {
    install(daemon, "faults.so", &faults(&[]));
    let expected = png(&draw(daemon, &plain()).await.images[0]).to_vec();
    let all = [
        ("fail", ErrorName::Plugin, "as asked"),
        ("fail-silent", ErrorName::Plugin, "it answered FAILED and said no more"),
        ("unknown-status", ErrorName::Plugin, "it answered status 4711, which is none"),
        ("wrong-shape", ErrorName::Plugin, "in the place of"),
        ("wrong-kind", ErrorName::Plugin, "in the place of"),
        ("dead-handle", ErrorName::Plugin, "12345 is no handle, or no longer one"),
        ("slot", ErrorName::Plugin, "slot 1000 is none of its slots"),
        ("null-map", ErrorName::Plugin, "map is null"),
        ("huge", ErrorName::Memory, "bytes"),
    ];
    for (fault, name, words) in all {
        for stage in STAGES {
            // One beside it, which waits for its turn or has it.
            let beside = daemon.client().await;
            let beside = within(beside.submit("txt2img", &plain(), None)).await.expect("submitted");
            let params = request("faults", json!({"fault": fault, "at": stage}));
            let text = fails(daemon, &params, name).await;
            assert!(text.starts_with(&format!("plugin 'faults', {stage}: ")), "{fault}: {text}");
            assert!(text.contains(words), "{fault}: {text}");
            let drawn = within(daemon.client().await.wait(&beside)).await.expect("drawn");
            assert_eq!(png(&drawn.images[0]), expected, "{fault}");
        }
    }
    let nan = request("faults", json!({"fault": "nan"}));
    let text = fails(daemon, &nan, ErrorName::Plugin).await;
    assert!(text.contains("denoise.combine/draft-1: slot 0: number 0 of [1, 4, 8, 8] is NaN"), "{text}");
    let stale = request("faults", json!({"fault": "stale-handle", "at": STAGES[1]}));
    let text = fails(daemon, &stale, ErrorName::Plugin).await;
    assert!(text.contains("is no handle, or no longer one"), "{text}");
    // What is refused to the plugin, and what it may do without harm.
    for fault in ["none", "zero", "write-argument", "leak"] {
        let drawn = draw(daemon, &request("faults", json!({"fault": fault}))).await;
        assert_eq!(picture(&drawn.images[0]).pixels, picture_of(&expected).pixels, "{fault}");
        assert!(drawn.notices.is_empty() && drawn.plugin_timings.contains_key("faults"), "{drawn:?}");
    }
    let said = draw(daemon, &request("faults", json!({"fault": "notice"}))).await;
    assert_eq!(said.notices, ["plugin 'faults': from the plugin"]);
    let strict = Txt2ImgParams { strict: true, ..request("faults", json!({"fault": "notice"})) };
    let text = fails(daemon, &strict, ErrorName::Plugin).await;
    assert!(text.contains("from the plugin"), "{text}");
    assert_eq!(png(&draw(daemon, &plain()).await.images[0]), expected);
}

fn picture_of(png: &[u8]) -> Picture {
    Picture::decode(png, 1 << 24).expect("decodes")
}

#[tokio::test]
async fn libraries_that_cannot_be_used_say_why() {
    for (flags, name, words) in [
        (&["-DFAULT_INIT"][..], ErrorName::Plugin, "its init failed"),
        (&["-DNULL_ENTRIES"], ErrorName::Plugin, "its entry has no init"),
        (&["-DNEWER_MAJOR"], ErrorName::Plugin, "it was built for ABI 99.1"),
        (&["-DNO_EXTENSION"], ErrorName::Plugin, "but it has no such table"),
        (&["-DFAULT_CREATE"], ErrorName::Plugin, "plugin 'faults', create: create fails, as asked"),
        (&["-DPLAN_REFUSE"], ErrorName::InvalidParams, "job.plan: params.fault is not to the plan's taste"),
    ] {
        for isolation in PLACES {
            let daemon = running_faults(isolation);
            install(&daemon, "faults.so", &faults(flags));
            let text = fails(&daemon, &request("faults", json!({})), name).await;
            assert!(text.contains(words), "{flags:?}: {text}");
            draw(&daemon, &plain()).await;
        }
        let daemon = Daemon::start();
        install(&daemon, "faults.so", &faults(flags));
        let text = fails(&daemon, &request("faults", json!({})), name).await;
        assert!(text.contains(words), "{flags:?}: {text}");
        // It is said again, of what cannot be loaded in the list too.
        assert_eq!(fails(&daemon, &request("faults", json!({})), name).await, text);
        let listed = within(daemon.client().await.plugins()).await.expect("listed").plugins;
        let is_refused = listed[0].state == PluginState::Refused;
        assert_eq!(is_refused, !["-DFAULT_CREATE", "-DPLAN_REFUSE"].contains(&flags[0]), "{listed:?}");
        draw(&daemon, &plain()).await;
    }
}

#[tokio::test]
async fn newer_plugins_and_plans_are_taken() {
    let daemon = Daemon::start();
    let expected = draw(&daemon, &plain()).await;
    install(&daemon, "faults.so", &faults(&["-DNEWER_MINOR"]));
    let drawn = draw(&daemon, &request("faults", json!({}))).await;
    assert_eq!(picture(&drawn.images[0]), picture(&expected.images[0]));
    // A note that create finds; only the stage that is wanted is called.
    install(&daemon, "faults.so", &faults(&["-DPLAN_NOTE"]));
    draw(&daemon, &request("faults", json!({}))).await;
    draw(&daemon, &request("faults", json!({"fault": "fail", "at": STAGES[0]}))).await;
    fails(&daemon, &request("faults", json!({"fault": "fail", "at": STAGES[2]})), ErrorName::Plugin).await;
    // Who says that a job is not for it is not told of in its pictures.
    install(&daemon, "faults.so", &faults(&["-DPLAN_SKIP"]));
    let skipped = draw(&daemon, &request("faults", json!({"fault": "fail"}))).await;
    assert_eq!(png(&skipped.images[0]), png(&expected.images[0]));
}

#[tokio::test]
async fn a_job_is_cancelled_in_each_stage() {
    for isolation in PLACES {
        cancelled(&running_faults(isolation)).await;
    }
}

async fn cancelled(daemon: &Daemon) {
    install(daemon, "faults.so", &faults(&[]));
    let client = daemon.client().await;
    let expected = draw(daemon, &plain()).await;
    for stage in STAGES {
        let params = request("faults", json!({"fault": "wait", "at": stage}));
        let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
        daemon.wait_log(&format!("waits at {stage}"));
        within(client.cancel(&job)).await.expect("cancelled");
        refused(within(client.wait(&job)).await, ErrorName::Cancelled);
        assert_eq!(png(&draw(daemon, &plain()).await.images[0]), png(&expected.images[0]));
    }
}
