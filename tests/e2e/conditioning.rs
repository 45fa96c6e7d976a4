//! What pictures are told, and plugins that change it, through the socket: a plugin in C that tells what it is told.

use std::fs;

use latentd_client::protocol::{
    ErrorName, ImageIn, OutputFormat, OutputParams, PluginParams, Precision, Prompt, RegionParams,
    Txt2ImgParams, Txt2ImgResult,
};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Options, fixtures, refused, small, within};
use crate::plugin_library::{build, install};

const STAGE: &str = "conditioning/draft-1";

/// With two checkpoints.
fn conds() -> (Daemon, tempfile::TempDir) {
    let models = tempfile::tempdir().expect("a folder");
    let folder = models.path().join("Stable-diffusion");
    fs::create_dir_all(&folder).expect("made");
    for name in ["tiny-sd1.safetensors", "tiny-sd1-ema.safetensors"] {
        fs::copy(fixtures().join("Stable-diffusion").join(name), folder.join(name)).expect("copied");
    }
    let daemon = Daemon::with(Options { models: Some(models.path().to_owned()), ..Options::default() });
    install(&daemon, "conds.so", &build("tests/fixtures/plugins/conds.c", &["-std=gnu99"]));
    (daemon, models)
}

fn with(params: &Json, request: &Txt2ImgParams) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [("conds".to_owned(), params)].into(), ..request.clone() }
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams {
        prompt: "a (red:1.2) circle".into(),
        negative_prompt: "blurry".into(),
        checkpoint: Some("tiny-sd1".into()),
        steps: 4,
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(3)
    }
}

async fn drawn(daemon: &Daemon, params: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(params)).await.expect("drawn")
}

async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
    let drawn = drawn(daemon, params).await;
    assert_eq!(drawn.notices, Vec::<String>::new());
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

/// Each kind of prompt.
fn requests() -> Vec<Txt2ImgParams> {
    let long = "red 7, ".repeat(90);
    let left = (0..64 * 64).map(|at| if at % 64 < 32 { 255 } else { 0 }).collect();
    vec![
        plain(),
        Txt2ImgParams { prompt: "a [red:(blue:1.4):0.5] circle".into(), ..plain() },
        Txt2ImgParams { prompt: "[red|blue] AND a (square:1.3) :0.5".into(), ..plain() },
        Txt2ImgParams { prompt: long.as_str().into(), clip_skip: 2, ..plain() },
        Txt2ImgParams { prompt: long.as_str().into(), pad_cond_uncond: true, ..plain() },
        Txt2ImgParams {
            regions: vec![RegionParams::new(ImageIn::raw(left, 64, 64, 1), "a (dog:1.1)")],
            ..plain()
        },
        Txt2ImgParams { prompt: Prompt::Each(vec!["red".into(), "blue".into()]), batch_size: 2, ..plain() },
    ]
}

#[tokio::test]
async fn who_only_looks_or_encodes_again_changes_no_byte() {
    let (daemon, _models) = conds();
    for request in requests() {
        let expected = pixels(&daemon, &request).await;
        for act in ["again", "same", "skip", "misuse"] {
            let found = pixels(&daemon, &with(&json!({"act": act}), &request)).await;
            assert!(found == expected, "{act}: {:?}", request.prompt);
        }
        assert!(pixels(&daemon, &with(&json!({"act": "double"}), &request)).await != expected);
        // What was encoded is as it was.
        assert!(pixels(&daemon, &request).await == expected, "{:?}", request.prompt);
    }
    // By themselves prompts that are one text give what the host makes of them.
    for prompt in ["a (red:1.2) circle", "a [[red]] \\(circle\\) BREAK blue", ""] {
        let request = Txt2ImgParams { prompt: prompt.into(), ..plain() };
        let expected = pixels(&daemon, &request).await;
        assert!(pixels(&daemon, &with(&json!({"act": "alone"}), &request)).await == expected, "{prompt}");
    }
}

#[tokio::test]
async fn a_plugin_is_told_what_each_branch_is_told_and_when() {
    let (daemon, _models) = conds();
    let told = async |request: Txt2ImgParams| {
        let notices = drawn(&daemon, &with(&json!({}), &request)).await.notices;
        let notices = notices.iter().map(|line| line.strip_prefix("plugin 'conds': pass ").expect("its"));
        notices.map(str::to_owned).collect::<Vec<_>>()
    };
    let base = Txt2ImgParams { prompt: "a [red:blue:0.5] circle".into(), ..plain() };
    let of = |pass: &str, image: u32| {
        [
            format!("{pass}: {image}/0 role 1 0-3 5-, 77 tokens: a red circle"),
            format!("{pass}: {image}/0 role 1 3-5, 77 tokens: a blue circle"),
            format!("{pass}: {image}/1 role 2 0-, 77 tokens: blurry"),
        ]
    };
    assert_eq!(told(base.clone()).await, of("1.0", 0));
    let batches = Txt2ImgParams { batch_size: 2, n_iter: 2, ..base.clone() };
    let expected = [of("1.0", 0), of("1.0", 1), of("1.1", 2), of("1.1", 3)].concat();
    assert_eq!(told(batches).await, expected);
    let parts = Txt2ImgParams { prompt: "(red:1.5) AND a \\(Circle\\) :0.5".into(), ..plain() };
    let expected = [
        "1.0: 0/0 role 1 0-, 77 tokens: red*1.50",
        "1.0: 0/1 role 1 0-, 77 tokens: a (Circle )",
        "1.0: 0/2 role 2 0-, 77 tokens: blurry",
    ];
    assert_eq!(told(parts).await, expected);
    let regions = told(requests().remove(5)).await;
    assert!(regions.len() == 3 && regions[1].contains("a dog*1.10"), "{regions:?}");
    // A second pass has its own call, with its own checkpoint if it has one; and so has a refiner.
    let ema = || Some("tiny-sd1-ema".to_owned());
    let hires = Txt2ImgParams { enable_hr: true, hr_checkpoint_name: ema(), ..plain() };
    let expected = |pass: &str| {
        [
            format!("{pass}: 0/0 role 1 0-, 77 tokens: a red*1.20 circle"),
            format!("{pass}: 0/1 role 2 0-, 77 tokens: blurry"),
        ]
    };
    assert_eq!(told(hires.clone()).await, [expected("1.0"), expected("2.0")].concat());
    // The same text is said once, so that a refiner's call shows in the picture alone.
    let refined = Txt2ImgParams { refiner_checkpoint: ema(), refiner_switch_at: Some(0.5), ..plain() };
    assert_eq!(told(refined.clone()).await, expected("1.0"));
    for request in [hires, refined] {
        let expected = pixels(&daemon, &request).await;
        assert!(pixels(&daemon, &with(&json!({"act": "again"}), &request)).await == expected);
        assert!(pixels(&daemon, &with(&json!({"act": "double"}), &request)).await != expected);
    }
}

#[tokio::test]
async fn what_is_new_is_for_one_picture_and_one_request() {
    let (daemon, _models) = conds();
    let batch = Txt2ImgParams { batch_size: 2, ..plain() };
    let expected = pixels(&daemon, &batch).await;
    let found = pixels(&daemon, &with(&json!({"act": "double", "image": 1}), &batch)).await;
    assert!(found[0] == expected[0] && found[1] != expected[1]);
    assert!(pixels(&daemon, &batch).await == expected);
    for (act, words) in [
        ("shape", "slot 0: a tensor [1, 76, 32] in the place of a tensor [1, 77, 32]"),
        ("nan", "slot 0: number 0 of [1, 77, 32] is NaN"),
        ("pooled", "slot 1: there is nothing to be replaced"),
        ("slot", "slot 4 is none of its slots"),
    ] {
        let failed = within(daemon.client().await.txt2img(&with(&json!({"act": act}), &plain()))).await;
        let text = refused(failed, ErrorName::Plugin);
        assert!(
            text.starts_with(&format!("plugin 'conds', {STAGE}: ")) && text.contains(words),
            "{act}: {text}"
        );
    }
    let elsewhere = with(&json!({"act": "elsewhere"}), &plain());
    let text = refused(within(daemon.client().await.txt2img(&elsewhere)).await, ErrorName::Unsupported);
    let words =
        "image.post/draft-1: there is no text encoder at hand in this function; in conditioning/draft-1";
    assert!(text.contains(words), "{text}");
    let client = daemon.client().await;
    let waits = with(&json!({"act": "wait"}), &plain());
    let job = within(client.submit("txt2img", &waits, None)).await.expect("submitted");
    daemon.wait_log("waits at conditioning");
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    assert!(pixels(&daemon, &batch).await == expected, "and the daemon goes on");
}
