//! The example cutoff, through the socket: in Rust, outside of the workspace, against torch on the same weights
//! (`tests/fixtures/cutoff_reference.py` made it).

use std::fs;
use std::process::Stdio;
use std::sync::OnceLock;

use latentd_client::protocol::{
    ErrorName, ImageIn, OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams,
};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, program, refused, small, within};
use crate::plugin_library::{build_crate, install};
use crate::reference::{pixels, reaches};

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

#[tokio::test]
async fn pictures_are_those_of_the_formula() {
    reaches(&cutoff(), "cutoff").await;
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
