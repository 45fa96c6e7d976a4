//! Every example draws the same bytes wherever it runs, in a process of its own or within the daemon, and whatever draws: the CPU, and
//! a device whose memory a plugin reaches by `map` alone (or has the host compute).

use std::collections::BTreeSet;
use std::fs;

use latentd_client::protocol::{OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams};
use serde_json::Value as Json;

use crate::harness::{Daemon, Options, fixtures, small, within};
use crate::isolation::children;
use crate::plugin_library::{build, build_crate, install};
use crate::weaker::write_weaker;

/// A plugin, and a request that it changes.
struct Example {
    name: &'static str,
    /// Its source, or the folder of its crate.
    source: &'static str,
    /// With which it is asked for; not at all if empty.
    params: &'static str,
    /// What is asked beside it, and without it.
    change: fn(&mut Txt2ImgParams, bool),
}

const fn example(name: &'static str, source: &'static str, params: &'static str) -> Example {
    Example { name, source, params, change: |_, _| () }
}

const EXAMPLES: &[Example] = &[
    example("pag", "plugin-api/examples/pag", r#"{"scale": 5, "blocks": [{"part": "input"}]}"#),
    example(
        "attention-couple",
        "plugin-api/examples/attention-couple",
        r#"{"regions": [{"prompt": "a red cube", "negative": "blue", "box": {"x": 0, "y": 0, "w": 0.5, "h": 1}}]}"#,
    ),
    example("cutoff", "plugin-api/examples/cutoff", r#"{"targets": ["red", "blue"], "weight": 1}"#),
    example("vignette", "plugin-api/examples/vignette/vignette.c", r#"{"strength": 0.9, "radius": 0.1}"#),
    example("freeu", "plugin-api/examples/freeu/freeu.c", "{}"),
    example("freeu-rust", "plugin-api/examples/freeu-rust", r#"{"levels": "resolutions"}"#),
    example(
        "cutoff",
        "plugin-api/examples/cutoff",
        r#"{"targets": ["red", "blue"], "weight": 1, "strong": true}"#,
    ),
    example("cfg-rescale", "plugin-api/examples/cfg-rescale/cfg-rescale.cpp", r#"{"phi": 1}"#),
    example(
        "dynamic-thresholding",
        "plugin-api/examples/dynamic-thresholding/dynamic-thresholding.cpp",
        r#"{"mimic_scale": 3, "threshold_percentile": 0.9}"#,
    ),
    example("onnx-filter", "plugin-api/examples/onnx-filter", r#"{"model": "sharper"}"#),
    example("attends", "tests/fixtures/plugins/attends", r#"{"act": "append"}"#),
    example("attends", "tests/fixtures/plugins/attends", r#"{"act": "keys"}"#),
    example("attends", "tests/fixtures/plugins/attends", r#"{"act": "bias"}"#),
    example("attends", "tests/fixtures/plugins/attends", r#"{"act": "queries"}"#),
    example("attends", "tests/fixtures/plugins/attends", r#"{"act": "reference"}"#),
    // What a place receives is told of one picture.
    Example {
        change: |request, _| request.batch_size = 1,
        ..example("attends", "tests/fixtures/plugins/attends", r#"{"act": "received"}"#)
    },
    example("weaker", "tests/fixtures/plugins/weaker", r#"{"model": "weaker", "scale": 1}"#),
    Example {
        change: |request, _| request.prompt = "a {red|blue} circle".into(),
        ..example("dynamic-prompts", "plugin-api/examples/dynamic-prompts", "{}")
    },
    // An engine is named by what it is for.
    Example {
        change: |request, is_asked| {
            (request.enable_hr, request.hr_scale) = (true, 1.5);
            request.hr_upscaler = if is_asked { "DCCI 2x" } else { "Lanczos" }.into();
        },
        ..example("upscale2x", "plugin-api/examples/upscale2x/upscale2x.c", "")
    },
];

fn library(source: &str) -> Vec<u8> {
    match source.rsplit_once('.') {
        Some((_, "c")) => build(source, &["-std=gnu99"]),
        Some((_, "cpp")) => build(source, &[]),
        _ => build_crate(source),
    }
}

fn request() -> Txt2ImgParams {
    Txt2ImgParams {
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        prompt: "a red circle, a blue background".into(),
        batch_size: 2,
        ..small(11)
    }
}

async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    assert_eq!(drawn.notices, Vec::<String>::new());
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

/// tiny-sd1, a weaker one, and a graph that a filter may run.
fn models() -> tempfile::TempDir {
    let models = tempfile::tempdir().expect("a folder");
    let copy = |from: &str, to: &str| {
        let to = models.path().join(to);
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(fixtures().join(from), to).expect("copied");
    };
    copy("Stable-diffusion/tiny-sd1.safetensors", "Stable-diffusion/tiny-sd1.safetensors");
    copy("../onnx/sharper.onnx", "annotators/sharper.onnx");
    let checkpoint = |name: &str| models.path().join(format!("Stable-diffusion/{name}.safetensors"));
    write_weaker(&checkpoint("weaker"), &checkpoint("tiny-sd1"));
    models
}

#[tokio::test]
async fn examples_draw_the_same_bytes_inline_and_on_a_device_with_memory_of_its_own() {
    let models = models();
    let daemon = |environment: &[(&str, &str)], config: &str| {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (environment, models) = (environment.collect(), Some(models.path().to_owned()));
        Daemon::with(Options { environment, models, config: config.into(), ..Options::default() })
    };
    let names: BTreeSet<&str> = EXAMPLES.iter().map(|example| example.name).collect();
    let config = names.iter().map(|name| format!("[plugins.{name}]\nisolation = \"inline\"\n"));
    let config = config.collect::<Vec<_>>().concat();
    let (here, there) = (daemon(&[], ""), daemon(&[("LATENTD_DEVICE", "fake")], ""));
    let inline = daemon(&[], &config);
    let kind = async |daemon: &Daemon| {
        within(daemon.client().await.status()).await.expect("told").devices[0].kind.clone()
    };
    assert_eq!((kind(&here).await.as_str(), kind(&there).await.as_str()), ("cpu", "fake"));
    for Example { name, source, params, change } in EXAMPLES {
        let library = library(source);
        for daemon in [&here, &there, &inline] {
            install(daemon, &format!("{name}.so"), &library);
        }
        let (mut without, mut asked) = (request(), request());
        change(&mut without, false);
        change(&mut asked, true);
        if !params.is_empty() {
            let params: Json = serde_json::from_str(params).expect("JSON");
            let params = PluginParams::from_json(params.as_object().expect("a map").clone());
            asked.plugins = [((*name).to_owned(), params)].into();
        }
        let (plain, drawn) = (pixels(&here, &without).await, pixels(&here, &asked).await);
        assert!(drawn.iter().zip(&plain).all(|(a, b)| a != b), "{name} changes pictures");
        assert!(pixels(&there, &asked).await == drawn, "{name} draws other bytes on the device");
        assert!(pixels(&there, &without).await == plain, "without {name}");
        assert!(pixels(&inline, &asked).await == drawn, "{name} draws other bytes within the daemon");
    }
    // One waits for the next job of each.
    assert!(children(&here).len() >= names.len());
}
