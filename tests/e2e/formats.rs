//! Checkpoints in every container, as people have them, through the daemon: found, drawn with, held as they were; and files
//! of every container that were made to do harm.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use latentd_client::protocol::{ErrorName, LibraryListParams, Precision, Txt2ImgParams};

use crate::harness::{Daemon, Options, refused, small, within};

fn containers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/containers")
}

fn unpack(name: &str, to: &Path) {
    let packed = File::open(containers().join(name)).expect("opened");
    let mut bytes = vec![];
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("unpacked");
    fs::write(to, bytes).expect("written");
}

/// A models folder with a checkpoint in every container.
fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = folder.path().join("Stable-diffusion");
    fs::create_dir(&checkpoints).expect("made");
    for (packed, name) in [
        ("checkpoint.safetensors.gz", "one.safetensors"),
        ("checkpoint-zip.ckpt.gz", "one-zip.ckpt"),
        ("checkpoint-legacy.ckpt.gz", "one-legacy.ckpt"),
        ("tiny-q8_0.safetensors.gz", "two.safetensors"),
        ("tiny-q8_0.gguf.gz", "two-q8_0.gguf"),
        ("cpp-q8_0.safetensors.gz", "three.safetensors"),
        ("cpp-q8_0.gguf.gz", "three-cpp.gguf"),
    ] {
        unpack(packed, &checkpoints.join(name));
    }
    let archive = containers().join("diffusers.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&checkpoints).status();
    assert!(unpacked.expect("ran").success());
    fs::rename(checkpoints.join("ldm.safetensors"), checkpoints.join("four.safetensors")).expect("moved");
    fs::remove_file(checkpoints.join("sha256.json")).expect("removed");
    // Configurations alone.
    fs::remove_dir_all(checkpoints.join("v")).expect("removed");
    folder
}

fn daemon(folder: &Path) -> Daemon {
    Daemon::with(Options { models: Some(folder.to_owned()), ..Options::default() })
}

fn request(checkpoint: &str) -> Txt2ImgParams {
    Txt2ImgParams { checkpoint: Some(checkpoint.into()), precision: Precision::F32, ..small(5) }
}

async fn pixels(client: &latentd_client::Client, checkpoint: &str) -> Vec<u8> {
    let drawn = within(client.txt2img(&request(checkpoint))).await;
    let image = drawn.unwrap_or_else(|error| panic!("{checkpoint}: {error}")).images.remove(0);
    let text = image.infotext.expect("a text");
    assert!(text.contains(&format!("Model: {checkpoint},")) && text.contains("Model hash: "), "{text}");
    let picture = latentd_models::image::Picture::decode(&image.png.expect("a PNG").0, 1 << 20);
    picture.expect("a picture").into_rgb().pixels
}

#[tokio::test]
async fn every_container_draws_what_its_safetensors_draw() {
    let folder = models();
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    for (first, others) in [
        ("one", &["one-zip", "one-legacy"][..]),
        ("two", &["two-q8_0"]),
        ("three", &["three-cpp"]),
        ("four", &["plain", "sharded", "bin"]),
    ] {
        let expected = pixels(&client, first).await;
        for other in others {
            assert!(pixels(&client, other).await == expected, "{other} draws what {first} draws");
        }
    }
    pixels(&client, "fp16").await;
    // A VAE alone in diffusers' layout, with the names that its attention had first, is the checkpoint's own.
    let by_vae = Txt2ImgParams { vae: Some("vae-old".into()), ..request("four") };
    let own = within(client.txt2img(&request("four"))).await.expect("drawn").images.remove(0);
    let image = within(client.txt2img(&by_vae)).await.expect("drawn").images.remove(0);
    let decoded = |png: Option<latentd_client::protocol::Bytes>| {
        let picture = latentd_models::image::Picture::decode(&png.expect("a PNG").0, 1 << 20);
        picture.expect("a picture").into_rgb().pixels
    };
    assert!(image.infotext.expect("a text").contains("VAE: vae-old.safetensors"));
    assert_eq!(decoded(image.png), decoded(own.png));
    let listed = within(client.library(&LibraryListParams::default())).await.expect("listed");
    assert!(listed.problems.is_empty(), "{:?}", listed.problems);
    let formats: Vec<_> = listed.entries.iter().filter_map(|entry| entry.format.as_deref()).collect();
    for format in ["safetensors", "gguf", "folder"] {
        assert!(formats.contains(&format), "{formats:?}");
    }
    // A folder is one model, and its name a hash as that of a file.
    let folder = listed.entries.iter().find(|entry| entry.name == "sharded").expect("there");
    let hash = folder.hash.as_deref().expect("known since it was drawn with");
    assert_eq!(hash.len(), 64);
    assert_eq!(pixels(&client, &folder.name).await, pixels(&client, "four").await);
}

#[tokio::test]
async fn a_model_of_a_folder_is_drawn_as_it_was_or_not_at_all() {
    let folder = models();
    let checkpoints = folder.path().join("Stable-diffusion");
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let before = pixels(&client, "plain").await;
    // Replaced as a whole: it is the other one from now on, which has another configuration.
    let scheduler = checkpoints.join("fp16/scheduler/scheduler_config.json");
    let text = fs::read_to_string(&scheduler).expect("read");
    fs::write(&scheduler, text.replace("\"epsilon\"", "\"v_prediction\"")).expect("written");
    fs::rename(checkpoints.join("plain"), checkpoints.join("old")).expect("moved");
    fs::rename(checkpoints.join("fp16"), checkpoints.join("plain")).expect("moved");
    let after = pixels(&client, "plain").await;
    assert!(before != after);
    assert_eq!(pixels(&client, "old").await, before);
    // A file of it is gone: an error that names it, and the next job is fine.
    fs::remove_file(checkpoints.join("old/vae/diffusion_pytorch_model.safetensors")).expect("removed");
    within(client.rescan()).await.expect("scanned");
    let text = refused(within(client.txt2img(&request("old"))).await, ErrorName::Model);
    assert!(text.contains("vae"), "{text}");
    assert_eq!(pixels(&client, "plain").await, after);
}

/// A ZIP as torch writes one, with this pickle and no storages; nothing is compressed.
fn zip(pickle: &[u8]) -> Vec<u8> {
    let name = b"archive/data.pkl";
    let header = |central: bool| {
        let mut bytes = if central { b"PK\x01\x02\x14\x00".to_vec() } else { b"PK\x03\x04".to_vec() };
        bytes.extend([20, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        // No checksum: torch may be told to write none.
        bytes.extend([0; 4]);
        bytes.extend((pickle.len() as u32).to_le_bytes());
        bytes.extend((pickle.len() as u32).to_le_bytes());
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        if central {
            bytes.extend([0; 14]);
        }
        bytes.extend(name);
        bytes
    };
    let mut bytes = header(false);
    bytes.extend(pickle);
    let (start, directory) = (bytes.len() as u32, header(true));
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

#[tokio::test]
async fn files_made_to_do_harm_cost_nobody_anything() {
    let folder = models();
    let checkpoints = folder.path().join("Stable-diffusion");
    let canary = folder.path().join("canary");
    let call = |module: &str, name: &str| {
        let command = format!("touch {}", canary.display());
        let mut pickle = format!("\x63{module}\n{name}\n(X").into_bytes();
        pickle.extend((command.len() as u32).to_le_bytes());
        pickle.extend(command.into_bytes());
        pickle.extend(b"tR.");
        [b"\x80\x02".to_vec(), pickle].concat()
    };
    let gguf = |tensors: u64, values: u64| {
        [b"GGUF\x03\x00\x00\x00".as_slice(), &tensors.to_le_bytes(), &values.to_le_bytes()].concat()
    };
    let whole = |name: &str| fs::read(checkpoints.join(name)).expect("read");
    let mut files: Vec<(String, Vec<u8>)> = vec![
        (
            "memo.ckpt".into(),
            zip(&[b"\x80\x02".to_vec(), b"]\x94".repeat(3_000_000), b".".to_vec()].concat()),
        ),
        ("text.ckpt".into(), zip(b"\x80\x04\x8d\xff\xff\xff\xff\x00\x00\x00\x00x.")),
        ("deep.ckpt".into(), zip(&[b"\x80\x02".to_vec(), b"(".repeat(5_000_000), b".".to_vec()].concat())),
        ("counts.gguf".into(), gguf(u64::MAX, u64::MAX)),
        ("values.gguf".into(), gguf(0, 1 << 62)),
        ("lies.safetensors".into(), [&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
    ];
    for (module, name) in
        [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("subprocess", "Popen")]
    {
        files.push((format!("call-{module}-{name}.ckpt"), zip(&call(module, name))));
        files.push((format!("call-{module}-{name}.pt"), call(module, name)));
    }
    for name in ["one-zip.ckpt", "one-legacy.ckpt", "two-q8_0.gguf", "one.safetensors"] {
        let bytes = whole(name);
        for part in 1..8 {
            let (stem, ending) = name.rsplit_once('.').expect("an ending");
            files.push((format!("cut-{part}-{stem}.{ending}"), bytes[..bytes.len() * part / 8].to_vec()));
        }
    }
    for (name, bytes) in &files {
        File::create(checkpoints.join(name)).and_then(|mut file| file.write_all(bytes)).expect("written");
    }
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let listed = within(client.library(&LibraryListParams::default())).await.expect("listed");
    for (name, _) in &files {
        let problem = listed.problems.iter().find(|problem| problem.path.ends_with(&format!("/{name}")));
        assert!(!problem.expect(name).reason.is_empty());
        let stem = name.rsplit_once('.').expect("an ending").0;
        refused(within(client.txt2img(&request(stem))).await, ErrorName::Model);
    }
    assert!(!canary.exists(), "nothing ran");
    pixels(&client, "one-zip").await;
}
