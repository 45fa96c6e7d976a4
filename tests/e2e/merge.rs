//! Checkpoints merged through the socket: drawn with at once, whole or not at all, refused by name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use latentd_client::protocol::{
    ErrorName, EventKind, JobState, LibraryGetParams, LibraryKind, LoraParams, MergeParams, MergeResult,
    OutputFormat, OutputParams, Precision, Txt2ImgParams, WeightType,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Daemon, Options, fixtures, long, refused, small, within};

const TINY: &str = "tiny-sd1";

/// A models folder of its own: the tiny checkpoint, the same with other numbers, a VAE, LoRAs.
struct Models(TempDir);

impl Models {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for kind in ["Stable-diffusion", "VAE", "Lora"] {
            fs::create_dir(folder.path().join(kind)).expect("made");
        }
        let models = Self(folder);
        let tiny = fs::read(fixtures().join("Stable-diffusion/tiny-sd1.safetensors")).expect("read");
        fs::write(models.checkpoint(TINY), &tiny).expect("written");
        fs::write(models.checkpoint("other"), turned(&tiny)).expect("written");
        fs::copy(fixtures().join("Stable-diffusion/tiny-sd1-ema.safetensors"), models.checkpoint("small"))
            .expect("copied");
        let adapters = fixtures().join("../adapters");
        for name in ["kohya", "kohya-unmatched", "other-sdxl"] {
            let name = format!("{name}.safetensors");
            fs::copy(adapters.join(&name), models.at(&format!("Lora/{name}"))).expect("copied");
        }
        models
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn checkpoint(&self, name: &str) -> PathBuf {
        self.at(&format!("Stable-diffusion/{name}.safetensors"))
    }

    fn daemon(&self) -> Daemon {
        Daemon::with(Options { models: Some(self.0.path().to_owned()), ..Options::default() })
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("Stable-diffusion")).expect("listed");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Where the tensors of a safetensors file begin, and its header.
fn header(bytes: &[u8]) -> (usize, Value) {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    (8 + length, serde_json::from_slice(&bytes[8..8 + length]).expect("JSON"))
}

/// The same with the sign of every third number turned.
fn turned(bytes: &[u8]) -> Vec<u8> {
    let (start, header) = header(bytes);
    let mut changed = bytes.to_vec();
    for (_, tensor) in
        header.as_object().expect("a map").iter().filter(|(_, tensor)| tensor["dtype"] == "F16")
    {
        let place = |index: usize| start + tensor["data_offsets"][index].as_u64().expect("a place") as usize;
        for number in changed[place(0)..place(1)].chunks_exact_mut(2).step_by(3) {
            number[1] ^= 0x80;
        }
    }
    changed
}

fn metadata(path: &Path) -> BTreeMap<String, String> {
    let (_, header) = header(&fs::read(path).expect("read"));
    serde_json::from_value(header["__metadata__"].clone()).expect("texts")
}

fn sum(name: &str) -> MergeParams {
    MergeParams { b: Some("other".into()), multiplier: 0.5, ..MergeParams::new(TINY, name) }
}

async fn drawn(client: &latentd_client::Client, checkpoint: &str) -> Vec<u8> {
    let params = Txt2ImgParams { checkpoint: Some(checkpoint.into()), ..small(1) };
    let drawn = within(client.txt2img(&params)).await.expect("drawn");
    drawn.images[0].png.clone().expect("a picture").0
}

/// Pixels, and not the text beside them, which names the file.
fn pixels(png: &[u8]) -> Vec<u8> {
    let mut chunks = vec![];
    let mut rest = &png[8..];
    while let [a, b, c, d, kind @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if kind.starts_with(b"IDAT") {
            chunks.extend_from_slice(&kind[4..4 + length]);
        }
        rest = &kind[8 + length..];
    }
    chunks
}

#[tokio::test]
async fn what_is_merged_is_drawn_with_at_once() {
    let models = Models::new();
    let daemon = models.daemon();
    let client = daemon.client().await;
    let mut stages = vec![];
    let merged = within(client.merge_models_with(&sum("mix"), |event| {
        if let EventKind::Progress { stage: Some(stage), step, steps, .. } = &event.kind {
            stages.push((stage.clone(), *step, *steps));
        }
    }))
    .await
    .expect("merged");
    assert_eq!((Path::new(&merged.path), merged.name.as_str()), (models.checkpoint("mix").as_path(), "mix"));
    assert_eq!((merged.tensors, merged.notices.len()), (629, 0));
    assert_eq!(stages.last(), Some(&("merging".to_owned(), 629, 629)), "{stages:?}");
    let entry = LibraryGetParams { kind: LibraryKind::Checkpoint, name: "mix".into() };
    let entry = within(client.library_entry(&entry)).await.expect("known at once");
    assert_eq!((entry.unsupported, entry.dtype.as_str()), (None, "f16"));
    let pictures = [drawn(&client, TINY).await, drawn(&client, "other").await, drawn(&client, "mix").await];
    assert!(pictures[2] != pictures[0] && pictures[2] != pictures[1]);

    let said = metadata(&models.checkpoint("mix"));
    let recipe: Value = serde_json::from_str(&said["sd_merge_recipe"]).expect("JSON");
    let of: Value = serde_json::from_str(&said["sd_merge_models"]).expect("JSON");
    let of = of.as_object().expect("a map");
    assert_eq!(
        (&recipe["type"], &recipe["primary_model_name"], &recipe["interp_method"], &recipe["multiplier"]),
        (&json!("latentd"), &json!(TINY), &json!("Weighted sum"), &json!(0.5))
    );
    let hash = recipe["secondary_model_hash"].as_str().expect("a hash");
    assert_eq!((of.len(), hash.len(), &of[hash]["name"]), (2, 64, &json!("other.safetensors")));
    assert_eq!((said["format"].as_str(), said["modelspec.merged_from"].as_str()), ("pt", "tiny-sd1, other"));

    // At the ends it is one of both; what was merged before is told of, too.
    for (name, multiplier, as_before) in [("a", 0.0, &pictures[0]), ("b", 1.0, &pictures[1])] {
        within(client.merge_models(&MergeParams { multiplier, ..sum(name) })).await.expect("merged");
        assert!(pixels(&drawn(&client, name).await) == pixels(as_before), "{name}");
    }
    let again =
        MergeParams { c: Some("other".into()), method: Some("Add difference".into()), ..sum("again") };
    within(client.merge_models(&MergeParams { a: "mix".into(), ..again })).await.expect("merged");
    assert!(pixels(&drawn(&client, "again").await) == pixels(&pictures[2]), "nothing was added");
    let said = metadata(&models.checkpoint("again"));
    let of: Value = serde_json::from_str(&said["sd_merge_models"]).expect("JSON");
    let recipes =
        of.as_object().expect("a map").values().filter(|model| model["sd_merge_recipe"].is_object());
    assert_eq!((of.as_object().expect("a map").len(), recipes.count()), (3, 1));
}

#[tokio::test]
async fn loras_in_the_weights_draw_what_they_draw_beside_them() {
    let models = Models::new();
    let daemon = models.daemon();
    let client = daemon.client().await;
    let lora = LoraParams { name: "kohya".into(), te: Some(0.8), unet: Some(0.6), dynamic: None };
    let params = MergeParams {
        loras: vec![lora.clone()],
        // In f16 the sums would be rounded.
        dtype: Some(WeightType::F32),
        ..MergeParams::new(TINY, "with lora")
    };
    within(client.merge_models(&params)).await.expect("merged");
    let raw = |checkpoint: &str, loras: Vec<LoraParams>| Txt2ImgParams {
        checkpoint: Some(checkpoint.into()),
        loras,
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(1)
    };
    let (mut pictures, none) = (vec![], Vec::new());
    for params in [raw("with lora", none.clone()), raw(TINY, vec![lora]), raw(TINY, none)] {
        let drawn = within(client.txt2img(&params)).await.expect("drawn");
        pictures.push(drawn.images[0].raw.clone().expect("pixels").0);
    }
    // The sums are the same, if not in the same order.
    let furthest = |other: &[u8]| pictures[0].iter().zip(other).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(furthest(&pictures[1]) <= Some(1) && furthest(&pictures[2]) > Some(1));

    let with = |name: &str, lora: &str| MergeParams {
        loras: vec![LoraParams { name: lora.into(), ..LoraParams::default() }],
        ..MergeParams::new(TINY, name)
    };
    let told = within(client.merge_models(&with("part", "kohya-unmatched"))).await.expect("merged").notices;
    assert!(matches!(&told[..], [one] if one.contains("no place for")), "{told:?}");
    let text = refused(within(client.merge_models(&with("x", "other-sdxl"))).await, ErrorName::Model);
    assert!(text.contains("other-sdxl.safetensors: is for"), "{text}");
    let text = refused(within(client.merge_models(&with("x", "none"))).await, ErrorName::NotFound);
    assert!(text.contains("lora 'none' is not in the library"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_merged_is_refused_and_nothing_is_left() {
    let models = Models::new();
    let before = models.names();
    let daemon = models.daemon();
    let client = daemon.client().await;
    let rows = [
        (sum("other"), ErrorName::InvalidParams, "other.safetensors exists; give another name"),
        (sum("a/b"), ErrorName::InvalidParams, "name: 'a/b' is a path"),
        (MergeParams { a: "none".into(), ..sum("x") }, ErrorName::NotFound, "checkpoint 'none' is not in"),
        (
            MergeParams { vae: Some("nobody".into()), ..sum("x") },
            ErrorName::NotFound,
            "vae 'nobody' is not in",
        ),
        (MergeParams { b: Some("small".into()), ..sum("x") }, ErrorName::Model, "small.safetensors: tensor "),
        (MergeParams { method: Some("sum".into()), ..sum("x") }, ErrorName::InvalidParams, "method: 'sum'"),
        (MergeParams { c: Some(TINY.into()), ..sum("x") }, ErrorName::InvalidParams, "leave c out"),
        (MergeParams { multiplier: 11.0, ..sum("x") }, ErrorName::InvalidParams, "multiplier"),
        (MergeParams { dir: Some("here".into()), ..sum("x") }, ErrorName::InvalidParams, "absolute path"),
        (MergeParams { dir: Some("/none".into()), ..sum("x") }, ErrorName::InvalidParams, "is no folder"),
        (
            MergeParams { discard_weights: Some("(".into()), ..sum("x") },
            ErrorName::InvalidParams,
            "is no regular expression",
        ),
    ];
    for (params, name, reason) in rows {
        let text = refused(within(client.merge_models(&params)).await, name);
        assert!(text.contains(reason), "{reason}: {text}");
    }
    assert_eq!(models.names(), before);

    // Who wants it replaced has it replaced, also while it is merged with itself.
    let other = models.checkpoint("other");
    let old = fs::read(&other).expect("read");
    let again = MergeParams { a: "other".into(), b: Some(TINY.into()), overwrite: true, ..sum("other") };
    within(client.merge_models(&again)).await.expect("merged");
    assert!(fs::read(&other).expect("read") != old);
    assert_eq!(models.names(), before);
    // Beside the models folders it is a file like any other.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let dir = Some(elsewhere.path().display().to_string());
    let merged = within(client.merge_models(&MergeParams { dir, ..sum("mix") })).await.expect("merged");
    assert_eq!(merged.name, "mix");
    assert!(elsewhere.path().join("mix.safetensors").is_file());
    refused(
        within(client.library_entry(&LibraryGetParams { kind: LibraryKind::Checkpoint, name: "mix".into() }))
            .await,
        ErrorName::NotFound,
    );
}

/// A checkpoint with so many MiB of numbers beside its networks, which take part and take long; they take no room here.
fn enlarge(path: &Path, mib: u64) {
    const EACH: u64 = 4 << 20;
    let bytes = fs::read(path).expect("read");
    let (start, mut header) = header(&bytes);
    let mut end = (bytes.len() - start) as u64;
    for place in 0..mib * (1 << 20) / EACH {
        let tensor = json!({"dtype": "F32", "shape": [EACH / 4], "data_offsets": [end, end + EACH]});
        header.as_object_mut().expect("a map").insert(format!("model_ema.more.{place:05}"), tensor);
        end += EACH;
    }
    let mut text = serde_json::to_vec(&header).expect("JSON");
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = File::create(path).expect("made");
    for part in [&(text.len() as u64).to_le_bytes()[..], &text, &bytes[start..]] {
        file.write_all(part).expect("written");
    }
    file.set_len(8 + text.len() as u64 + end).expect("enlarged");
}

#[tokio::test]
async fn a_cancelled_merge_leaves_nothing_behind() {
    let models = Models::new();
    for name in [TINY, "other"] {
        enlarge(&models.checkpoint(name), 600);
    }
    let before = models.names();
    let daemon = models.daemon();
    let client = daemon.client().await;
    let job = within(client.submit("models.merge", &sum("mix"), None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    loop {
        match within(events.next()).await.expect("events").kind {
            EventKind::Progress { stage, step, .. } if stage.as_deref() == Some("merging") && step > 0 => {
                break;
            }
            other => assert!(!other.is_last(), "{other:?}"),
        }
    }
    within(client.cancel(&job)).await.expect("cancelled");
    let text = refused(within(client.wait_for::<MergeResult>(&job)).await, ErrorName::Cancelled);
    assert!(text.contains("while it was merged"), "{text}");
    let view = within(client.job(&job)).await.expect("known");
    assert!(view.state == JobState::Cancelled && view.step < view.steps, "{view:?}");
    assert_eq!(models.names(), before);

    // Before its turn, too; and a name that is taken while it waits is not replaced.
    let drawing = within(client.submit("txt2img", &long(), None)).await.expect("submitted");
    let mut events = within(client.subscribe(&drawing, 0)).await.expect("subscribed");
    while within(events.next()).await.expect("events").kind != EventKind::Started {}
    let params = |name: &str| MergeParams { discard_weights: Some("model_ema".into()), ..sum(name) };
    let waits = within(client.submit("models.merge", &params("waits"), None)).await.expect("submitted");
    let taken = within(client.submit("models.merge", &params("taken"), None)).await.expect("submitted");
    within(client.cancel(&waits)).await.expect("cancelled");
    fs::write(models.checkpoint("taken"), "mine").expect("written");
    within(client.cancel(&drawing)).await.expect("cancelled");
    let text = refused(within(client.wait_for::<MergeResult>(&taken)).await, ErrorName::InvalidParams);
    assert!(text.contains("taken.safetensors exists"), "{text}");
    assert_eq!(fs::read(models.checkpoint("taken")).expect("read"), b"mine");
    assert_eq!(models.names().len(), before.len() + 1);
    within(client.txt2img(&small(1))).await.expect("the next job is fine");
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_behind() {
    let models = Models::new();
    let before = models.names();
    let options = Options {
        models: Some(models.0.path().to_owned()),
        file_size_limit: Some(4 << 20),
        ..Options::default()
    };
    let daemon = Daemon::with(options);
    let client = daemon.client().await;
    let text = refused(within(client.merge_models(&sum("mix"))).await, ErrorName::Internal);
    assert!(text.contains("mix.safetensors: cannot be written"), "{text}");
    assert_eq!(models.names(), before);
    within(client.txt2img(&small(1))).await.expect("the daemon goes on");
}

#[test]
fn the_command_line_merges() {
    let models = Models::new();
    let daemon = models.daemon();
    let run = |arguments: &[&str]| {
        let merge = ["models", "merge"].iter().chain(arguments).copied().collect::<Vec<_>>();
        let output = daemon.command(&merge).output().expect("ran");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = run(&[TINY, "other", "-o", "mix", "-m", "0.25", "--half", "--lora", "kohya:0.5"]);
    let path = models.checkpoint("mix");
    assert_eq!((code, out.starts_with(&path.display().to_string())), (Some(0), true), "{out}{err}");
    assert!(err.contains("merging ") && path.is_file(), "{err}");
    let recipe: Value = serde_json::from_str(&metadata(&path)["sd_merge_recipe"]).expect("JSON");
    assert_eq!((&recipe["multiplier"], &recipe["save_as_half"]), (&json!(0.25), &json!(true)));
    assert_eq!(recipe["loras"][0]["name"], "kohya");

    let (code, _, err) = run(&[TINY, "-o", "mix"]);
    assert!(code == Some(2) && err.contains("exists; give another name"), "{err}");
    let (code, out, err) =
        run(&[TINY, "other", TINY, "-o", "./here.safetensors", "--overwrite", "--dtype", "bf16"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let here = daemon.folder.path().join("here.safetensors");
    let recipe: Value = serde_json::from_str(&metadata(&here)["sd_merge_recipe"]).expect("JSON");
    assert_eq!(recipe["interp_method"], "Add difference", "three models");
    let (code, _, err) = run(&[TINY, "nobody", "-o", "x"]);
    assert!(code == Some(1) && err.contains("'nobody' is not in the library"), "{err}");
    let (code, ..) = run(&[TINY]);
    assert_eq!(code, Some(2), "where to?");
    // It can be waited for like other jobs.
    let list = daemon.command(&["jobs", "list", "--json"]).output().expect("ran");
    let jobs: Value = serde_json::from_slice(&list.stdout).expect("JSON");
    let job = jobs.as_array().expect("a list").iter().find(|job| job["state"] == "finished").expect("one");
    let wait = daemon.command(&["jobs", "wait", job["job"].as_str().expect("an id")]).output().expect("ran");
    assert!(String::from_utf8_lossy(&wait.stdout).contains("here.safetensors"));
    let fetch =
        daemon.command(&["jobs", "fetch", job["job"].as_str().expect("an id")]).output().expect("ran");
    assert!(String::from_utf8_lossy(&fetch.stderr).contains("draws no pictures"));
}

#[cfg(feature = "demo")]
#[tokio::test]
async fn the_built_in_model_can_be_merged_too() {
    let models = Models::new();
    let daemon = models.daemon();
    let client = daemon.client().await;
    let demo = |checkpoint: &str| Txt2ImgParams {
        checkpoint: Some(checkpoint.into()),
        width: Some(128),
        height: Some(128),
        ..small(1)
    };
    within(client.merge_models(&MergeParams::new("latentd-demo", "copy"))).await.expect("merged");
    let first =
        |drawn: latentd_client::protocol::Txt2ImgResult| drawn.images[0].png.clone().expect("a picture").0;
    let built_in = first(within(client.txt2img(&demo("latentd-demo"))).await.expect("drawn"));
    let copy = first(within(client.txt2img(&demo("copy"))).await.expect("drawn"));
    assert!(pixels(&copy) == pixels(&built_in));
}
