//! The demo model that the program carries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use latentd_client::blocking;
use latentd_client::protocol::{
    Empty, ErrorName, ImageOut, LibraryEntry, LibraryGetParams, LibraryKind, LibraryListParams, Txt2ImgParams,
};
use latentd_models::image::Picture;
use sha2::{Digest, Sha256};

use crate::harness::{Daemon, Options, fixtures, program, refused, within};

const NAME: &str = "latentd-demo";

/// What is built in, as the file it was.
fn checkpoint() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo/latentd-demo.safetensors")
}

fn checkpoint_sha256() -> String {
    let digest = Sha256::digest(fs::read(checkpoint()).expect("read"));
    digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// A daemon whose models folder has nothing but these files under `Stable-diffusion`.
fn daemon_over(files: &[(&Path, &str)]) -> (Daemon, tempfile::TempDir) {
    let models = tempfile::tempdir().expect("a folder");
    let checkpoints = models.path().join("Stable-diffusion");
    fs::create_dir(&checkpoints).expect("made");
    for (file, name) in files {
        fs::copy(file, checkpoints.join(name)).expect("copied");
    }
    let options = Options { models: Some(models.path().to_owned()), ..Options::default() };
    (Daemon::with(options), models)
}

fn tiny() -> PathBuf {
    fixtures().join("Stable-diffusion/tiny-sd1.safetensors")
}

/// A request that leaves checkpoint and size to the daemon.
fn plain(seed: i64) -> Txt2ImgParams {
    Txt2ImgParams { prompt: "a red circle on a blue background".into(), seed, steps: 2, ..Default::default() }
}

fn named(seed: i64) -> Txt2ImgParams {
    Txt2ImgParams { checkpoint: Some(NAME.into()), ..plain(seed) }
}

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> ImageOut {
    within(daemon.client().await.txt2img(params)).await.expect("drawn").images.remove(0)
}

async fn entry(daemon: &Daemon, name: &str) -> LibraryEntry {
    let params = LibraryGetParams { kind: LibraryKind::Checkpoint, name: name.into() };
    within(daemon.client().await.library_entry(&params)).await.expect("found")
}

fn size(image: &ImageOut) -> (u32, u32) {
    (image.width, image.height)
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = program(folder);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command.output().expect("ran")
}

#[test]
fn a_fresh_machine_draws_and_is_told_how_to_add_a_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let prompt = "a red circle on a blue background";
    let output = run(folder.path(), &["generate", prompt, "-o", "first.png", "--steps=2"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let png = fs::read(folder.path().join("first.png")).expect("written");
    let drawn = Picture::decode(&png, 1 << 20).expect("a PNG");
    assert_eq!((drawn.width, drawn.height), (128, 128));
    let checkpoints = folder.path().join("data/latentd/models/Stable-diffusion");
    let notices: Vec<_> = errors.lines().filter(|line| line.contains(NAME)).collect();
    assert_eq!(notices.len(), 1, "one line: {errors}");
    assert!(
        notices[0].contains("put a .safetensors file into") && notices[0].contains("--models-dir"),
        "{errors}"
    );
    assert!(notices[0].contains(&checkpoints.display().to_string()), "{errors}");

    // The same in the log, once, however many are drawn.
    assert_eq!(
        run(folder.path(), &["generate", prompt, "-o", "second.png", "--steps=2"]).status.code(),
        Some(0)
    );
    let log = fs::read_to_string(folder.path().join("state/latentd/latentd.log")).expect("a log");
    assert_eq!(log.lines().filter(|line| line.contains("put a .safetensors file into")).count(), 1, "{log}");

    // Whoever names it knows what it is.
    let output =
        run(folder.path(), &["generate", prompt, "-o", "third.png", "--steps=2", "--checkpoint", NAME]);
    assert_eq!(output.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&output.stderr).contains(NAME));

    let text =
        |arguments: &[&str]| String::from_utf8_lossy(&run(folder.path(), arguments).stdout).into_owned();
    let listed = text(&["models", "list"]);
    assert!(listed.contains(NAME) && listed.contains("built in"), "{listed}");
    assert!(text(&["models", "loaded"]).contains(NAME));
    let doctor = text(&["doctor"]);
    assert!(doctor.contains("latentd-demo, built in") && doctor.contains("latentd-demo (when"), "{doctor}");
    let client = blocking::Client::connect(Some(&folder.path().join("run/latentd/latentd.sock")));
    let _: Empty = client.expect("it stays").call("shutdown", &Empty {}).expect("ends");
}

#[tokio::test]
async fn it_is_listed_with_what_is_true_of_its_file() {
    let (daemon, _models) = daemon_over(&[]);
    let library = within(daemon.client().await.library(&LibraryListParams::default())).await.expect("listed");
    let [listed] = &library.entries[..] else { panic!("{library:?}") };
    assert_eq!((listed.name.as_str(), listed.kind, listed.built_in), (NAME, LibraryKind::Checkpoint, true));
    assert_eq!((listed.path.as_deref(), listed.architecture.as_deref()), (None, Some("sd1")));
    assert_eq!(listed.size, fs::metadata(checkpoint()).expect("there").len());
    let sha256 = checkpoint_sha256();
    assert_eq!(listed.hash.as_deref(), Some(sha256.as_str()), "known before it is used");
    assert_eq!(&entry(&daemon, NAME).await, listed);
    assert_eq!(&entry(&daemon, &sha256[..10]).await, listed);
    let infotext = draw(&daemon, &plain(1)).await.infotext.expect("an infotext");
    for part in [format!("Model hash: {}", &sha256[..10]), format!("Model: {NAME}"), "Size: 128x128".into()] {
        assert!(infotext.contains(&part), "{infotext}");
    }
}

#[tokio::test]
async fn pictures_have_its_own_size_unless_another_is_asked_for() {
    let (daemon, _models) =
        daemon_over(&[(&tiny(), "tiny.safetensors"), (&checkpoint(), "copy.safetensors")]);
    assert_eq!(size(&draw(&daemon, &named(1)).await), (128, 128));
    let copy = Txt2ImgParams { checkpoint: Some("copy".into()), ..plain(1) };
    assert_eq!(size(&draw(&daemon, &copy).await), (128, 128), "it is the file that says so");
    let wide = Txt2ImgParams { width: Some(64), ..named(1) };
    assert_eq!(size(&draw(&daemon, &wide).await), (64, 128));
    let both = Txt2ImgParams { width: Some(96), height: Some(64), ..named(1) };
    assert_eq!(size(&draw(&daemon, &both).await), (96, 64));
    let other = Txt2ImgParams { checkpoint: Some("tiny".into()), steps: 1, ..plain(1) };
    assert_eq!(size(&draw(&daemon, &other).await), (512, 512));
}

#[tokio::test]
async fn too_much_at_the_models_own_size_is_refused_in_its_turn() {
    let config = "result_bytes = 100000\n".to_owned();
    let daemon = Daemon::with(Options { config, ..Options::default() });
    let client = daemon.client().await;
    let two = Txt2ImgParams { n_iter: 2, ..named(1) };
    assert_eq!(within(client.txt2img(&two)).await.expect("drawn").images.len(), 2);
    let three = Txt2ImgParams { n_iter: 3, ..named(1) };
    let text = refused(within(client.txt2img(&three)).await, ErrorName::InvalidParams);
    assert!(text.contains("3 pictures of 128×128"), "{text}");
}

#[tokio::test]
async fn a_checkpoint_of_the_models_folder_comes_first() {
    let (daemon, models) = daemon_over(&[(&tiny(), "zebra.safetensors")]);
    let client = daemon.client().await;
    let small = Txt2ImgParams { width: Some(64), height: Some(64), ..plain(1) };
    let drawn = within(client.txt2img(&small)).await.expect("drawn");
    assert!(drawn.images[0].infotext.as_ref().is_some_and(|text| text.contains("Model: zebra")));
    assert!(drawn.notices.is_empty(), "{:?}", drawn.notices);
    let asked = within(client.txt2img(&named(1))).await.expect("drawn");
    assert!(asked.notices.is_empty(), "who names it knows: {:?}", asked.notices);

    // Without the file, and with one that cannot be used: the next best, and the reason.
    let folder = models.path().join("Stable-diffusion");
    fs::remove_file(folder.join("zebra.safetensors")).expect("removed");
    fs::write(folder.join("old.ckpt"), b"pickled").expect("written");
    let drawn = within(client.txt2img(&plain(1))).await.expect("drawn");
    let [notice] = &drawn.notices[..] else { panic!("{:?}", drawn.notices) };
    assert!(notice.contains(NAME) && notice.contains("old.ckpt"), "{notice}");

    // What is named and not there is an error all the same.
    let missing = Txt2ImgParams { checkpoint: Some("zebra".into()), ..plain(1) };
    refused(within(client.txt2img(&missing)).await, ErrorName::NotFound);
    let flags = vec!["--default-checkpoint".to_owned(), "zebra".to_owned()];
    let configured =
        Daemon::with(Options { flags, models: Some(models.path().to_owned()), ..Options::default() });
    refused(within(configured.client().await.txt2img(&plain(1))).await, ErrorName::NotFound);
    let flags = vec!["--default-checkpoint".to_owned(), NAME.to_owned()];
    let configured = Daemon::with(Options { flags, ..Options::default() });
    let drawn = within(configured.client().await.txt2img(&plain(1))).await.expect("drawn");
    assert!(drawn.images[0].infotext.as_ref().is_some_and(|text| text.contains("Model: latentd-demo")));
    assert!(drawn.notices.is_empty(), "who configures it knows: {:?}", drawn.notices);
}

/// The header of a checkpoint, and nothing that could be read from it.
fn header_of(channels: usize, text: &str) -> Vec<u8> {
    let bytes = 4 * channels * 9 * 2;
    let first = format!(r#"{{"dtype":"F16","shape":[4,{channels},3,3],"data_offsets":[0,{bytes}]}}"#);
    let other = format!(r#"{{"dtype":"F16","shape":[1],"data_offsets":[{bytes},{}]}}"#, bytes + 2);
    let header = format!(r#"{{"model.diffusion_model.input_blocks.0.0.weight":{first},"{text}":{other}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes + 2]].concat()
}

/// Checkpoints that this version cannot draw with, and those that are for pictures, are listed as what they are, and are no
/// default.
#[tokio::test]
async fn checkpoints_of_other_architectures_do_not_take_its_place() {
    let (daemon, models) = daemon_over(&[]);
    let folder = models.path().join("Stable-diffusion");
    let paint = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models/demo/library/Stable-diffusion/latentd-demo-inpainting.safetensors");
    fs::copy(paint, folder.join("a-paint.safetensors")).expect("copied");
    fs::write(folder.join("c-large.safetensors"), header_of(4, "conditioner.embedders.0.weight"))
        .expect("written");
    let client = daemon.client().await;
    within(client.rescan()).await.expect("scanned");
    for (name, architecture) in [("a-paint", "sd1-inpainting"), ("c-large", "sdxl")] {
        assert_eq!(entry(&daemon, name).await.architecture.as_deref(), Some(architecture));
    }
    let params = Txt2ImgParams { checkpoint: Some("c-large".into()), ..plain(1) };
    refused(within(client.txt2img(&params)).await, ErrorName::Unsupported);
    let drawn = within(client.txt2img(&plain(1))).await.expect("drawn");
    let [notice] = &drawn.notices[..] else { panic!("{:?}", drawn.notices) };
    assert!(
        notice.contains(NAME) && notice.contains("'a-paint' is of the architecture sd1-inpainting"),
        "{notice}"
    );
    let params = Txt2ImgParams { checkpoint: Some("a-paint".into()), ..plain(1) };
    let drawn = within(client.txt2img(&params)).await.expect("drawn");
    assert!(drawn.images[0].infotext.as_ref().is_some_and(|text| text.contains("Model: a-paint")));

    // One that can be drawn with is taken, whatever comes before it.
    fs::copy(tiny(), folder.join("zebra.safetensors")).expect("copied");
    let small = Txt2ImgParams { width: Some(64), height: Some(64), ..plain(1) };
    within(client.rescan()).await.expect("scanned");
    let drawn = within(client.txt2img(&small)).await.expect("drawn");
    assert!(drawn.images[0].infotext.as_ref().is_some_and(|text| text.contains("Model: zebra")));
}

#[tokio::test]
async fn a_file_of_its_name_takes_its_place() {
    let (daemon, models) = daemon_over(&[(&tiny(), "latentd-demo.safetensors")]);
    let library = within(daemon.client().await.library(&LibraryListParams::default())).await.expect("listed");
    let [listed] = &library.entries[..] else { panic!("{library:?}") };
    assert!(!listed.built_in && listed.path.is_some(), "{listed:?}");
    let small = Txt2ImgParams { width: Some(64), height: Some(64), ..named(1) };
    let tiny_drew = draw(&daemon, &small).await;
    let file = models.path().join("Stable-diffusion/latentd-demo.safetensors");
    // Also when it is broken: who put it there does not mean the other.
    fs::write(&file, b"broken").expect("written");
    refused(within(daemon.client().await.txt2img(&small)).await, ErrorName::Model);
    fs::remove_file(&file).expect("removed");
    let built_in_drew = draw(&daemon, &small).await;
    assert!(tiny_drew.png != built_in_drew.png);
    assert!(entry(&daemon, NAME).await.built_in);
}

/// A LoRA is no checkpoint, whatever its name, and one that is broken is no reason for there being no checkpoint.
#[tokio::test]
async fn files_of_other_kinds_neither_take_its_place_nor_explain_it() {
    let (daemon, models) = daemon_over(&[]);
    let loras = models.path().join("Lora");
    fs::create_dir_all(&loras).expect("made");
    fs::write(loras.join("latentd-demo.safetensors"), b"broken").expect("written");
    let client = daemon.client().await;
    within(client.rescan()).await.expect("scanned");
    let library = within(client.library(&LibraryListParams::default())).await.expect("listed");
    assert_eq!(library.problems.len(), 1, "{library:?}");
    assert!(entry(&daemon, NAME).await.built_in);
    let drawn = within(client.txt2img(&plain(1))).await.expect("drawn");
    let [notice] = &drawn.notices[..] else { panic!("{:?}", drawn.notices) };
    assert!(!notice.contains("Lora"), "{notice}");
}

#[tokio::test]
async fn the_same_seed_draws_the_same_bytes_built_in_or_from_a_file() {
    let (daemon, _models) = daemon_over(&[]);
    let first = draw(&daemon, &plain(7)).await;
    assert!(draw(&daemon, &plain(8)).await.png != first.png, "another seed");
    assert!(draw(&daemon, &plain(7)).await == first);
    assert!(draw(&daemon, &named(7)).await == first);
    let (other, _models) = daemon_over(&[(&checkpoint(), "latentd-demo.safetensors")]);
    assert!(draw(&other, &plain(7)).await == first, "the file it was made of, on another daemon");
}

#[tokio::test]
async fn it_comes_into_memory_and_goes_as_any_other() {
    let (daemon, _models) = daemon_over(&[]);
    let client = daemon.client().await;
    assert!(
        within(client.loaded_models()).await.expect("listed").is_empty(),
        "nothing is unpacked at the start"
    );
    let model = within(client.load_model(NAME)).await.expect("loaded");
    assert_eq!((model.name.as_str(), model.path.as_deref(), model.dtype.as_str()), (NAME, None, "f16"));
    assert!(within(client.pin_model(NAME, true)).await.expect("pinned").pinned);
    assert_eq!(within(client.status()).await.expect("told").models.len(), 1);
    draw(&daemon, &plain(1)).await;
    assert_eq!(within(client.loaded_models()).await.expect("listed").len(), 1, "not loaded twice");
    assert!(within(client.unload_model(NAME)).await.expect("unloaded"));
    assert!(!within(client.unload_model(NAME)).await.expect("was gone"));
    within(client.load_model(&checkpoint_sha256()[..8])).await.expect("by its hash");
}

#[test]
fn bench_measures_it_at_its_own_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(folder.path(), &["bench", "--checkpoint", NAME, "--runs=1", "--steps=1", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((report["width"].as_u64(), report["height"].as_u64()), (Some(128), Some(128)));
}
