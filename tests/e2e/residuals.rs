//! What plugins add within the UNet, through the socket: against diffusers on the same weights
//! (`tests/fixtures/residuals_reference.py` made the pictures), and what cannot be added.

use std::fs;
use std::process::Stdio;

use latentd_client::protocol::{ErrorName, PluginParams, Txt2ImgParams};
use serde_json::{Value as Json, json};

use crate::freeu::plain;
use crate::harness::{Daemon, program, refused, within};
use crate::plugin_library::{build, install};
use crate::reference::{pixels, reaches, with};

fn library() -> Vec<u8> {
    build("tests/fixtures/plugins/residuals.c", &["-std=gnu99"])
}

fn daemon() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "residuals.so", &library());
    daemon
}

fn act(act: &str) -> Txt2ImgParams {
    with("residuals", &json!({"act": act}), plain(5))
}

#[tokio::test]
async fn pictures_are_those_of_diffusers() {
    reaches(&daemon(), "residuals").await;
}

#[tokio::test]
async fn what_adds_nothing_changes_no_byte() {
    let daemon = daemon();
    let expected = pixels(&daemon, &plain(5)).await;
    for (params, is_same) in [
        (json!({"act": "nothing"}), true),
        (json!({"act": "skip"}), true),
        (json!({"act": "both", "scale": 0}), true),
        (json!({"start": 0.5, "end": 0.5}), true),
        (json!({"act": "both", "scale": 1e-3}), false),
    ] {
        let found = pixels(&daemon, &with("residuals", &params, plain(5))).await;
        assert_eq!(found == expected, is_same, "{params}");
    }
    assert!(pixels(&daemon, &plain(5)).await == expected, "and a request without it has its bytes");
}

/// Whoever asks the model once more has it asked too.
#[tokio::test]
async fn it_is_asked_of_evaluations_that_other_plugins_ask_for() {
    let daemon = daemon();
    install(&daemon, "wraps.so", &build("tests/fixtures/plugins/wraps.c", &["-std=gnu99"]));
    let both = |way: &str| {
        let params = |params: Json| PluginParams::from_json(params.as_object().expect("an object").clone());
        let plugins = [
            ("residuals".to_owned(), params(json!({"rows": "each"}))),
            ("wraps".to_owned(), params(json!({"act": way}))),
        ];
        Txt2ImgParams { plugins: plugins.into(), ..plain(5) }
    };
    let alone = pixels(&daemon, &with("residuals", &json!({"rows": "each"}), plain(5))).await;
    let without = pixels(&daemon, &plain(5)).await;
    for (way, expected) in [("next", &alone), ("unwrapped", &alone), ("split", &alone), ("bare", &without)] {
        let found = pixels(&daemon, &both(way)).await;
        // Of one row alone `each` has one entry for all.
        assert!(way == "split" || found == *expected, "{way}");
        assert!(way != "split" || found != without, "{way}");
    }
}

#[tokio::test]
async fn what_cannot_be_added_fails_the_job_by_name() {
    let daemon = daemon();
    let client = daemon.client().await;
    let expected = pixels(&daemon, &plain(5)).await;
    for (way, name, words) in [
        ("null", ErrorName::Plugin, "the residual is null"),
        ("code", ErrorName::InvalidParams, "at is 4711, none of AT_ENCODER, AT_SKIP and AT_MIDDLE"),
        ("index", ErrorName::InvalidParams, "there is no skip 4711; this model has 6"),
        ("middle", ErrorName::InvalidParams, "the middle has no index 1"),
        ("shape", ErrorName::InvalidParams, "for skip 0; (1 or 2, 32, 8, 8) is needed"),
        ("entries", ErrorName::InvalidParams, "[3, 32, 8, 8] for skip 0"),
        ("row", ErrorName::InvalidParams, "row 2 of 2 is none, or named twice"),
        ("twice", ErrorName::InvalidParams, "row 0 of 2 is none, or named twice"),
        ("rows-null", ErrorName::Plugin, "1 rows that are null"),
        ("nan", ErrorName::InvalidParams, "number 3 of the tensor is NaN"),
        ("scale", ErrorName::InvalidParams, "scale is NaN"),
        ("mask", ErrorName::InvalidParams, "0 to 1 is meant"),
        ("fails", ErrorName::Plugin, "as it was told to"),
    ] {
        let text = refused(within(client.txt2img(&act(way))).await, name);
        assert!(text.starts_with("plugin 'residuals', control.residuals/draft-1: "), "{way}: {text}");
        assert!(text.contains(words), "{way}: {text}");
        assert!(pixels(&daemon, &plain(5)).await == expected, "{way}");
    }
    let text = refused(within(client.txt2img(&act("late"))).await, ErrorName::Plugin);
    assert!(text.contains("denoise.before/draft-1: residuals are added in control.residuals"), "{text}");
    assert!(pixels(&daemon, &plain(5)).await == expected);
}

#[test]
fn it_keeps_to_the_abi() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("residuals.so");
    fs::write(&path, library()).expect("written");
    for params in [r#"{"act": "both", "rows": "cond", "mask": true}"#, r#"{"rows": "each"}"#] {
        let mut command = program(folder.path());
        command.args(["plugins", "validate"]).arg(&path).args(["--seed", "7", "--params", params]);
        let output = command.stdin(Stdio::null()).output().expect("ran");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Some of its parameters have it do what fails.
        let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("FAILED")).collect();
        assert!(failed.iter().all(|line| line.contains("/params: ")), "{params}\n{text}");
        let fine = text.lines().filter(|line| line.starts_with("ok       control.residuals/")).count();
        assert_eq!(fine, 18, "{params}\n{text}");
    }
}
