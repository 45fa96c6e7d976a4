//! Networks that take what an evaluation has, through the socket: a checkpoint's UNet that a plugin runs beside that of the pass.

use std::path::Path;

use latentd_client::protocol::{
    ErrorName, OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams,
};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, fixtures, refused, small, within};
use crate::plugin_library::{build_crate, install};
use crate::vae::{daemon, models, read, write};

/// A library with tiny-sd1, the same with a weaker UNet, and one whose UNet is told something narrower.
fn start() -> (Daemon, tempfile::TempDir) {
    let folder = models();
    let own = fixtures().join("Stable-diffusion/tiny-sd1.safetensors");
    write_weaker(&folder.path().join("Stable-diffusion/weaker.safetensors"), &own);
    let narrower = "Stable-diffusion/tiny-sd1-ema.safetensors";
    std::fs::copy(fixtures().join(narrower), folder.path().join(narrower)).expect("copied");
    let daemon = daemon(folder.path());
    install(&daemon, "weaker.so", &build_crate("tests/fixtures/plugins/weaker"));
    (daemon, folder)
}

/// A checkpoint of whose UNet some layers make nothing.
pub(crate) fn write_weaker(to: &Path, of: &Path) {
    let mut tensors = read(of);
    for (name, _, _, bytes) in &mut tensors {
        if name.starts_with("model.diffusion_model.middle_block.0.out_layers.3.") {
            bytes.fill(0);
        }
    }
    write(to, &tensors);
}

fn plain(checkpoint: &str, precision: Precision) -> Txt2ImgParams {
    Txt2ImgParams {
        batch_size: 2,
        checkpoint: Some(checkpoint.into()),
        precision,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(3)
    }
}

fn with(request: Txt2ImgParams, params: &Json) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [("weaker".to_owned(), params)].into(), ..request }
}

async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

#[tokio::test]
async fn a_checkpoints_unet_that_takes_what_the_evaluation_has_makes_what_the_model_makes() {
    let (daemon, _models) = start();
    for precision in [Precision::F32, Precision::Bf16] {
        let own = pixels(&daemon, &plain("tiny-sd1", precision)).await;
        let weaker = pixels(&daemon, &plain("weaker", precision)).await;
        assert_ne!(own, weaker);
        for act in ["left_out", "given", "context", "apart", "reversed"] {
            let of = |model: &str| with(plain("tiny-sd1", precision), &json!({"model": model, "act": act}));
            assert_eq!(pixels(&daemon, &of("tiny-sd1")).await, own, "{act}, {precision:?}");
            assert_eq!(pixels(&daemon, &of("weaker")).await, weaker, "{act}, {precision:?}");
        }
    }
    // What is wanted is told more tokens than what is not.
    let long = |checkpoint: &str| Txt2ImgParams {
        prompt: "a red circle, ".repeat(40).into(),
        ..plain(checkpoint, Precision::F32)
    };
    let of = |model: &str| with(long("tiny-sd1"), &json!({"model": model}));
    assert_eq!(pixels(&daemon, &of("tiny-sd1")).await, pixels(&daemon, &long("tiny-sd1")).await);
    assert_eq!(pixels(&daemon, &of("weaker")).await, pixels(&daemon, &long("weaker")).await);
}

#[tokio::test]
async fn a_weaker_unet_guides_away_from_itself() {
    let (daemon, _models) = start();
    let own = pixels(&daemon, &plain("tiny-sd1", Precision::F32)).await;
    let guided = |model: &str, scale: f64| {
        with(plain("tiny-sd1", Precision::F32), &json!({"model": model, "scale": scale}))
    };
    // Nothing lies between a model and itself.
    assert_eq!(pixels(&daemon, &guided("tiny-sd1", 2.0)).await, own);
    let away = pixels(&daemon, &guided("weaker", 2.0)).await;
    assert!(away != own && away != pixels(&daemon, &plain("weaker", Precision::F32)).await);
    assert_ne!(pixels(&daemon, &guided("weaker", 1.0)).await, away);
}

#[tokio::test]
async fn what_the_evaluation_has_not_or_the_network_does_not_take_is_refused() {
    let (daemon, _models) = start();
    let plain = plain("tiny-sd1", Precision::F32);
    let own = pixels(&daemon, &plain).await;
    for (model, params, name, words) in [
        ("tiny-sd1", json!({"act": "before"}), ErrorName::Unsupported, "no evaluation is at hand here"),
        ("tiny-sd1", json!({"act": "nothing"}), ErrorName::InvalidParams, "its input 'x' is missing"),
        ("tiny-sd1", json!({"act": "twice"}), ErrorName::InvalidParams, "row 0 of 4 is none, or named twice"),
        ("tiny-sd1", json!({"act": "many"}), ErrorName::InvalidParams, "it names 5 of 4 rows"),
        ("tiny-sd1", json!({"act": "none"}), ErrorName::InvalidParams, "row 4711 of 4 is none"),
        (
            "tiny-sd1",
            json!({"act": "count"}),
            ErrorName::InvalidParams,
            "input 'x': [5, 4, 8, 8]; 4 rows are run",
        ),
        (
            "tiny-sd1-ema",
            json!({}),
            ErrorName::InvalidParams,
            "input 'context': sizes [4, 77, 32], it takes [batch, tokens, 8]",
        ),
        ("weaker", json!({"side": 100_000}), ErrorName::Memory, "needs about"),
        ("weakest", json!({}), ErrorName::NotFound, "checkpoint 'weakest' is not"),
    ] {
        let mut params = params;
        params["model"] = model.into();
        let refusal = within(daemon.client().await.txt2img(&with(plain.clone(), &params))).await;
        let text = refused(refusal, name);
        assert!(text.contains(words), "{params}: {text}");
    }
    assert_eq!(pixels(&daemon, &plain).await, own);
}
