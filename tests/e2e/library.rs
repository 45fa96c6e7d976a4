//! Files in the models folders: broken ones, new ones, and what they are called.

use std::fs;
use std::path::{Path, PathBuf};

use latentd_client::protocol::{ErrorName, LibraryGetParams, LibraryKind, LibraryListParams, Txt2ImgParams};

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

/// What a request gets that names no checkpoint where there is none: the built-in one and a notice, or an error.
async fn without_checkpoints(daemon: &Daemon) -> String {
    let params = Txt2ImgParams { checkpoint: None, ..small(1) };
    let outcome = within(daemon.client().await.txt2img(&params)).await;
    if cfg!(feature = "demo") {
        outcome.expect("drawn").notices.concat()
    } else {
        refused(outcome, ErrorName::NotFound)
    }
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
        let files = library.entries.into_iter().filter(|entry| !entry.built_in);
        files.map(|entry| entry.name).collect::<Vec<_>>()
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
    assert_eq!(library.entries.iter().filter(|entry| !entry.built_in).count(), 1, "{library:?}");
    let empty = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::with(Options { models: Some(empty.path().to_owned()), ..Options::default() });
    let text = without_checkpoints(&daemon).await;
    assert!(text.contains("put a .safetensors file into"), "{text}");
}

/// Makes a folder in a folder, and so on, deeper than a path may be long: one chain is hung under the other.
fn nest_folders(models: &Path) {
    const CHAIN: usize = 1800;
    let chain = |name: &str| models.join(name).join("d/".repeat(CHAIN));
    let end = chain("deep");
    fs::create_dir_all(&end).expect("made");
    for _ in 0..2 {
        fs::create_dir_all(chain("next")).expect("made");
        // Under the first chain's end; the longer chain becomes the tail of the next.
        fs::rename(models.join("deep"), chain("next").join("d")).expect("moved");
        fs::rename(models.join("next"), models.join("deep")).expect("moved");
    }
}

#[tokio::test]
async fn odd_things_in_a_models_folder_hurt_nobody() {
    let (folder, models) = folder();
    let fifo = std::ffi::CString::new(models.join("pipe.safetensors").into_os_string().into_encoded_bytes());
    // SAFETY: the path is a NUL-terminated string that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(fifo.expect("no NUL").as_ptr(), 0o600) }, 0);
    for (target, name) in [("/dev/zero", "device"), ("nowhere", "dangling"), ("self.safetensors", "self")] {
        std::os::unix::fs::symlink(target, models.join(format!("{name}.safetensors"))).expect("linked");
    }
    fs::create_dir(models.join("folder.safetensors")).expect("made");
    fs::write(models.join("empty.safetensors"), b"").expect("written");
    nest_folders(&models);
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let library = within(client.library(&LibraryListParams::default())).await.expect("listed");
    let files = library.entries.iter().filter(|entry| !entry.built_in);
    assert_eq!(files.map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["good"]);
    assert!(library.problems.iter().any(|problem| problem.path.ends_with("empty.safetensors")));
    // And changes are seen all the same.
    fs::copy(tiny(), models.join("later.safetensors")).expect("copied");
    let params = Txt2ImgParams { checkpoint: Some("later".into()), ..small(1) };
    within(client.txt2img(&params)).await.expect("drawn");
    // Too deep for the folder's own end.
    assert!(std::process::Command::new("rm").arg("-rf").arg(&models).status().expect("ran").success());
}

#[tokio::test]
async fn a_new_or_replaced_file_is_used_by_the_very_next_job() {
    let (folder, models) = folder();
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let draw = async |name: &str| {
        let params = Txt2ImgParams { checkpoint: Some(name.into()), ..small(1) };
        within(client.txt2img(&params)).await.expect("drawn").images.remove(0)
    };
    let first = draw("good").await;
    within(client.pin_model("good", true)).await.expect("pinned");
    // Nobody waits for the daemon to notice.
    let other = fixtures().join("Stable-diffusion/tiny-sd1-ema.safetensors");
    fs::copy(&other, folder.path().join("new")).expect("copied");
    fs::rename(folder.path().join("new"), models.join("good.safetensors")).expect("replaced");
    let second = draw("good").await;
    assert!(first.png != second.png, "the new content is drawn with");
    let hash = |image: &latentd_client::protocol::ImageOut| {
        let infotext = image.infotext.clone().expect("an infotext");
        infotext.split("Model hash: ").nth(1).expect("a hash")[..10].to_owned()
    };
    assert_ne!(hash(&first), hash(&second), "and named");
    let loaded = within(client.loaded_models()).await.expect("listed");
    assert!(loaded.len() == 1 && loaded[0].pinned, "pinned by its name: {loaded:?}");
    // Configurations beside a file belong to it.
    let config = models.join("good.yaml");
    fs::write(&config, "model:\n  params:\n    parameterization: \"v\"\n").expect("written");
    assert!(draw("good").await.png != second.png, "its prediction is taken for v");
    fs::write(&config, "parameterization: x0\n").expect("written");
    let strange = Txt2ImgParams { checkpoint: Some("good".into()), ..small(1) };
    refused(within(client.txt2img(&strange)).await, ErrorName::Unsupported);
    fs::remove_file(&config).expect("removed");
    assert!(draw("good").await.png == second.png);
    fs::copy(&other, models.join("added.safetensors")).expect("copied");
    assert_eq!(hash(&draw("added").await), hash(&second));
    fs::remove_file(models.join("added.safetensors")).expect("removed");
    let gone = Txt2ImgParams { checkpoint: Some("added".into()), ..small(1) };
    refused(within(client.txt2img(&gone)).await, ErrorName::NotFound);
}

#[tokio::test]
async fn a_file_copied_in_pieces_is_never_half_there() {
    let (folder, models) = folder();
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let bytes = fs::read(tiny()).expect("read");
    let mut copy = fs::File::create(models.join("slow.safetensors")).expect("made");
    let params = Txt2ImgParams { checkpoint: Some("slow".into()), ..small(1) };
    for piece in bytes.chunks(bytes.len() / 7) {
        refused(within(client.txt2img(&params)).await, ErrorName::Model);
        std::io::Write::write_all(&mut copy, piece).expect("written");
    }
    within(client.txt2img(&params)).await.expect("whole");
}

#[tokio::test]
async fn a_models_folder_that_cannot_be_made_is_no_end() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), b"").expect("written");
    let models = folder.path().join("file/models");
    let daemon = self::daemon(&models);
    let text = without_checkpoints(&daemon).await;
    assert!(text.contains("--models-dir"), "{text}");
    daemon.wait_log("models folder cannot be made");
    // Once it is there it is found.
    fs::remove_file(folder.path().join("file")).expect("removed");
    fs::create_dir_all(models.join("Stable-diffusion")).expect("made");
    fs::copy(tiny(), models.join("Stable-diffusion/tiny.safetensors")).expect("copied");
    let params = Txt2ImgParams { checkpoint: None, ..small(1) };
    let drawn = within(daemon.client().await.txt2img(&params)).await.expect("drawn");
    assert_eq!(drawn.notices, [""; 0]);
    assert!(drawn.images[0].infotext.as_ref().is_some_and(|text| text.contains("Model: tiny,")));
}

/// A daemon of another user, who cannot read everything. `None` where this cannot be tried.
#[allow(clippy::print_stderr)]
fn daemon_of_nobody(models: &Path) -> Option<Daemon> {
    if latentd_client::socket::effective_user() != 0 {
        eprintln!("skipped: only root can act as another user");
        return None;
    }
    Some(Daemon::with(Options { models: Some(models.to_owned()), user: Some(65534), ..Options::default() }))
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_named_and_taken_up_when_it_may() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, models) = folder();
    let secret = models.join("secret.safetensors");
    fs::copy(tiny(), &secret).expect("copied");
    let rights = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("set");
    rights(&secret, 0o600);
    rights(folder.path(), 0o755);
    let Some(daemon) = daemon_of_nobody(folder.path()) else {
        return;
    };
    // The daemon serves its own user alone, so its command line asks.
    let list = || {
        let mut command = daemon.command(&["models", "list"]);
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
        String::from_utf8_lossy(&command.output().expect("ran").stdout).into_owned()
    };
    let text = list();
    assert!(text.contains("secret.safetensors: cannot be read: Permission denied"), "{text}");
    rights(&secret, 0o644);
    let mut rescan = daemon.command(&["models", "rescan"]);
    std::os::unix::process::CommandExt::uid(&mut rescan, 65534);
    assert!(rescan.status().expect("ran").success());
    let text = list();
    assert!(!text.contains("Permission denied") && text.contains("secret"), "{text}");
}
