//! Models in diffusers' layout: the same numbers and the same picture as the LDM file of the same weights, and folders
//! that are not what they should be.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use latentd_models::files::{self, FileKind, Layout, Prediction, inspect};
use latentd_models::model::{Checkpoint, ComponentKind, Model};
use latentd_models::nn::Precision;
use latentd_models::pipeline::{LatentDecoder, NoStages, NoWatch, Txt2Img, txt2img};
use latentd_models::prompt::Reading;
use latentd_models::sampling::{NoiseSource, Sampler, Schedule};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// What `tests/fixtures/containers_diffusers.py` wrote.
pub struct Fixture(TempDir);

impl Fixture {
    pub fn unpack() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let archive =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/containers/diffusers.tar.gz");
        let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()).status();
        assert!(unpacked.expect("ran").success());
        Self(folder)
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// LDM's names and the elements' digests, as diffusers reads and maps them.
    fn digests(&self, dtype: &str) -> BTreeMap<String, String> {
        let json = fs::read(self.at("sha256.json")).expect("read");
        let mut json: Value = serde_json::from_slice(&json).expect("JSON");
        serde_json::from_value(json[dtype].take()).expect("a map of texts")
    }
}

fn digest(bytes: &[u8]) -> String {
    let [a, b, c, d, e, f, g, h, ..] = Sha256::digest(bytes)[..] else { panic!("32 bytes") };
    format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

/// By the names that loaders ask for.
pub fn digests_of(path: &Path) -> BTreeMap<String, String> {
    let file = files::open(path).expect("opens");
    let tensors = file.under("").map(|tensor| tensor.expect("read"));
    tensors.map(|tensor| (tensor.name.to_owned(), digest(&tensor.bytes))).collect()
}

fn picture(path: &Path) -> Vec<u8> {
    let model = Model::open(path, Precision::F32).expect("opens");
    let request = Txt2Img {
        prompt: "a red circle".into(),
        negative_prompt: "blurry".into(),
        reading: Reading::default(),
        embeddings: Arc::default(),
        seed: 42,
        steps: 3,
        cfg_scale: 7.0,
        width: 64,
        height: 64,
        sampler: Sampler::from_name("Euler a").expect("a sampler"),
        schedule: Schedule::Automatic,
        batch_size: 1,
        n_iter: 1,
        clip_skip: 1,
        rng: NoiseSource::Nv,
        pad_cond_uncond: false,
        pad_cond_uncond_v0: false,
        decoder: LatentDecoder::Vae,
        ..Txt2Img::default()
    };
    let drawn = txt2img(&model.facts(), &mut &model, &request, &mut NoWatch, &mut NoStages).expect("draws");
    drawn[0].image.pixels.clone()
}

#[test]
fn every_form_has_the_numbers_that_diffusers_reads() {
    let fixture = Fixture::unpack();
    for (name, dtype, format) in [
        ("ldm.safetensors", "f32", "safetensors"),
        ("plain", "f32", "folder"),
        ("sharded", "f32", "folder"),
        ("fp16", "f16", "folder"),
        ("bin", "f32", "folder"),
    ] {
        let path = fixture.at(name);
        let info = inspect(&path).expect("inspects");
        let found = digests_of(&path);
        let wanted = fixture.digests(dtype);
        assert_eq!(found.len(), 718, "{name}");
        assert!(
            found == wanted,
            "{name}: {:?}",
            found.iter().find(|(name, digest)| wanted.get(*name) != Some(digest))
        );
        let layout = if format == "folder" { Layout::Diffusers } else { Layout::Ldm };
        assert_eq!(
            (info.kind, info.format, info.layout),
            (FileKind::Checkpoint, format, Some(layout)),
            "{name}"
        );
        assert_eq!((info.architecture.as_deref(), info.dtype.as_str()), (Some("sd1"), dtype), "{name}");
    }
}

#[test]
fn a_folder_draws_what_the_file_of_the_same_weights_draws() {
    let fixture = Fixture::unpack();
    let wanted = picture(&fixture.at("ldm.safetensors"));
    assert!(wanted.iter().any(|value| *value != wanted[0]), "it is a picture");
    for name in ["plain", "sharded"] {
        assert!(picture(&fixture.at(name)) == wanted, "{name}: each byte the same");
    }
}

#[test]
fn configurations_say_what_is_predicted_and_how_large_pictures_are() {
    let fixture = Fixture::unpack();
    let folder = fixture.at("plain");
    let scheduler = folder.join("scheduler/scheduler_config.json");
    let opened =
        || Checkpoint::open(&folder).map(|checkpoint| (checkpoint.prediction, checkpoint.native_size));
    assert_eq!(opened().expect("opens"), (Prediction::Epsilon, (64, 64)));
    fs::copy(fixture.at("v/scheduler/scheduler_config.json"), &scheduler).expect("copied");
    assert_eq!(opened().expect("opens").0, Prediction::Velocity);
    fs::remove_file(&scheduler).expect("removed");
    assert_eq!(opened().expect("opens").0, Prediction::Epsilon, "nothing says otherwise");

    // A folder's name has no ending, so nothing beside it is its configuration.
    fs::write(fixture.at("plain.yaml"), "parameterization: v").expect("written");
    assert_eq!(opened().expect("opens").0, Prediction::Epsilon);

    let config = folder.join("unet/config.json");
    for (size, expected) in [
        (json!(96), (768, 768)),
        (json!([64, 96]), (768, 512)),
        (json!(null), (512, 512)),
        (json!("64"), (512, 512)),
        (json!(7), (512, 512)),
        (json!(u64::MAX), (512, 512)),
        (json!([64]), (512, 512)),
    ] {
        fs::write(&config, json!({"sample_size": size}).to_string()).expect("written");
        assert_eq!(opened().expect("opens").1, expected, "{size}");
    }

    let deep = "[".repeat(100_000);
    for (text, reason) in [
        (json!({"prediction_type": "sample"}).to_string(), "predicts \"sample\""),
        (json!({"prediction_type": 7}).to_string(), "scheduler_config.json: is no configuration"),
        ("{".to_owned(), "scheduler_config.json: is no configuration"),
        (format!("{{\"prediction_type\": {deep}"), "scheduler_config.json: is no configuration"),
        (" ".repeat(2 << 20), "scheduler_config.json: is larger than"),
    ] {
        fs::write(&scheduler, &text).expect("written");
        let error = opened().expect_err("must be refused").to_string();
        assert!(error.contains(reason), "{error}");
    }
    fs::remove_file(&scheduler).expect("removed");
    fs::write(&config, format!("{{\"sample_size\": {deep}")).expect("written");
    let error = opened().expect_err("must be refused").to_string();
    assert!(error.contains("unet/config.json: is no configuration"), "{error}");
}

/// What is in single files in diffusers' names, alone or side by side.
#[test]
fn networks_in_single_files_are_known_by_what_they_hold() {
    let fixture = Fixture::unpack();
    let ldm = fixture.digests("f32");
    let vae = |(name, digest): (&String, &String)| {
        let name = name.strip_prefix("first_stage_model.")?;
        Some((format!("first_stage_model.{name}"), digest.clone()))
    };
    let wanted: BTreeMap<_, _> = ldm.iter().filter_map(vae).collect();
    for name in ["plain/vae/diffusion_pytorch_model.safetensors", "vae-old.safetensors"] {
        let info = inspect(&fixture.at(name)).expect("inspects");
        assert_eq!((info.kind, info.layout), (FileKind::Vae, Some(Layout::Diffusers)), "{name}");
        assert!(digests_of(&fixture.at(name)) == wanted, "{name}");
    }

    // In LDM's names, without a checkpoint's prefix.
    let tensors = read(&fixture.at("ldm.safetensors"));
    let alone = fixture.at("vae.safetensors");
    write(
        &alone,
        tensors.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix("first_stage_model.")?.to_owned(), tensor.clone()))
        }),
    );
    let info = inspect(&alone).expect("inspects");
    assert_eq!((info.kind, info.layout), (FileKind::Vae, Some(Layout::Ldm)));
    assert!(digests_of(&alone) == wanted);

    let unet = fixture.at("plain/unet/diffusion_pytorch_model.safetensors");
    assert_eq!(inspect(&unet).expect("inspects").layout, Some(Layout::Diffusers));
    let error = Checkpoint::open(&unet).err().expect("refused").to_string();
    assert!(error.contains("holds a UNet") && error.contains("no text encoder"), "{error}");

    // Side by side, and with the names that transformers gave the text encoder until version 5.
    let merged = fixture.at("merged.safetensors");
    let parts = [
        ("unet", "unet", "diffusion_pytorch_model"),
        ("vae", "vae", "diffusion_pytorch_model"),
        ("text_encoder", "text_encoder.text_model", "model"),
    ];
    let parts = parts.into_iter().flat_map(|(folder, prefix, file)| {
        let part = read(&fixture.at(&format!("plain/{folder}/{file}.safetensors")));
        part.into_iter().map(move |(name, tensor)| (format!("{prefix}.{name}"), tensor))
    });
    write(&merged, parts);
    assert!(digests_of(&merged) == ldm);
    Checkpoint::open(&merged).expect("opens");
}

/// One of the two would not be seen.
#[test]
fn two_tensors_of_one_name_are_refused() {
    let fixture = Fixture::unpack();
    let query = "encoder.mid_block.attentions.0.query.weight";
    let first = "vae.decoder.conv_in.weight";
    for (prefix, added, second) in [
        ("", "encoder.mid_block.attentions.0.to_q.weight", query),
        ("vae.", "first_stage_model.decoder.conv_in.weight", first),
    ] {
        let tensors = read(&fixture.at("vae-old.safetensors")).into_iter();
        let mut tensors: BTreeMap<_, _> =
            tensors.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        tensors.insert(added.to_owned(), tensors[second].clone());
        write(&fixture.at("both.safetensors"), tensors.into_iter());
        let error = files::open(&fixture.at("both.safetensors")).err().expect("refused").to_string();
        assert!(error.contains("both.safetensors: tensors ") && error.contains("are both first_"), "{error}");
        assert!(error.contains(added) && error.contains(second), "{error}");
    }
}

pub type Owned = (safetensors::Dtype, Vec<usize>, Vec<u8>);

pub fn read(path: &Path) -> BTreeMap<String, Owned> {
    let bytes = fs::read(path).expect("read");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let owned = |(name, view): (String, safetensors::tensor::TensorView)| {
        (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    file.tensors().into_iter().map(owned).collect()
}

pub fn write(path: &Path, tensors: impl Iterator<Item = (String, Owned)>) {
    let tensors: Vec<_> = tensors.collect();
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.as_str(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).expect("a view"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("safetensors")).expect("written");
}

#[test]
fn the_folder_that_was_opened_is_read_whatever_it_is_called_by_now() {
    let fixture = Fixture::unpack();
    let open = File::open(fixture.at("plain")).expect("opened");
    fs::rename(fixture.at("plain"), fixture.at("renamed")).expect("renamed");
    fs::rename(fixture.at("fp16"), fixture.at("plain")).expect("renamed");
    let checkpoint = Checkpoint::open_file(&open, &fixture.at("plain")).expect("opens");
    assert_eq!(checkpoint.dtype, "f32");
    // Its files are held.
    fs::remove_dir_all(fixture.at("renamed")).expect("removed");
    assert_eq!(checkpoint.tensors_of(ComponentKind::UNet).flatten().count(), 498);
}

/// Averaged weights beside the plain ones, and alone.
#[test]
fn averaged_weights_are_taken_if_they_are_wanted_or_alone() {
    let fixture = Fixture::unpack();
    let tensors = read(&fixture.at("ldm.safetensors"));
    let unet = "model.diffusion_model.";
    let average = |name: &str| format!("model_ema.{}", name.replacen("model.", "", 1).replace('.', ""));
    let (both, alone) = (fixture.at("both.safetensors"), fixture.at("alone.safetensors"));
    let averages: BTreeMap<_, _> = tensors
        .iter()
        .filter(|(name, _)| name.starts_with(unet))
        .map(|(name, tensor)| {
            let (dtype, shape, bytes) = tensor.clone();
            (average(name), (dtype, shape, bytes.into_iter().rev().collect::<Vec<u8>>()))
        })
        .collect();
    write(&both, tensors.clone().into_iter().chain(averages.clone()));
    write(
        &alone,
        tensors.clone().into_iter().filter(|(name, _)| !name.starts_with(unet)).chain(averages.clone()),
    );
    let of = |file: files::Tensors| -> BTreeMap<String, Vec<u8>> {
        let tensors = file.under(unet).map(|tensor| tensor.expect("read"));
        tensors.map(|tensor| (format!("{unet}{}", tensor.name), tensor.bytes.into_owned())).collect()
    };
    let plain: BTreeMap<_, _> = tensors
        .iter()
        .filter(|(name, _)| name.starts_with(unet))
        .map(|(name, tensor)| (name.clone(), tensor.2.clone()))
        .collect();
    let averaged: BTreeMap<_, _> =
        plain.keys().map(|name| (name.clone(), averages[&average(name)].2.clone())).collect();
    assert_eq!(plain.len(), 498);
    let open = |path: &Path| files::open(path).expect("opens");
    assert!(of(open(&both)) == plain);
    assert!(of(open(&both).with_ema().expect("has them")) == averaged);
    assert!(of(open(&alone)) == averaged);
    assert!(of(open(&alone).with_ema().expect("has nothing else")) == averaged);
    let error = open(&fixture.at("ldm.safetensors")).with_ema().err().expect("has none").to_string();
    assert!(error.contains("ldm.safetensors") && error.contains("model_ema"), "{error}");
    Checkpoint::of_file(open(&alone)).expect("a checkpoint");
    Checkpoint::of_file(open(&both).with_ema().expect("has them")).expect("a checkpoint");
}

/// What is done to a folder that is sound.
type Damage<'a> = &'a dyn Fn(&Path);

#[test]
fn folders_that_are_not_what_they_should_be_are_refused_by_name() {
    let list = "unet/diffusion_pytorch_model.safetensors.index.json";
    let shard = "unet/diffusion_pytorch_model-00001-of-00005.safetensors";
    let write_list = |at: &Path, entries: &[(&str, &str)]| {
        let map: serde_json::Map<_, _> =
            entries.iter().map(|(tensor, file)| ((*tensor).to_owned(), json!(file))).collect();
        fs::write(at.join(list), json!({"weight_map": map}).to_string()).expect("written");
    };
    let make_pipe = |path: PathBuf| {
        fs::remove_file(&path).expect("removed");
        assert!(Command::new("mkfifo").arg(path).status().expect("ran").success());
    };
    let rows: [(&str, Damage, &str); 17] = [
        (
            "no model_index.json",
            &|at| fs::remove_file(at.join("model_index.json")).expect("removed"),
            "without model_index.json",
        ),
        (
            "model_index.json is a list",
            &|at| fs::write(at.join("model_index.json"), "[]").expect("written"),
            "model_index.json: is no configuration",
        ),
        (
            "model_index.json is deep",
            &|at| fs::write(at.join("model_index.json"), "[".repeat(100_000)).expect("written"),
            "model_index.json: is no configuration",
        ),
        (
            "model_index.json is huge",
            &|at| fs::write(at.join("model_index.json"), vec![b' '; 2 << 20]).expect("written"),
            "model_index.json: is larger than",
        ),
        (
            "model_index.json is a pipe",
            &|at| make_pipe(at.join("model_index.json")),
            "model_index.json: is not a regular file",
        ),
        (
            "no networks",
            &|at| {
                for name in ["unet", "vae", "text_encoder"] {
                    fs::remove_dir_all(at.join(name)).expect("removed");
                }
            },
            "none of the folders",
        ),
        (
            "a network that is a file",
            &|at| {
                fs::remove_dir_all(at.join("vae")).expect("removed");
                fs::write(at.join("vae"), "x").expect("written");
            },
            "vae: is no folder",
        ),
        (
            "a network without weights",
            &|at| {
                fs::remove_dir_all(at.join("vae")).expect("removed");
                fs::create_dir(at.join("vae")).expect("made");
            },
            "vae: has no weights that are read",
        ),
        (
            "a missing shard",
            &|at| fs::remove_file(at.join(shard)).expect("removed"),
            "00001-of-00005.safetensors: is not there, though diffusion_pytorch_model.safetensors.index.json names it",
        ),
        (
            "a shard that is a pipe",
            &|at| make_pipe(at.join(shard)),
            "00001-of-00005.safetensors: is not a regular file",
        ),
        (
            "a shard that is a folder",
            &|at| {
                fs::remove_file(at.join(shard)).expect("removed");
                fs::create_dir(at.join(shard)).expect("made");
            },
            "is not a regular file",
        ),
        (
            "a shard that is a link to a text",
            &|at| {
                fs::remove_file(at.join(shard)).expect("removed");
                symlink(at.join("model_index.json"), at.join(shard)).expect("linked");
            },
            "00001-of-00005.safetensors: is JSON",
        ),
        (
            "a shard that is a link to itself",
            &|at| {
                fs::remove_file(at.join(shard)).expect("removed");
                symlink("diffusion_pytorch_model-00001-of-00005.safetensors", at.join(shard))
                    .expect("linked");
            },
            "00001-of-00005.safetensors:",
        ),
        (
            "a tensor in two shards",
            &|at| {
                fs::copy(at.join(shard), at.join("unet/again.safetensors")).expect("copied");
                write_list(
                    at,
                    &[
                        ("a", "again.safetensors"),
                        ("b", "diffusion_pytorch_model-00001-of-00005.safetensors"),
                    ],
                );
            },
            "is in unet/again.safetensors and in unet/diffusion_pytorch_model-00001-of-00005.safetensors too",
        ),
        (
            "a list that leads out",
            &|at| write_list(at, &[("a", "../../../../etc/passwd")]),
            "\"../../../../etc/passwd\" is not the name of a file",
        ),
        (
            "a list that leads elsewhere",
            &|at| write_list(at, &[("a", "/etc/passwd")]),
            "index.json: is no list of a model's files: \"/etc/passwd\"",
        ),
        (
            "a list without the last part",
            &|at| write_list(at, &[("a", "diffusion_pytorch_model-00001-of-00005.safetensors")]),
            "unet/diffusion_pytorch_model-00001-of-00005.safetensors",
        ),
    ];
    let fixture = Fixture::unpack();
    for (name, damage, reason) in rows {
        let at = fixture.at(name);
        assert!(
            Command::new("cp").arg("-r").arg(fixture.at("sharded")).arg(&at).status().expect("ran").success()
        );
        damage(&at);
        let opened = Checkpoint::open(&at);
        if name == "a list without the last part" {
            let error = opened.err().expect("refused").to_string();
            assert!(error.contains("missing tensor"), "{name}: {error}");
            continue;
        }
        let error = opened.err().expect(name).to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

/// By both names, the file's own first.
#[test]
fn what_is_missing_or_misshapen_in_a_folder_is_named() {
    let fixture = Fixture::unpack();
    let unet = fixture.at("plain/unet/diffusion_pytorch_model.safetensors");
    let tensors = read(&unet);
    let rows = [
        ("down_blocks.1.resnets.0.conv1.bias", "input_blocks.3.0.in_layers.2.bias"),
        ("up_blocks.3.attentions.1.proj_out.weight", "output_blocks.7.1.proj_out.weight"),
        ("time_embedding.linear_1.weight", "time_embed.0.weight"),
        ("mid_block.resnets.1.norm2.weight", "middle_block.2.out_layers.0.weight"),
    ];
    for (own, ldm) in rows {
        let both = format!("unet/{own} (model.diffusion_model.{ldm})");
        let mut fewer = tensors.clone();
        let (dtype, _, bytes) = fewer.remove(own).expect("there");
        write(&unet, fewer.clone().into_iter());
        let error = Checkpoint::open(&fixture.at("plain")).err().expect("refused").to_string();
        assert!(error.contains(&format!("missing tensor {both}")), "{error}");
        if own.contains("linear_1") {
            // The width of all others is read from it.
            continue;
        }
        fewer.insert(own.to_owned(), (dtype, vec![2, bytes.len() / 8], bytes));
        write(&unet, fewer.into_iter());
        let error = Checkpoint::open(&fixture.at("plain")).err().expect("refused").to_string();
        assert!(error.contains(&format!("unet/{own}")), "{error}");
    }
    let mut more = tensors;
    let spare = more["conv_in.bias"].clone();
    more.insert("down_blocks.0.spare.weight".to_owned(), spare);
    write(&unet, more.into_iter());
    let error = Checkpoint::open(&fixture.at("plain")).err().expect("refused").to_string();
    assert!(error.contains("extra tensor unet/down_blocks.0.spare.weight"), "{error}");
}
