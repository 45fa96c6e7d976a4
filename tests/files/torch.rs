//! PyTorch's own files: what torch wrote is read as torch reads it, bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;
use latentd_models::files::{self, ElementType};
use latentd_models::model::Model;
use latentd_models::nn::Precision;
use latentd_models::pipeline::{NoStages, NoWatch, Txt2Img};
use latentd_models::prompt::Reading;
use latentd_models::sampling::{NoiseSource, Sampler, Schedule};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub fn containers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/containers")
}

/// What torch calls a type.
fn name_of(dtype: ElementType) -> &'static str {
    match dtype {
        ElementType::F32 => "float32",
        ElementType::F16 => "float16",
        ElementType::Bf16 => "bfloat16",
        ElementType::F64 => "float64",
        ElementType::I64 => "int64",
        ElementType::I32 => "int32",
        ElementType::I16 => "int16",
        ElementType::I8 => "int8",
        ElementType::U8 => "uint8",
        ElementType::Bool => "bool",
        ElementType::F8E4M3 => "float8_e4m3fn",
        ElementType::F8E5M2 => "float8_e5m2",
        other => other.name(),
    }
}

/// Each tensor's type, shape and hash.
fn described(file: &files::Tensors) -> BTreeMap<String, (String, Vec<u64>, String)> {
    let describe = |name: &str| {
        let shape = file.shape(name).expect("named").iter().map(|size| *size as u64).collect();
        let dtype = name_of(file.dtype(name).expect("named")).to_owned();
        let bytes = file.bytes(name).unwrap_or_else(|error| panic!("{error}")).expect("named");
        let hash =
            Sha256::digest(&bytes).iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
        (name.to_owned(), (dtype, shape, hash))
    };
    file.names().map(describe).collect()
}

#[test]
fn what_torch_wrote_is_read_as_torch_reads_it() {
    let table = fs::read(containers().join("torch.json")).expect("fixture");
    let table: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&table).expect("JSON");
    assert!(table.len() >= 20, "{}", table.len());
    for (name, tensors) in table {
        let expected: BTreeMap<_, _> = tensors
            .into_iter()
            .map(|(name, of)| {
                let shape = of["shape"].as_array().expect("shape").iter().filter_map(Value::as_u64).collect();
                let text = |key: &str| of[key].as_str().expect("text").to_owned();
                let dtype = text("dtype");
                let dtype =
                    if dtype.starts_with("uint") && dtype != "uint8" { "other".to_owned() } else { dtype };
                (name, (dtype, shape, text("sha256")))
            })
            .collect();
        let path = containers().join(&name);
        let file = files::open(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(described(&file), expected, "{name}");
        assert_eq!(file.format(), "PyTorch");
        file.check_intact().expect("whole");
        let held = files::from_bytes("held", fs::read(&path).expect("read")).expect("opens from memory too");
        assert_eq!(described(&held), expected, "{name} from memory");
        assert_eq!(held.metadata(), file.metadata());
    }
}

#[test]
fn what_stands_beside_the_tensors_is_told() {
    let rows: [(&str, &[(&str, &str)]); 4] = [
        (
            "zip-lightning.ckpt",
            &[("global_step", "840000"), ("epoch", "3"), ("pytorch-lightning_version", "1.4.2")],
        ),
        ("legacy-lightning.ckpt", &[("global_step", "840000"), ("epoch", "3")]),
        (
            "zip-embedding.pt",
            &[
                ("name", "style"),
                ("step", "499"),
                ("sd_checkpoint", "cc6cb27103"),
                ("sd_checkpoint_name", "v1-5-pruned-emaonly"),
                ("string_to_token.*", "265"),
            ],
        ),
        (
            "zip-hypernetwork.pt",
            &[
                ("layer_structure", "[1, 2, 1]"),
                ("activation_func", "relu"),
                ("is_layer_norm", "false"),
                ("step", "1000"),
            ],
        ),
    ];
    for (name, texts) in rows {
        let file = files::open(&containers().join(name)).unwrap_or_else(|error| panic!("{error}"));
        for (key, text) in texts {
            assert_eq!(file.metadata().get(*key).map(String::as_str), Some(*text), "{name}: {key}");
        }
    }
}

#[test]
fn embeddings_are_known_for_what_they_are() {
    for name in ["zip-embedding.pt", "zip-embedding-plain.pt", "legacy-embedding.pt"] {
        let info = files::inspect(&containers().join(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(info.kind, files::FileKind::Embedding, "{name}");
    }
}

#[test]
fn what_is_not_read_is_told_by_name() {
    for (name, reason) in [
        ("refused-sparse.pt", "holds tensor a as torch._utils._rebuild_sparse_tensor"),
        ("refused-quantised.pt", "holds tensor a as torch._utils._rebuild_qtensor"),
        ("refused-complex.pt", "holds tensor a as torch.ComplexFloatStorage"),
        ("refused-without-tensors.pt", "without named tensors"),
    ] {
        let error = files::open(&containers().join(name)).err().expect("must be refused").to_string();
        assert!(error.contains(name) && error.contains(reason), "{error}");
    }
}

/// The pixels of a picture.
fn drawn(model: &Model) -> Vec<u8> {
    let request = Txt2Img {
        prompt: "a red circle".into(),
        negative_prompt: "".into(),
        reading: Reading::default(),
        embeddings: Arc::default(),
        seed: 42,
        steps: 3,
        cfg_scale: 7.0,
        width: 64,
        height: 64,
        sampler: Sampler::from_name("Euler a").expect("sampler"),
        schedule: Schedule::from_name("Automatic").expect("schedule"),
        batch_size: 1,
        n_iter: 1,
        clip_skip: 1,
        rng: NoiseSource::from_name("nv").expect("rng"),
        pad_cond_uncond: true,
        pad_cond_uncond_v0: false,
        decoder: latentd_models::pipeline::LatentDecoder::Vae,
        ..Txt2Img::default()
    };
    let outputs = latentd_models::pipeline::txt2img(
        &model.facts(),
        &mut &*model,
        &request,
        &mut NoWatch,
        &mut NoStages,
    )
    .expect("drawn");
    outputs.into_iter().next().expect("one").image.pixels
}

/// In f32, the same weights in torch's formats and in safetensors.
#[test]
fn a_checkpoint_of_torch_draws_what_its_safetensors_draws() {
    let folder = tempfile::tempdir().expect("folder");
    let open = |name: &str| {
        let packed = fs::read(containers().join(format!("{name}.gz"))).expect("fixture");
        let mut bytes = vec![];
        GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).expect("unpacked");
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("written");
        Model::open(&path, Precision::F32).unwrap_or_else(|error| panic!("{error}"))
    };
    let wanted = drawn(&open("checkpoint.safetensors"));
    assert!(wanted.iter().any(|value| *value != wanted[0]), "there is something in the picture");
    for name in ["checkpoint-zip.ckpt", "checkpoint-legacy.ckpt"] {
        let model = open(name);
        assert_eq!(model.summary().dtype, "bf16");
        assert!(drawn(&model) == wanted, "{name}: another picture");
    }
}
