//! Files in the models folders: broken ones, new ones, and what they are called.

use std::fs;
use std::path::{Path, PathBuf};

use latentd_client::protocol::{ErrorName, LibraryGetParams, LibraryKind, LibraryListParams};

use crate::harness::{Daemon, Options, SOON, fixtures, refused, small, within};

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let models = folder.path().join("Stable-diffusion");
    fs::create_dir(&models).expect("made");
    fs::copy(tiny(), models.join("good.safetensors")).expect("copied");
    (folder, models)
}

fn tiny() -> PathBuf {
    fixtures().join("Stable-diffusion/tiny-sd1.safetensors")
}

fn daemon(folder: &Path) -> Daemon {
    Daemon::with(Options { models: Some(folder.to_owned()), ..Options::default() })
}

/// The header's length, and the header.
fn header(bytes: &[u8]) -> (usize, serde_json::Value) {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    (length, serde_json::from_slice(&bytes[8..8 + length]).expect("JSON"))
}

/// The file with another header; offsets stay true, as they count from the header's end.
fn with_header(
    bytes: &[u8],
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) -> Vec<u8> {
    let (length, mut header) = header(bytes);
    change(header.as_object_mut().expect("a map"));
    let mut text = serde_json::to_vec(&header).expect("JSON");
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut changed = (text.len() as u64).to_le_bytes().to_vec();
    changed.extend(text);
    changed.extend(&bytes[8 + length..]);
    changed
}

#[tokio::test]
async fn broken_files_fail_their_job_alone() {
    let (folder, models) = folder();
    let bytes = fs::read(tiny()).expect("read");
    let mut bad_length = bytes.clone();
    bad_length[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut nan = bytes.clone();
    let start = 8 + header(&bytes).0;
    for pair in nan[start..].chunks_exact_mut(2) {
        pair.copy_from_slice(&0x7e00_u16.to_le_bytes());
    }
    let unet =
        |name: &str| name.starts_with("model.diffusion_model.") && name.ends_with("in_layers.2.weight");
    let files: [(&str, Vec<u8>); 6] = [
        ("bad-length", bad_length),
        ("truncated", bytes[..bytes.len() - 1].to_vec()),
        ("pickle", b"\x80\x02}q\x00.".to_vec()),
        ("nan", nan),
        (
            "missing",
            with_header(&bytes, |header| {
                let name = header.keys().find(|name| unet(name)).cloned().expect("a tensor");
                header.remove(&name);
            }),
        ),
        (
            "overlapping",
            with_header(&bytes, |header| {
                let mut offsets = header.values_mut().filter_map(|tensor| tensor.get_mut("data_offsets"));
                let first = offsets.next().expect("a tensor").clone();
                *offsets.next().expect("another") = first;
            }),
        ),
    ];
    for (name, bytes) in &files {
        fs::write(models.join(format!("{name}.safetensors")), bytes).expect("written");
    }
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    for (name, _) in &files {
        let mut params = small(1);
        params.checkpoint = Some((*name).into());
        let text = refused(within(client.txt2img(&params)).await, ErrorName::Model);
        assert!(!text.is_empty(), "{name}");
        params.checkpoint = Some("good".into());
        params.steps = 1;
        within(client.txt2img(&params)).await.expect("the next job is fine");
    }
}

#[tokio::test]
async fn names_paths_and_hashes_find_a_file() {
    let (folder, _) = folder();
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    within(client.load_model("good")).await.expect("loaded");
    let mut params = small(1);
    params.checkpoint = Some("good".into());
    within(client.txt2img(&params)).await.expect("drawn");
    let entry = |name: &str| LibraryGetParams { kind: LibraryKind::Checkpoint, name: name.into() };
    let found = within(client.library_entry(&entry("good"))).await.expect("found");
    let hash = found.hash.clone().expect("hashed when it was used");
    let absolute = folder.path().join("Stable-diffusion/good.safetensors").display().to_string();
    for name in [
        "good.safetensors",
        "Stable-diffusion/good",
        "Stable-diffusion/good.safetensors",
        &absolute,
        &hash[..10],
    ] {
        assert_eq!(within(client.library_entry(&entry(name))).await.expect("found"), found, "{name}");
    }
    refused(within(client.library_entry(&entry(&hash[..4]))).await, ErrorName::NotFound);
    // Memory is managed by the same names.
    assert_eq!(within(client.loaded_models()).await.expect("listed").len(), 1);
    assert!(within(client.pin_model("good", true)).await.expect("pinned").pinned);
    assert!(within(client.unload_model("good")).await.expect("unloaded"));
    assert!(!within(client.unload_model("good")).await.expect("was gone"));
}

#[tokio::test]
async fn a_file_is_taken_up_once_it_is_whole() {
    let (folder, models) = folder();
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let watching = client.subscribe_all().await.expect("subscribed");
    let names = async || {
        let library = within(client.library(&LibraryListParams::default())).await.expect("listed");
        library.entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["good"]);
    let bytes = fs::read(tiny()).expect("read");
    let copy = models.join("copied.safetensors");
    fs::write(&copy, &bytes[..bytes.len() / 2]).expect("written");
    within(client.rescan()).await.expect("scanned");
    assert_eq!(names().await, ["good"], "half a file is not there");
    fs::write(&copy, &bytes).expect("written");
    // Nobody asks for a scan now: the change itself is seen.
    let deadline = tokio::time::Instant::now() + SOON;
    while names().await != ["copied", "good"] {
        assert!(tokio::time::Instant::now() < deadline, "{}", daemon.log());
        tokio::task::yield_now().await;
    }
    drop(watching);
    let mut params = small(1);
    params.checkpoint = Some("copied".into());
    within(client.txt2img(&params)).await.expect("drawn");
}

#[tokio::test]
async fn folders_may_be_links_in_circles_or_empty() {
    let (folder, models) = folder();
    std::os::unix::fs::symlink(&models, models.join("circle")).expect("linked");
    std::os::unix::fs::symlink(folder.path(), models.join("up")).expect("linked");
    let daemon = daemon(folder.path());
    let library = within(daemon.client().await.library(&LibraryListParams::default())).await.expect("listed");
    assert_eq!(library.entries.len(), 1, "{library:?}");
    let empty = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::with(Options { models: Some(empty.path().to_owned()), ..Options::default() });
    let mut params = small(1);
    params.checkpoint = None;
    let text = refused(within(daemon.client().await.txt2img(&params)).await, ErrorName::NotFound);
    assert!(text.contains("put a .safetensors file into"), "{text}");
}
