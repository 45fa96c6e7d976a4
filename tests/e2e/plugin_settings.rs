//! What the configuration says of plugins, what `status` and results tell of them, and their versions, through the socket. By a plugin
//! in C that adds to each colour what its settings say, and one more for each of its major version.

use std::collections::BTreeMap;
use std::fs;

use latentd_client::protocol::{
    ErrorName, ImageIn, OutputFormat, OutputParams, PluginParams, PluginState, PluginStatus, RepeatRequest,
    Txt2ImgParams, Txt2ImgResult,
};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Options, Raw, map, refused, small, within};
use crate::plugin_library::{build, install};

const SCHEMA: &str = r#"{"type": "object", "additionalProperties": false,
    "properties": {"add": {"type": "integer", "minimum": 0, "maximum": 9, "default": 2}}}"#;

/// The plugin in a version whose number is `major`.
fn library(major: u32) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("configured.toml");
    let manifest = format!(
        "name = 'configured'\nversion = '{major}.0'\nabi = '0.1'\nrequires = ['tensor/draft-1', 'job/draft-1']\n\
         parameters = '''{{\"type\": \"object\", \"properties\": {{\"fails\": {{\"type\": \"integer\"}}}}}}'''\n\
         settings = '''{SCHEMA}'''\n[stages.'image.post/draft-1']\n[methods.settings]\nkind = 'quick'\n"
    );
    fs::write(&path, manifest).expect("written");
    let flags = [format!("-DMANIFEST=\"{}\"", path.display()), format!("-DMAJOR={major}")];
    build("tests/fixtures/plugins/configured.c", &["-std=gnu99", flags[0].as_str(), flags[1].as_str()])
}

fn daemon(config: &str) -> Daemon {
    let daemon = Daemon::with(Options { config: config.into(), ..Options::default() });
    install(&daemon, "configured.so", &library(1));
    daemon
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams { output: OutputParams { format: OutputFormat::Raw, dir: None }, ..small(1) }
}

fn asked(params: &Json) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [("configured".to_owned(), params)].into(), ..plain() }
}

fn of_version(version: &str) -> Txt2ImgParams {
    Txt2ImgParams {
        plugin_versions: [("configured".to_owned(), version.to_owned())].into(),
        ..asked(&json!({}))
    }
}

async fn draw(daemon: &Daemon, request: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(request)).await.expect("drawn")
}

fn pixels(drawn: &Txt2ImgResult) -> Vec<u8> {
    drawn.images[0].raw.clone().expect("raw").0
}

/// How much was added to each colour.
async fn added(daemon: &Daemon, request: &Txt2ImgParams) -> u8 {
    let (before, after) = (pixels(&draw(daemon, &plain()).await), pixels(&draw(daemon, request).await));
    let more: Vec<u8> = before.iter().zip(&after).map(|(old, new)| new.wrapping_sub(*old)).collect();
    let first = more[0];
    assert!(more.iter().all(|more| *more == first));
    first
}

async fn status(daemon: &Daemon) -> Vec<PluginStatus> {
    within(daemon.client().await.status()).await.expect("status").plugins
}

#[tokio::test]
async fn settings_come_from_the_file_and_are_read_again() {
    let daemon = daemon("[plugins.configured.settings]\nadd = 5\n");
    assert_eq!(added(&daemon, &asked(&json!({}))).await, 6);
    let client = daemon.client().await;
    let mut raw = Raw::connect(&daemon);
    let told = raw.call("configured.settings", &map(&[])).expect("told");
    assert_eq!(told["add"], 5.into(), "{told}");
    let records = status(&daemon).await;
    assert_eq!((records[0].calls, records[0].log.last().map(|line| line.text.as_str())), (3, Some("asked")));
    let schema = within(client.plugin_schema("configured")).await.expect("told");
    assert_eq!(schema.settings, Some(serde_json::from_str(SCHEMA).expect("JSON")));
    let file = daemon.folder.path().join("config.toml");
    let reload = async |text: &str| {
        fs::write(&file, text).expect("written");
        daemon.signal(libc::SIGHUP);
        loop {
            let status = within(client.status()).await.expect("status").config;
            // Each of them changes them.
            if status.is_some_and(|told| told.reloaded_at.is_some() && told.changed == ["plugins"]) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    reload("").await;
    assert_eq!(added(&daemon, &asked(&json!({}))).await, 3, "as the schema has it");
    // `changed` tells the last time alone: there is no third.
    let second = self::daemon("[plugins.configured.settings]\nadd = 77\n");
    let text = refused(within(second.client().await.txt2img(&asked(&json!({})))).await, ErrorName::Plugin);
    let expected = "plugin 'configured': [plugins.configured.settings] of the configuration file: /add: 77 is out of range; \
                    give 9 or less";
    assert!(text.contains(expected), "{text}");
    let list = within(second.client().await.plugins()).await.expect("listed").plugins;
    assert_eq!(list[0].state, PluginState::Refused, "{list:?}");
    assert!(list[0].reason.as_deref().is_some_and(|why| why.contains("/add: 77")), "{list:?}");
}

#[tokio::test]
async fn one_that_is_not_to_be_used_is_listed_and_refused() {
    let daemon = daemon("[plugins.configured]\nenabled = false\n[plugins.confiugred]\n");
    let list = within(daemon.client().await.plugins()).await.expect("listed").plugins;
    let expected = "the configuration file says so: [plugins.configured] enabled = false";
    assert_eq!((list[0].state, list[0].reason.as_deref()), (PluginState::Disabled, Some(expected)));
    let text = refused(within(daemon.client().await.txt2img(&asked(&json!({})))).await, ErrorName::Plugin);
    assert!(text.contains(expected), "{text}");
    draw(&daemon, &plain()).await;
    let config = daemon.folder.path().join("config.toml").display().to_string();
    let doctor = daemon.command(&["doctor", "--config", &config]).output().expect("it runs");
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(told.contains(&format!("disabled: {expected}")), "{told}");
    let unused = "[plugins.confiugred] of the configuration file: no plugin of this name is there; did you mean 'configured'?";
    assert!(told.contains(unused), "{told}");
}

#[tokio::test]
async fn status_and_results_tell_what_plugins_did_and_logged() {
    let daemon = daemon("");
    assert_eq!(status(&daemon).await, [], "nobody asked for one");
    let drawn = draw(&daemon, &asked(&json!({}))).await;
    let lines: Vec<_> =
        drawn.plugin_log.iter().map(|line| (line.level.as_str(), line.text.as_str())).collect();
    let long = "x".repeat(1000);
    assert_eq!(lines, [("info", "adds 2"), ("warn", long.as_str())]);
    assert!(drawn.plugin_log.iter().all(|line| line.plugin == "configured" && line.time > 1.6e9));
    let text =
        refused(within(daemon.client().await.txt2img(&asked(&json!({"fails": 1})))).await, ErrorName::Plugin);
    assert!(text.contains("as asked"), "{text}");
    let told = status(&daemon).await;
    let [one] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((one.name.as_str(), one.version.as_str(), one.failures), ("configured", "1.0", 1));
    // Made twice, and called once each.
    assert_eq!(one.calls, 4);
    assert!(one.seconds > 0.0 && one.seconds >= drawn.plugin_timings["configured"], "{one:?}");
    let why = one.last_failure.as_deref().expect("why");
    assert!(why.starts_with("plugin 'configured', image.post/draft-1: as asked"), "{why}");
    assert_eq!(one.log.len(), 4);
    for _ in 0..12 {
        draw(&daemon, &asked(&json!({}))).await;
    }
    assert_eq!(status(&daemon).await[0].log.len(), 20);
}

#[tokio::test]
async fn a_request_may_want_a_version_and_pictures_repeat_theirs() {
    let daemon = daemon("");
    let png = Txt2ImgParams { output: OutputParams::default(), ..asked(&json!({})) };
    let old = draw(&daemon, &png).await;
    let old = old.images[0].png.clone().expect("a PNG");
    assert_eq!(added(&daemon, &asked(&json!({}))).await, 3);
    install(&daemon, "configured-2.so", &library(2));
    assert_eq!(added(&daemon, &asked(&json!({}))).await, 4);
    assert_eq!(added(&daemon, &of_version("1.0")).await, 3);
    assert_eq!(added(&daemon, &of_version("2.0")).await, 4);
    let told = status(&daemon).await;
    assert_eq!(told.iter().map(|one| one.version.as_str()).collect::<Vec<_>>(), ["1.0", "2.0"]);
    let wrong = async |request: &Txt2ImgParams, name, expected: &str| {
        let text = refused(within(daemon.client().await.txt2img(request)).await, name);
        assert!(text.contains(expected), "{text}");
    };
    let none = "plugin_versions.configured: there is no version '3.0'; there is 2.0, 1.0";
    wrong(&of_version("3.0"), ErrorName::NotFound, none).await;
    let unnamed = Txt2ImgParams { plugins: BTreeMap::new(), ..of_version("1.0") };
    let expected = "plugin_versions.configured: the request names no such plugin; remove it";
    wrong(&unnamed, ErrorName::InvalidParams, expected).await;
    // What the picture says asks for the version that drew it.
    let info = within(daemon.client().await.image_info(ImageIn::png(old.0.clone()))).await.expect("read");
    let Some(RepeatRequest::Txt2Img(request)) = info.request else { panic!("{info:?}") };
    assert_eq!(request.plugin_versions, of_version("1.0").plugin_versions);
    let again = draw(&daemon, &request).await;
    assert!(again.images[0].png.as_ref() == Some(&old), "other bytes");
    let flags =
        ["generate", "x", "--plugin", "configured", "--plugin-version", "configured=9", "-o", "/dev/null"];
    let run = daemon.command(&flags).output().expect("it runs");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(said.contains("there is no version '9'"), "{said}");
}
