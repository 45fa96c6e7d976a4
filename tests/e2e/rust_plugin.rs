//! A plugin in Rust that takes part in each stage, through the safe wrapper: built outside of the workspace, as a stranger's is.

use std::path::Path;

use latentd_client::protocol::{ErrorName, ImageIn, PluginParams, Precision, Txt2ImgParams, Txt2ImgResult};
use latentd_models::image::Picture;
use rmpv::Value;
use serde::Serialize;
use serde_json::json;

use crate::harness::{Daemon, refused, small, within};
use crate::plugin_library::{build_rust, install};

/// Builds one of the fixtures; gives the library's bytes.
fn built(name: &str) -> Vec<u8> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let folder = tempfile::tempdir().expect("a folder");
    let sources = repository.join("tests/fixtures/plugins");
    for file in [format!("{name}.rs"), format!("{name}.toml")] {
        std::fs::copy(sources.join(&file), folder.path().join(&file)).expect("copied");
    }
    let api = repository.join("plugin-api");
    let package = name.replace('_', "-");
    let manifest = format!(
        "[package]\nname = \"{package}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\
         path = \"{name}.rs\"\n\n[dependencies]\nlatentd-plugin-api = {{ path = '{}' }}\nrmp-serde = \"1.3\"\n\
         serde = {{ version = \"1\", features = [\"derive\"] }}\n\n[workspace]\n",
        api.display()
    );
    std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("written");
    build_rust(folder.path())
}

/// Where a plugin's functions are called for a job, in their order.
const STAGES: [&str; 17] = [
    "request.rewrite/draft-1",
    "prompt.tags/draft-1",
    "job.plan",
    "create",
    "conditioning/draft-1",
    "attention/draft-1",
    "pass.begin/draft-1",
    "noise.init/draft-1",
    "denoise.before/draft-1",
    "denoise.wrap/draft-1",
    "control.residuals/draft-1",
    "unet.block/draft-1",
    "denoise.combine/draft-1",
    "latent.final/draft-1",
    "image.post/draft-1",
    "batch.post/draft-1",
    "infotext.write/draft-1",
];

/// What `act` names happens at a stage.
fn acting(act: &str, stage: &str) -> Txt2ImgParams {
    let params = PluginParams([(act.to_owned(), stage.into())].into());
    let plugins = [("every-stage".to_owned(), params)].into();
    // A tag of its own, which it takes out.
    Txt2ImgParams { plugins, prompt: "a circle<every:one>".into(), ..plain() }
}

fn request(panic: &str) -> Txt2ImgParams {
    acting("panic", panic)
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams { precision: Precision::F32, batch_size: 2, prompt: "a circle".into(), ..small(3) }
}

#[tokio::test]
async fn each_stage_is_had_through_the_wrapper_and_a_panic_costs_one_job() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let pixels = async |params: &Txt2ImgParams| -> Vec<Picture> {
        let drawn = within(client.txt2img(params)).await.expect("drawn");
        let png = drawn.images.iter().map(|image| &image.png.as_ref().expect("a PNG").0);
        // It gives them opacity, of which there is all.
        png.map(|png| Picture::decode(png, 1 << 24).expect("decodes").into_rgb().into()).collect()
    };
    let expected = pixels(&plain()).await;
    install(&daemon, "libevery_stage.so", &built("every_stage"));
    assert_eq!(pixels(&request("")).await, expected);
    for stage in STAGES {
        let text = refused(within(client.txt2img(&request(stage))).await, ErrorName::Plugin);
        let told = format!("plugin 'every-stage', {stage}: it panicked: as asked");
        // What comes after it rewrote the request says that, too.
        assert!(text.ends_with(&told), "{text}");
        assert_eq!(pixels(&request("")).await, expected, "{stage}");
    }
}

#[tokio::test]
async fn a_job_is_cancelled_in_each_stage_and_those_beside_it_go_on() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    install(&daemon, "libevery_stage.so", &built("every_stage"));
    let pngs = |drawn: Txt2ImgResult| -> Vec<Vec<u8>> {
        drawn.images.into_iter().map(|image| image.png.expect("a PNG").0).collect()
    };
    let expected = pngs(within(client.txt2img(&plain())).await.expect("drawn"));
    for stage in STAGES {
        let waits = acting("wait", stage);
        let job = within(client.submit("txt2img", &waits, None)).await.expect("submitted");
        daemon.wait_log(&format!("waits at {stage}"));
        let beside = within(client.submit("txt2img", &plain(), None)).await.expect("submitted");
        within(client.cancel(&job)).await.expect("cancelled");
        let text = refused(within(client.wait(&job)).await, ErrorName::Cancelled);
        assert!(!text.contains("panicked"), "{stage}: {text}");
        let beside: Txt2ImgResult = within(client.wait_for(&beside)).await.expect("drawn");
        assert_eq!(pngs(beside), expected, "beside {stage}");
        assert_eq!(pngs(within(client.txt2img(&plain())).await.expect("drawn")), expected, "{stage}");
    }
}

#[derive(Serialize)]
struct Ask {
    kind: &'static str,
    name: &'static str,
    image: ImageIn,
}

/// A picture of 6 by 5.
fn ask(kind: &'static str, name: &'static str) -> Ask {
    let png = Picture::from_raw(vec![10; 90], 6, 5, 3).and_then(|picture| picture.to_png()).expect("a PNG");
    Ask { kind, name, image: ImageIn::png(png) }
}

#[tokio::test]
async fn each_kind_of_engine_and_method_is_had_through_the_wrapper_and_a_panic_costs_one_call() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    install(&daemon, "libevery_engine.so", &built("every_engine"));
    let call = async |ask: &Ask| within(client.call_value("every-engine.ask", ask)).await;
    let image = |answer: &Value| {
        let Value::Binary(png) = &answer["image"]["png"] else { panic!("no PNG: {answer}") };
        Picture::decode(png, 1 << 20).expect("a picture")
    };
    let good = async |kind: &'static str| call(&ask(kind, "good")).await.expect(kind);
    let larger = image(&good("upscaler").await);
    assert_eq!((larger.width, larger.height, larger.pixels[0]), (18, 15, 128));
    for kind in ["restorer", "preprocessor"] {
        assert_eq!(image(&good(kind).await).pixels, [245; 90], "{kind}");
    }
    let found = good("detector").await;
    assert_eq!(found["labels"], Value::Array(vec!["whole".into()]));
    assert_eq!(found["embedding"]["shape"], Value::Array(vec![2.into()]));
    assert_eq!(found["points"][0][1].as_f64(), Some(2.0));
    let tagged = good("tagger").await;
    assert_eq!((&tagged["labels"][0], &tagged["caption"]), (&"picture".into(), &"a picture".into()));
    for kind in ["upscaler", "restorer", "preprocessor", "detector", "tagger"] {
        let text = refused(call(&ask(kind, "panic")).await, ErrorName::Plugin);
        let expected = format!(
            "plugin 'every-engine', method 'ask': plugin 'every-engine', {kind} 'panic': it panicked: as asked"
        );
        assert_eq!(text, expected);
        good(kind).await;
    }
    let text = refused(call(&ask("detector", "panic as it is named")).await, ErrorName::Plugin);
    assert_eq!(text, "plugin 'every-engine', detector 'panic as it is named': it panicked: as asked");
    for method in ["work", "at-once"] {
        let called = within(client.call_value(&format!("every-engine.{method}"), &json!({}))).await;
        let text = refused(called, ErrorName::Plugin);
        assert_eq!(text, format!("plugin 'every-engine', method '{method}': it panicked: as asked"));
    }
    good("detector").await;
}
