//! The example attention-couple, through the socket: in Rust, outside of the workspace, against torch on the same weights
//! (`tests/fixtures/attention_couple_reference.py` made the pictures).

use std::fs;
use std::process::Stdio;

use latentd_client::protocol::{ErrorName, ImageIn, OutputParams, Txt2ImgParams};
use serde_json::json;

use crate::freeu::plain;
use crate::harness::{Daemon, program, refused, within};
use crate::plugin_library::{build_crate, install};
use crate::reference::{pixels, reaches, with};

const NAME: &str = "attention-couple";

fn library() -> Vec<u8> {
    build_crate("plugin-api/examples/attention-couple")
}

fn couple() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "libattention_couple.so", &library());
    daemon
}

#[tokio::test]
async fn pictures_are_those_of_the_formula() {
    reaches(&couple(), "attention_couple").await;
}

#[tokio::test]
async fn regions_change_pictures_where_they_say_something_and_the_text_draws_them_again() {
    let daemon = couple();
    let client = daemon.client().await;
    let expected = pixels(&daemon, &plain(5)).await;
    let left = json!({"x": 0, "y": 0, "w": 0.5, "h": 1});
    for (params, is_same) in [
        (json!({"regions": []}), true),
        (json!({"regions": [{"prompt": "a red cube"}], "base_weight": 1}), true),
        (json!({"regions": [{"prompt": "a red cube", "box": left}]}), false),
    ] {
        let found = pixels(&daemon, &with(NAME, &params, plain(5))).await;
        assert_eq!(found == expected, is_same, "{params}");
    }
    let wrong = with(NAME, &json!({"regions": [{"prompt": "a", "weight": 0}]}), plain(5));
    let text = refused(within(client.txt2img(&wrong)).await, ErrorName::InvalidParams);
    assert!(text.contains("plugins.attention-couple: /regions/0/weight: 0 is out of range"), "{text}");

    let params = json!({"regions": [{"prompt": "a (red:1.3) cube", "negative": "blue", "box": left}]});
    let request = Txt2ImgParams { output: OutputParams::default(), ..with(NAME, &params, plain(5)) };
    let drawn = within(client.txt2img(&request)).await.expect("drawn");
    let png = drawn.images[0].png.clone().expect("a PNG").0;
    let info = within(client.image_info(ImageIn::png(png.clone()))).await.expect("read");
    let again = info.request.expect("a request").into_drawing();
    assert!(again.plugins.contains_key(NAME), "{:?}", again.plugins);
    let again = within(client.txt2img(&again)).await.expect("drawn");
    assert!(again.images[0].png.as_ref().expect("a PNG").0 == png);
}

#[test]
fn it_keeps_to_the_abi() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libattention_couple.so");
    fs::write(&path, library()).expect("written");
    let params = r#"{"regions": [{"prompt": "a red cube", "negative": "blue", "weight": 2}, {"prompt": "a ball", "box": {"x": 0, "y": 0, "w": 0.5, "h": 1}}]}"#;
    let mut command = program(folder.path());
    command.args(["plugins", "validate"]).arg(&path).args(["--seed", "7", "--params", params]);
    let output = command.stdin(Stdio::null()).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains(" 0 warned, 0 failed"), "{text}");
}
