//! Library files that plugins write and remove, through the socket. By a plugin in C that says what to do.

use std::fs;

use latentd_client::protocol::{ErrorName, LibraryKind, LibraryListParams, PluginParams, Txt2ImgParams};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Options, fixtures, refused, small, within};
use crate::plugin_library::{build, install};

fn asked(params: &Json) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [("saves".to_owned(), params)].into(), ..small(1) }
}

async fn faces(daemon: &Daemon) -> Vec<String> {
    let asked = LibraryListParams { kind: Some(LibraryKind::Face) };
    let list = within(daemon.client().await.library(&asked)).await.expect("listed");
    list.entries.into_iter().map(|entry| entry.name).collect()
}

#[tokio::test]
async fn files_are_written_whole_found_at_once_and_removed() {
    let models = tempfile::tempdir().expect("a folder");
    let checkpoints = models.path().join("Stable-diffusion");
    fs::create_dir(&checkpoints).expect("made");
    fs::copy(
        fixtures().join("Stable-diffusion/tiny-sd1.safetensors"),
        checkpoints.join("tiny-sd1.safetensors"),
    )
    .expect("copied");
    let daemon = Daemon::with(Options { models: Some(models.path().to_owned()), ..Options::default() });
    install(&daemon, "saves.so", &build("tests/fixtures/plugins/saves.c", &["-std=gnu99"]));
    let client = daemon.client().await;
    let list = within(client.plugins()).await.expect("listed").plugins;
    assert_eq!(list[0].saves, ["face", "lora"]);
    within(client.txt2img(&asked(&json!({})))).await.expect("drawn");
    let path = models.path().join("faces/anna.safetensors");
    let first = fs::read(&path).expect("it is there");
    assert_eq!(faces(&daemon).await, ["anna"]);
    let wrong = async |params: Json, name, expected: &str| {
        let text = refused(within(client.txt2img(&asked(&params))).await, name);
        assert!(text.contains("plugin 'saves', noise.init/draft-1: ") && text.contains(expected), "{text}");
    };
    wrong(json!({}), ErrorName::InvalidParams, "anna.safetensors exists; give another name, or replace it")
        .await;
    within(client.txt2img(&asked(&json!({"act": "replace"})))).await.expect("drawn");
    assert!(fs::read(&path).expect("it is there") != first);
    let kind = json!({"kind": "checkpoint"});
    let expected =
        "its manifest does not ask to write checkpoint files: [capabilities] save = ['checkpoint']";
    wrong(kind, ErrorName::InvalidParams, expected).await;
    wrong(json!({"kind": "fase"}), ErrorName::InvalidParams, "'fase' is no kind of file").await;
    for name in ["", "../anna", "a/b", "a\\b", ".anna", " anna", "anna.safetensors", &"x".repeat(250)] {
        wrong(json!({"name": name}), ErrorName::InvalidParams, "is no file's name").await;
    }
    wrong(json!({"act": "NaN", "name": "b"}), ErrorName::InvalidParams, "'embedding' has NaN").await;
    wrong(json!({"act": "nothing", "name": "b"}), ErrorName::Plugin, "0 tensors").await;
    wrong(json!({"act": "no map", "name": "b"}), ErrorName::Plugin, "no map of texts").await;
    wrong(
        json!({"act": "remove", "kind": "checkpoint", "name": "tiny-sd1"}),
        ErrorName::InvalidParams,
        "does not ask",
    )
    .await;
    // Nothing of what failed is there, nor of what is of another kind by its tensors.
    let left = fs::read_dir(models.path().join("faces")).expect("a folder").count();
    assert_eq!(left, 1);
    // What is there stays if what would take its place is something else.
    let lora = models.path().join("Lora/anna.safetensors");
    fs::create_dir(models.path().join("Lora")).expect("made");
    fs::copy(fixtures().join("../adapters/kohya.safetensors"), &lora).expect("copied");
    within(client.rescan()).await.expect("looked at");
    let before = fs::read(&lora).expect("read");
    let other = json!({"act": "replace", "kind": "lora"});
    wrong(other, ErrorName::InvalidParams, "by its tensors it would be none that is known").await;
    assert!(fs::read(&lora).expect("it is there") == before);
    wrong(json!({"kind": "lora", "name": "b"}), ErrorName::InvalidParams, "it would be none that is known")
        .await;
    assert_eq!(fs::read_dir(models.path().join("Lora")).expect("a folder").count(), 1);
    within(client.txt2img(&asked(&json!({"act": "remove"})))).await.expect("drawn");
    assert!(!path.exists());
    assert_eq!(faces(&daemon).await, Vec::<String>::new());
    wrong(json!({"act": "remove"}), ErrorName::NotFound, "anna").await;
}
