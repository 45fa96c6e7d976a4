//! Every example draws the same bytes whatever draws: on the CPU, and on a device whose memory a plugin reaches by `map` alone
//! (or has the host compute).

use latentd_client::protocol::{OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams};
use serde_json::Value as Json;

use crate::harness::{Daemon, Options, small, within};
use crate::plugin_library::{build, build_crate, install};

/// A plugin's name, its source or the folder of its crate, and parameters with which it changes pictures.
const EXAMPLES: &[(&str, &str, &str)] = &[
    ("cutoff", "plugin-api/examples/cutoff", r#"{"targets": ["red", "blue"], "weight": 1}"#),
    ("vignette", "plugin-api/examples/vignette/vignette.c", r#"{"strength": 0.9, "radius": 0.1}"#),
    ("freeu", "plugin-api/examples/freeu/freeu.c", "{}"),
    ("freeu-rust", "plugin-api/examples/freeu-rust", r#"{"levels": "resolutions"}"#),
    ("cutoff", "plugin-api/examples/cutoff", r#"{"targets": ["red", "blue"], "weight": 1, "strong": true}"#),
    ("cfg-rescale", "plugin-api/examples/cfg-rescale/cfg-rescale.cpp", r#"{"phi": 1}"#),
    (
        "dynamic-thresholding",
        "plugin-api/examples/dynamic-thresholding/dynamic-thresholding.cpp",
        r#"{"mimic_scale": 3, "threshold_percentile": 0.9}"#,
    ),
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

#[tokio::test]
async fn examples_draw_the_same_bytes_on_a_device_with_memory_of_its_own() {
    let here = Daemon::start();
    let environment = vec![("LATENTD_DEVICE".to_owned(), "fake".to_owned())];
    let there = Daemon::with(Options { environment, ..Options::default() });
    let kind = async |daemon: &Daemon| {
        within(daemon.client().await.status()).await.expect("told").devices[0].kind.clone()
    };
    assert_eq!((kind(&here).await.as_str(), kind(&there).await.as_str()), ("cpu", "fake"));
    let plain = pixels(&here, &request()).await;
    for (name, source, params) in EXAMPLES {
        let library = library(source);
        for daemon in [&here, &there] {
            install(daemon, &format!("{name}.so"), &library);
        }
        let params: Json = serde_json::from_str(params).expect("JSON");
        let params = PluginParams::from_json(params.as_object().expect("a map").clone());
        let asked = Txt2ImgParams { plugins: [((*name).to_owned(), params)].into(), ..request() };
        let drawn = pixels(&here, &asked).await;
        assert!(drawn.iter().zip(&plain).all(|(a, b)| a != b), "{name} changes pictures");
        assert!(pixels(&there, &asked).await == drawn, "{name} draws other bytes on the device");
    }
    assert!(pixels(&there, &request()).await == plain, "without plugins");
}
