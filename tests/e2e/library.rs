//! Files in the models folders: broken ones, new ones, and what they are called.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use latentd_client::Client;
use latentd_client::protocol::{
    ErrorName, EventKind, ImageOut, JobState, LibraryEvent, LibraryGetParams, LibraryKind, LibraryListParams,
    OutputFormat, OutputParams, Txt2ImgParams,
};
use sha2::{Digest, Sha256};

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
    daemon.wait_log("this models folder is not there");
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

fn other() -> PathBuf {
    fixtures().join("Stable-diffusion/tiny-sd1-ema.safetensors")
}

/// The hash that a picture says drew it.
fn model_hash(image: &ImageOut) -> String {
    let infotext = image.infotext.clone().expect("an infotext");
    infotext.split("Model hash: ").nth(1).expect("a hash")[..10].to_owned()
}

fn sha256(file: &Path) -> String {
    let digest = Sha256::digest(fs::read(file).expect("read"));
    digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

async fn names(client: &Client) -> Vec<String> {
    let library = within(client.library(&LibraryListParams::default())).await.expect("listed");
    library.entries.into_iter().filter(|entry| !entry.built_in).map(|entry| entry.name).collect()
}

/// Waits until the daemon has seen by itself that these are there.
async fn wait_names(daemon: &Daemon, client: &Client, expected: &[&str]) {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let found = names(client).await;
        if found == expected {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{found:?}, not {expected:?}\n{}", daemon.log());
        tokio::task::yield_now().await;
    }
}

/// The small checkpoint with the signs of one layer turned round: another picture, of a file with the same header and size.
fn turned() -> Vec<u8> {
    let mut bytes = fs::read(tiny()).expect("read");
    let (length, header) = header(&bytes);
    let offsets = &header["model.diffusion_model.out.2.weight"]["data_offsets"];
    let place = |index: usize| offsets[index].as_u64().expect("an offset") as usize + 8 + length;
    for value in bytes[place(0)..place(1)].chunks_exact_mut(2) {
        value[1] ^= 0x80;
    }
    bytes
}

/// However often the file is another one meanwhile: a picture names the bytes that drew it.
#[tokio::test]
async fn each_picture_names_the_bytes_that_drew_it_while_its_file_is_replaced_all_the_time() {
    let (folder, models) = folder();
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let draw = async |name: &str| {
        let output = OutputParams { format: OutputFormat::Raw, dir: None };
        let params = Txt2ImgParams { checkpoint: Some(name.into()), output, ..small(1) };
        let image = within(client.txt2img(&params)).await.expect("drawn").images.remove(0);
        (model_hash(&image), image.raw.expect("pixels").0)
    };
    let files = [fs::read(tiny()).expect("read"), turned()];
    let mut drawn_by = Vec::new();
    for (name, bytes) in ["one", "two"].into_iter().zip(&files) {
        let path = models.join(format!("{name}.safetensors"));
        fs::write(&path, bytes).expect("written");
        let drawn = draw(name).await;
        assert_eq!(drawn.0, sha256(&path)[..10]);
        drawn_by.push(drawn);
    }
    assert!(drawn_by[0].1 != drawn_by[1].1, "they draw different pictures");
    let done = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&done);
    let (new, file) = (folder.path().join("new"), models.join("good.safetensors"));
    let replacing = std::thread::spawn(move || {
        // Of one size and one time: neither tells them apart.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for bytes in files.iter().cycle() {
            if ended.load(Ordering::Relaxed) {
                return;
            }
            fs::write(&new, bytes).expect("written");
            fs::File::options().write(true).open(&new).expect("opened").set_modified(time).expect("set");
            fs::rename(&new, &file).expect("replaced");
        }
    });
    let mut counts = [0; 2];
    // Until both drew often enough to be mixed up.
    while counts.iter().any(|count| *count < 8) {
        let drawn = draw("good").await;
        let which = drawn_by.iter().position(|by| *by == drawn);
        counts[which.unwrap_or_else(|| panic!("{} did not draw this", drawn.0))] += 1;
        assert!(counts.iter().sum::<i32>() < 1000, "{counts:?}");
    }
    done.store(true, Ordering::Relaxed);
    replacing.join().expect("replaced to the end");
}

#[tokio::test]
async fn folders_that_come_go_or_are_elsewhere_now_are_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |path: &str| folder.path().join(path);
    let put = |path: &str| {
        fs::create_dir_all(at(path).parent().expect("a folder")).expect("made");
        fs::copy(tiny(), at(path)).expect("copied");
    };
    put("one/Stable-diffusion/first.safetensors");
    put("two/Stable-diffusion/second.safetensors");
    std::os::unix::fs::symlink(at("one"), at("models")).expect("linked");
    let late = at("late");
    let flags = vec!["--models-dir".to_owned(), late.display().to_string()];
    let daemon = Daemon::with(Options { models: Some(at("models")), flags, ..Options::default() });
    let client = daemon.client().await;
    wait_names(&daemon, &client, &["first"]).await;
    // Links: of a models folder, of a folder in it, of a file in that.
    std::os::unix::fs::symlink(at("two"), at("new")).expect("linked");
    fs::rename(at("new"), at("models")).expect("turned");
    wait_names(&daemon, &client, &["second"]).await;
    put("elsewhere/Stable-diffusion/third.safetensors");
    std::os::unix::fs::symlink(at("elsewhere"), at("two/more")).expect("linked");
    wait_names(&daemon, &client, &["second", "third"]).await;
    put("elsewhere/Stable-diffusion/deep/fourth.safetensors");
    wait_names(&daemon, &client, &["fourth", "second", "third"]).await;
    fs::remove_dir_all(at("elsewhere/Stable-diffusion")).expect("removed");
    wait_names(&daemon, &client, &["second"]).await;
    std::os::unix::fs::symlink(at("store/fifth"), at("two/Stable-diffusion/fifth.safetensors"))
        .expect("linked");
    put("store/fifth");
    wait_names(&daemon, &client, &["fifth", "second"]).await;
    // Both in the place of what it was when it was watched.
    fs::write(at("store/new"), b"no model").expect("written");
    fs::rename(at("store/new"), at("store/fifth")).expect("replaced");
    wait_names(&daemon, &client, &["second"]).await;
    // A models folder that was not there, and one that is removed and made anew.
    put("late/Stable-diffusion/sixth.safetensors");
    wait_names(&daemon, &client, &["second", "sixth"]).await;
    fs::remove_dir_all(&late).expect("removed");
    wait_names(&daemon, &client, &["second"]).await;
    put("late/Stable-diffusion/seventh.safetensors");
    wait_names(&daemon, &client, &["second", "seventh"]).await;
    fs::remove_dir_all(late.join("Stable-diffusion")).expect("removed");
    wait_names(&daemon, &client, &["second"]).await;
    put("late/Stable-diffusion/eighth.safetensors");
    wait_names(&daemon, &client, &["eighth", "second"]).await;
}

/// A checkpoint that takes long to hash: with metadata, and a tensor that no network has and that takes no place on the disk.
fn large(path: &Path, bytes: u64) {
    let sound = fs::read(tiny()).expect("read");
    let end = (sound.len() - 8 - header(&sound).0) as u64;
    let changed = with_header(&sound, |header| {
        let entry = serde_json::json!({"dtype": "U8", "shape": [bytes], "data_offsets": [end, end + bytes]});
        header.insert("unused".into(), entry);
    });
    fs::write(path, &changed).expect("written");
    let file = fs::File::options().write(true).open(path).expect("opened");
    file.set_len(changed.len() as u64 + bytes).expect("made larger");
}

#[tokio::test]
async fn a_hash_that_is_not_known_is_computed_while_the_job_is_resolving() {
    let (folder, models) = folder();
    fs::remove_file(models.join("good.safetensors")).expect("removed");
    // Hours.
    large(&models.join("a-large.safetensors"), 1 << 42);
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    assert_eq!(names(&client).await, ["a-large"]);
    let params = Txt2ImgParams { checkpoint: Some(sha256(&tiny())[..10].into()), ..small(1) };
    let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    loop {
        match within(events.next()).await.expect("events").kind {
            EventKind::Queued => (),
            EventKind::Progress { stage, step, steps, .. } => {
                assert_eq!((stage.as_deref(), steps), (Some("hashing"), 100));
                assert!(step < 100);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(within(client.job(&job)).await.expect("known").state, JobState::Resolving);
    // Nobody waits for it: other requests are drawn, also those that name a file.
    let mut named = small(1);
    fs::copy(other(), models.join("b-other.safetensors")).expect("copied");
    named.checkpoint = Some("b-other".into());
    within(client.txt2img(&named)).await.expect("drawn");
    // What only looks does not wait either, and says why it finds nothing.
    let get = LibraryGetParams { kind: LibraryKind::Checkpoint, name: "0123456789".into() };
    let text = refused(within(client.library_entry(&get)).await, ErrorName::NotFound);
    assert!(text.contains("are not known yet"), "{text}");
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    fs::remove_file(models.join("a-large.safetensors")).expect("removed");
    fs::copy(tiny(), models.join("c-tiny.safetensors")).expect("copied");
    let image = within(client.txt2img(&params)).await.expect("found and drawn").images.remove(0);
    assert_eq!(model_hash(&image), sha256(&tiny())[..10]);
    let view = within(client.job(&within(client.submit("txt2img", &params, None)).await.expect("again")))
        .await
        .expect("known");
    assert_ne!(view.steps, 100, "what was hashed were no steps");
}

/// A picture that waits for its model's hash does not keep anybody waiting who cancels it.
#[tokio::test]
async fn who_cancels_while_a_model_is_hashed_does_not_wait() {
    let (folder, models) = folder();
    large(&models.join("large.safetensors"), 1 << 42);
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let params = Txt2ImgParams { checkpoint: Some("large".into()), ..small(1) };
    let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    loop {
        match within(events.next()).await.expect("events").kind {
            EventKind::Progress { stage: Some(stage), .. } if stage == "decoding" => break,
            other => assert!(!other.is_last(), "{other:?}"),
        }
    }
    // To hash it all takes about an hour, far more than is waited for here.
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    // And the next has the thread that hashed, and the device.
    let image = within(client.txt2img(&Txt2ImgParams { checkpoint: Some("good".into()), ..small(1) })).await;
    assert_eq!(model_hash(&image.expect("drawn").images[0]), sha256(&tiny())[..10]);
}

#[tokio::test]
async fn the_list_shows_where_files_are_what_they_predict_and_nothing_that_a_terminal_obeys() {
    let (folder, models) = folder();
    fs::write(models.join("bad\u{1b}[31m.safetensors"), b"<html>\x1b[2J").expect("written");
    fs::copy(tiny(), models.join("red\u{1b}[31m.safetensors")).expect("copied");
    fs::write(models.join("good.yaml"), "parameterization: v\n").expect("written");
    let daemon = daemon(folder.path());
    let output = daemon.command(&["models", "list"]).output().expect("ran");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(!text.contains('\u{1b}') && text.contains(r"red\u{1b}[31m"), "{text}");
    let good = text.lines().find(|line| line.contains("good")).expect("listed");
    let path = models.join("good.safetensors").display().to_string();
    assert!(good.contains(&path) && good.contains(" v ") && good.contains("sd1"), "{good}");
    let bad = text.lines().find(|line| line.starts_with("unusable")).expect("listed");
    assert!(bad.contains("is a web page") && bad.contains(r"bad\u{1b}[31m"), "{bad}");
    let library = within(daemon.client().await.library(&LibraryListParams::default())).await.expect("listed");
    assert_eq!(library.default_checkpoint.as_deref(), Some("good"));
    let doctor = daemon.command(&["doctor", "--json"]).output().expect("ran").stdout;
    let doctor: serde_json::Value = serde_json::from_slice(&doctor).expect("JSON");
    assert_eq!(doctor["default_checkpoint"], "good");
}

#[tokio::test]
async fn what_comes_changes_moves_and_goes_is_told_without_being_asked() {
    let (folder, models) = folder();
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    // Until the folders are watched.
    assert_eq!(names(&client).await, ["good"]);
    daemon.wait_log("scanned the models folders");
    let mut events = within(client.subscribe_library()).await.expect("subscribed");
    let lora = br#"{"lora_unet_a.lora_up.weight":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}"#;
    let lora = [&(lora.len() as u64).to_le_bytes()[..], lora, &[0, 0]].concat();
    let folder_of = folder.path().join("Lora");
    fs::create_dir(&folder_of).expect("made");
    fs::write(folder_of.join("new.safetensors"), &lora).expect("written");
    let mut next = async |what: fn(&LibraryEvent) -> bool| loop {
        // What is hashed meanwhile is told of too.
        let event = within(events.next()).await.expect("events");
        if what(&event) {
            return event;
        }
    };
    assert_eq!(next(|event| !event.added.is_empty()).await.added, ["lora/new"]);
    let hashed = next(|event| event.changed.iter().any(|name| name == "lora/new")).await;
    assert!(hashed.added.is_empty() && hashed.removed.is_empty(), "{hashed:?}");
    let get = |name: &str| LibraryGetParams { kind: LibraryKind::Lora, name: name.into() };
    let entry = within(client.library_entry(&get("new"))).await.expect("found");
    let hash = entry.hash.expect("hashed in the background");
    assert_eq!(entry.auto_v2.as_deref(), Some(&hash[..10]));
    fs::rename(folder_of.join("new.safetensors"), folder_of.join("moved.safetensors")).expect("moved");
    let moved = next(|event| !event.added.is_empty()).await;
    assert_eq!(
        (&moved.added[..], &moved.removed[..]),
        (&["lora/moved".into()][..], &["lora/new".into()][..])
    );
    assert_eq!(within(client.library_entry(&get("moved"))).await.expect("found").hash, Some(hash));
    fs::write(folder_of.join("moved.json"), br#"{"notes": "say \u001b[31m this"}"#).expect("written");
    assert_eq!(next(|event| !event.changed.is_empty()).await.changed, ["lora/moved"]);
    let shown = daemon.command(&["models", "show", "lora", "moved"]).output().expect("ran").stdout;
    let shown = String::from_utf8(shown).expect("text");
    assert!(shown.contains(r"notes          say \u{1b}[31m this") && shown.contains("SHA-256"), "{shown}");
    fs::remove_file(folder_of.join("moved.safetensors")).expect("removed");
    assert_eq!(next(|event| !event.removed.is_empty()).await.removed, ["lora/moved"]);
    drop(models);
}

#[tokio::test]
async fn folders_for_one_kind_are_given_as_a1111_names_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let webui = folder.path().join("webui");
    for path in ["webui/models/Stable-diffusion", "webui/embeddings", "webui/outputs", "more"] {
        fs::create_dir_all(folder.path().join(path)).expect("made");
    }
    fs::copy(tiny(), webui.join("models/Stable-diffusion/one.safetensors")).expect("copied");
    fs::copy(tiny(), webui.join("outputs/none.safetensors")).expect("copied");
    fs::copy(tiny(), folder.path().join("more/two.safetensors")).expect("copied");
    let more = folder.path().join("more").display().to_string();
    let missing = folder.path().join("missing").display().to_string();
    let flags = ["--ckpt-dir", &more, "--lyco-dir", &missing].map(str::to_owned).to_vec();
    let daemon = Daemon::with(Options { models: Some(webui), flags, ..Options::default() });
    let client = daemon.client().await;
    assert_eq!(names(&client).await, ["one", "two"]);
    let library = within(client.library(&LibraryListParams::default())).await.expect("listed");
    assert!(matches!(&library.problems[..], [problem] if problem.path == missing), "{:?}", library.problems);
}
