//! Plugins around the model, through the socket: whom they may ask, and what cannot be asked.

use latentd_client::protocol::{
    ErrorName, OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams,
};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, refused, small, within};
use crate::plugin_library::{build, install};

fn daemon() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "wraps.so", &build("tests/fixtures/plugins/wraps.c", &["-std=gnu99"]));
    daemon
}

fn with(plugins: &[(&str, Json)]) -> Txt2ImgParams {
    let plugins = plugins.iter().map(|(name, params)| {
        ((*name).to_owned(), PluginParams::from_json(params.as_object().expect("an object").clone()))
    });
    Txt2ImgParams {
        plugins: plugins.collect(),
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        batch_size: 2,
        ..small(3)
    }
}

fn act(act: &str) -> Txt2ImgParams {
    with(&[("wraps", json!({"act": act}))])
}

async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

#[tokio::test]
async fn who_asks_and_hands_over_changes_nothing_however_he_asks() {
    let daemon = daemon();
    let plain = pixels(&daemon, &with(&[])).await;
    for way in ["leave", "skip", "next", "unwrapped", "bare", "split", "reversed"] {
        assert_eq!(pixels(&daemon, &act(way)).await, plain, "{way}");
    }
    for way in ["swapped", "half", "sigma"] {
        assert_ne!(pixels(&daemon, &act(way)).await, plain, "{way}");
    }
    // Samplers that go by timesteps, and with several calls a step.
    for sampler in ["DDIM", "Heun", "UniPC"] {
        let of = |request: Txt2ImgParams| Txt2ImgParams { sampler_name: sampler.to_owned(), ..request };
        let plain = pixels(&daemon, &of(with(&[]))).await;
        assert_eq!(pixels(&daemon, &of(act("split"))).await, plain, "{sampler}");
    }
    assert_eq!(pixels(&daemon, &with(&[])).await, plain);
}

#[tokio::test]
async fn those_inside_are_asked_or_left_out() {
    let daemon = daemon();
    install(&daemon, "freeu.so", &build("plugin-api/examples/freeu/freeu.c", &["-std=gnu99"]));
    let (freeu, plain) = (("freeu", json!({})), pixels(&daemon, &with(&[])).await);
    let changed = pixels(&daemon, &with(std::slice::from_ref(&freeu))).await;
    assert_ne!(changed, plain);
    for (way, expected) in [("next", &changed), ("unwrapped", &changed), ("bare", &plain)] {
        let both = with(&[freeu.clone(), ("wraps", json!({"act": way}))]);
        assert_eq!(&pixels(&daemon, &both).await, expected, "{way}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_costs_the_job_by_name() {
    let daemon = daemon();
    let plain = pixels(&daemon, &with(&[])).await;
    for (way, name, words) in [
        ("inside", ErrorName::InvalidParams, "inside is 4711"),
        ("image", ErrorName::InvalidParams, "row 0 is of image 4711"),
        ("branch", ErrorName::InvalidParams, "no row is of branch 4711"),
        ("none", ErrorName::InvalidParams, "for 0 rows"),
        ("count", ErrorName::InvalidParams, "for 5 rows"),
        ("nan", ErrorName::InvalidParams, "number 0 of x"),
        ("large", ErrorName::InvalidParams, "the pass is of"),
        ("context", ErrorName::InvalidParams, "row 0's context is"),
        ("region", ErrorName::InvalidParams, "row 0 shows 4294967288 by 4294967288 pixels"),
        ("result", ErrorName::Plugin, "in the place of"),
        ("before", ErrorName::Unsupported, "denoise.wrap alone"),
        ("fails", ErrorName::Plugin, "as it was told to"),
    ] {
        let client = daemon.client().await;
        let text = refused(within(client.txt2img(&act(way))).await, name);
        assert!(text.contains("plugin 'wraps', denoise.") && text.contains(words), "{way}: {text}");
    }
    assert_eq!(pixels(&daemon, &with(&[])).await, plain);
}
