//! What plugins know of tags in prompts, through the socket. By a plugin in C with a tag of its own, which says where LoRAs are how
//! strong.

use std::fs;

use latentd_client::protocol::{
    ErrorName, ImageIn, OutputFormat, OutputParams, PluginParams, Txt2ImgParams, Txt2ImgResult,
};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Options, fixtures, program, refused, small, within};
use crate::plugin_library::{build, install};

/// With the tiny checkpoint and a LoRA for it.
fn start() -> (Daemon, tempfile::TempDir) {
    let models = tempfile::tempdir().expect("a folder");
    for (kind, from) in [
        ("Stable-diffusion", fixtures().join("Stable-diffusion/tiny-sd1.safetensors")),
        ("Lora", fixtures().join("../adapters/kohya.safetensors")),
    ] {
        let folder = models.path().join(kind);
        fs::create_dir(&folder).expect("made");
        fs::copy(&from, folder.join(from.file_name().expect("a name"))).expect("copied");
    }
    let daemon = Daemon::with(Options { models: Some(models.path().to_owned()), ..Options::default() });
    install(&daemon, "tags.so", &build("tests/fixtures/plugins/tags.c", &["-std=gnu99"]));
    (daemon, models)
}

fn asked(prompt: &str, params: Option<&Json>) -> Txt2ImgParams {
    let plugins = params.map(|params| {
        let params = PluginParams::from_json(params.as_object().expect("an object").clone());
        ("tags".to_owned(), params)
    });
    Txt2ImgParams {
        prompt: prompt.into(),
        plugins: plugins.into_iter().collect(),
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(1)
    }
}

async fn draw(daemon: &Daemon, request: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(request)).await.expect("drawn")
}

async fn pixels(daemon: &Daemon, prompt: &str) -> Vec<u8> {
    let drawn = draw(daemon, &asked(prompt, Some(&json!({})))).await;
    assert_eq!(drawn.notices, Vec::<String>::new());
    drawn.images[0].raw.clone().expect("raw").0
}

#[tokio::test]
async fn a_tag_of_its_own_changes_its_parameters() {
    let (daemon, _models) = start();
    let plain = pixels(&daemon, "a cat").await;
    let more = pixels(&daemon, "a cat<brighter:5>").await;
    assert!(plain.iter().zip(&more).all(|(old, new)| old.wrapping_add(5) == *new));
    // Who does not have the plugin is told.
    let told = draw(&daemon, &asked("a cat<brighter:5>", None)).await.notices;
    assert_eq!(told, ["<brighter:5>: networks of extensions cannot be applied and were left out"]);
    let told = draw(&daemon, &asked("a cat<dimmer:5><brighter:5>", Some(&json!({})))).await.notices;
    assert_eq!(told, ["<dimmer:5>: networks of extensions cannot be applied and were left out"]);
    // The picture says it, and draws the same again.
    let request =
        Txt2ImgParams { output: OutputParams::default(), ..asked("a cat<brighter:5>", Some(&json!({}))) };
    let drawn = draw(&daemon, &request).await.images.remove(0);
    let png = drawn.png.clone().expect("a PNG").0;
    let info = within(daemon.client().await.image_info(ImageIn::png(png.clone()))).await.expect("read");
    let again = info.request.expect("a request").into_drawing();
    assert_eq!(again.prompt, "a cat<brighter:5>".into());
    assert_eq!(draw(&daemon, &again).await.images[0].png.as_ref().map(|png| &png.0), Some(&png));
}

#[tokio::test]
async fn loras_are_as_strong_as_a_plugin_says_where_it_says() {
    let (daemon, _models) = start();
    let without = pixels(&daemon, "a cat").await;
    let whole = pixels(&daemon, "a cat<lora:kohya:1>").await;
    assert!(whole != without);
    for (tag, same) in [
        ("<lora:kohya:1:at=nowhere>", ""),
        ("<lora:kohya:1:at=half>", "<lora:kohya:0.5>"),
        ("<lora:kohya:1:at=unet>", "<lora:kohya:0:1>"),
    ] {
        let (told, expected) =
            (pixels(&daemon, &format!("a cat{tag}")).await, pixels(&daemon, &format!("a cat{same}")).await);
        assert!(told == expected, "{tag}");
        assert!(told != whole, "{tag}");
    }
    let told = draw(&daemon, &asked("a cat<lora:kohya:1:at=home>", Some(&json!({})))).await.notices;
    assert_eq!(told, ["<lora:kohya:1:at=home>: at=home is not known and was left out"]);
}

#[test]
fn the_validator_looks_at_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("tags.so");
    fs::write(&library, build("tests/fixtures/plugins/tags.c", &["-std=gnu99"])).expect("written");
    let library = library.display().to_string();
    let run = program(folder.path()).args(["plugins", "validate", &library]).output().expect("it runs");
    let told = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success() && told.contains("prompt.tags/repeat"), "{told}");
}

#[tokio::test]
async fn a_wrong_answer_refuses_the_request_by_plugin_and_stage() {
    let (daemon, _models) = start();
    let plain = pixels(&daemon, "a cat").await;
    for (prompt, name, expected) in [
        ("<wrong:list>", ErrorName::Plugin, "<wrong:list>: the patch is a list, not a map"),
        ("<wrong:key>", ErrorName::Plugin, "'scale' is unknown; known: claimed, scales, parameters"),
        ("<wrong:slot>", ErrorName::Plugin, "it answers in a slot that is none"),
        ("<wrong:scales>", ErrorName::Plugin, "scales are for LoRAs only"),
        ("<wrong:fail>", ErrorName::Plugin, "as asked"),
    ] {
        let request = asked(&format!("a cat{prompt}"), Some(&json!({})));
        let submitted = within(daemon.client().await.submit("txt2img", &request, None)).await;
        let text = refused(submitted, name);
        assert!(text.contains("plugin 'tags', prompt.tags/draft-1: ") && text.contains(expected), "{text}");
    }
    // What it makes of its parameters is looked at as if it had been sent.
    let request = asked("a cat<brighter:120>", Some(&json!({})));
    let text = refused(within(daemon.client().await.txt2img(&request)).await, ErrorName::InvalidParams);
    assert!(text.contains("/more: 120 is out of range; give 99 or less"), "{text}");
    assert!(pixels(&daemon, "a cat").await == plain);
}
