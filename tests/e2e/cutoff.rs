//! The example cutoff, through the socket: in Rust, outside of the workspace, against torch on the same weights
//! (`tests/fixtures/cutoff_reference.py` made it).

use std::fs;
use std::process::Stdio;
use std::sync::OnceLock;

use latentd_client::protocol::{
    ErrorName, ImageIn, OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams,
};
use latentd_models::image::Picture;
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, fixtures, program, refused, small, within};
use crate::plugin_library::{build_crate, install};

/// A mean square error of 0.065: one value of 15 may be off by one. Values are cut off and not rounded, so the last bits of f32 turn
/// some of them; the picture without the plugin is below 40, as the script sees to.
const LEAST_DECIBELS: f64 = 60.0;

fn library() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| build_crate("plugin-api/examples/cutoff"))
}

fn cutoff() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "libcutoff.so", library());
    daemon
}

fn with(params: &Json, request: &Txt2ImgParams) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [("cutoff".to_owned(), params)].into(), ..request.clone() }
}

fn plain(prompt: &str) -> Txt2ImgParams {
    Txt2ImgParams {
        prompt: prompt.into(),
        steps: 4,
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(5)
    }
}

async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    assert_eq!(drawn.notices, Vec::<String>::new());
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

/// A row's request, without its plugin.
fn request(row: &Json) -> Txt2ImgParams {
    let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key}")).to_owned();
    let number = |key: &str| row[key].as_u64().and_then(|number| u32::try_from(number).ok());
    Txt2ImgParams {
        negative_prompt: text("negative_prompt").into(),
        checkpoint: Some(text("model")),
        sampler_name: text("sampler"),
        steps: number("steps").expect("steps"),
        cfg_scale: row["cfg_scale"].as_f64().expect("a scale"),
        width: number("width"),
        height: number("height"),
        batch_size: number("batch_size").expect("a size"),
        seed: row["seed"].as_i64().expect("a seed"),
        ..plain(&text("prompt"))
    }
}

fn decibels(found: &[u8], wanted: &[u8]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let squares: f64 = found.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) / (squares / found.len() as f64).max(1e-9)).log10()
}

#[tokio::test]
#[allow(clippy::print_stderr)]
async fn pictures_are_those_of_the_formula() {
    let folder = fixtures().join("../plugins");
    let index: Json =
        serde_json::from_slice(&fs::read(folder.join("cutoff.json")).expect("read")).expect("JSON");
    let png = fs::read(folder.join("cutoff.png")).expect("read");
    let all = Picture::decode(&png, 1 << 20).expect("decodes").pixels;
    let (mut rest, mut worst) = (&all[..], (f64::INFINITY, String::new()));
    let daemon = cutoff();
    for row in index["rows"].as_array().expect("rows") {
        for found in pixels(&daemon, &with(&row["params"], &request(row))).await {
            let wanted;
            (wanted, rest) = rest.split_at(found.len());
            let reached = decibels(&found, wanted);
            eprintln!("{reached:5.1} dB: {}", row["params"]);
            if reached < worst.0 {
                worst = (reached, row.to_string());
            }
        }
    }
    assert!(rest.is_empty(), "pictures that no row tells of");
    assert!(worst.0 >= LEAST_DECIBELS, "{:.1} dB: {}", worst.0, worst.1);
}

#[tokio::test]
async fn what_is_not_to_be_cut_off_changes_no_byte() {
    let daemon = cutoff();
    let prompt = "a red cube, a blue [ball:disc:0.5] AND a red sky";
    let expected = pixels(&daemon, &plain(prompt)).await;
    for (params, is_same) in [
        (json!({}), true),
        (json!({"targets": ["yellow", "lue", "cub"]}), true),
        (json!({"targets": ["red", "blue"], "weight": 0}), true),
        // One part alone has it.
        (json!({"targets": ["blue"], "weight": 1}), true),
        (json!({"targets": ["blue"], "weight": 1, "strong": true}), false),
        (json!({"targets": ["red", "blue"], "weight": 1}), false),
        (json!({"targets": ["red", "blue"], "weight": 1, "interpolation": "slerp"}), false),
    ] {
        let found = pixels(&daemon, &with(&params, &plain(prompt))).await;
        assert_eq!(found == expected, is_same, "{params}");
    }
    assert!(pixels(&daemon, &plain(prompt)).await == expected, "and a request without it has its bytes");
    let wrong = with(&json!({"targets": ["red"], "padding": "two words"}), &plain(prompt));
    let text = refused(within(daemon.client().await.txt2img(&wrong)).await, ErrorName::InvalidParams);
    assert!(text.contains("padding 'two words' is not one token"), "{text}");
    // The picture tells it, and draws it again.
    let request = Txt2ImgParams {
        output: OutputParams::default(),
        ..with(&json!({"targets": ["red", "blue"], "weight": 1}), &plain(prompt))
    };
    let client = daemon.client().await;
    let drawn = within(client.txt2img(&request)).await.expect("drawn");
    let png = drawn.images[0].png.clone().expect("a PNG").0;
    let info = within(client.image_info(ImageIn::png(png.clone()))).await.expect("read");
    let again =
        within(client.txt2img(&info.request.expect("a request").into_drawing())).await.expect("drawn");
    assert!(again.images[0].png.as_ref().expect("a PNG").0 == png);
}

#[test]
fn it_keeps_to_the_abi() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libcutoff.so");
    fs::write(&path, library()).expect("written");
    for params in [r#"{"targets": ["red", "white"], "strong": true}"#, "{}"] {
        let mut command = program(folder.path());
        command.args(["plugins", "validate"]).arg(&path).args(["--seed", "7", "--params", params]);
        let output = command.stdin(Stdio::null()).output().expect("ran");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(" 0 warned, 0 failed"), "{params}\n{text}");
    }
}
