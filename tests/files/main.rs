//! Files that are not what they should be: each gives an error that says what is wrong, and nothing else happens.

mod forging;
mod hostile_torch;
mod torch;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use latentd_models::Tensor;
use latentd_models::files::{self, FileKind, Prediction, inspect};
use latentd_models::model::{Family, Model};
use latentd_models::networks::vae::VaeConfig;
use latentd_models::nn::backend::Layout;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Loader, Precision, Run};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/models/Stable-diffusion/tiny-sd1.safetensors")
}

/// A `.safetensors` file taken apart, to be put together wrongly.
#[derive(Clone)]
struct Parts {
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl Parts {
    fn tiny() -> Self {
        let bytes = fs::read(tiny()).expect("fixture");
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + length]).expect("header");
        Self { header, data: bytes[8 + length..].to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = serde_json::to_vec(&self.header).expect("header");
        header.resize(header.len().next_multiple_of(8), b' ');
        [&(header.len() as u64).to_le_bytes()[..], &header, &self.data].concat()
    }

    fn range(&self, name: &str) -> std::ops::Range<usize> {
        let offset =
            |index: usize| self.header[name]["data_offsets"][index].as_u64().expect("offset") as usize;
        offset(0)..offset(1)
    }

    /// Takes a tensor out and closes the gap.
    fn remove(&mut self, name: &str) {
        let range = self.range(name);
        self.header.remove(name);
        self.data.drain(range.clone());
        for entry in self.header.values_mut().filter(|entry| entry.get("data_offsets").is_some()) {
            for offset in entry["data_offsets"].as_array_mut().expect("offsets") {
                let value = offset.as_u64().expect("offset") as usize;
                if value >= range.end {
                    *offset = json!(value - range.len());
                }
            }
        }
    }

    fn add(&mut self, name: &str, shape: &[usize]) {
        let start = self.data.len();
        self.data.resize(start + shape.iter().product::<usize>() * 4, 0);
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, self.data.len()]});
        self.header.insert(name.to_owned(), entry);
    }
}

/// Opens bytes as a model, from a file and from memory, and returns the error's text.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.safetensors");
    fs::write(&path, bytes).expect("written");
    let error = Model::open(&path, Precision::F32).err().expect("must be refused").to_string();
    assert!(error.contains("model.safetensors"), "the file is named: {error}");
    let held =
        Model::from_bytes(&path, bytes.to_vec(), Precision::F32).err().expect("must be refused").to_string();
    // There is no file of no bytes to look into.
    assert!(held == error || bytes.is_empty(), "the same checks: {held}");
    error
}

#[test]
fn a_sound_file_opens() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("again.safetensors");
    fs::write(&path, Parts::tiny().bytes()).expect("written");
    let model = Model::open(&path, Precision::F32).expect("opens");
    assert_eq!(model.summary().dtype, "f16");
    assert_eq!(model.native_size(), (512, 512), "the file says nothing else");
    let held = Model::from_bytes("held", Parts::tiny().bytes(), Precision::F32).expect("opens");
    assert_eq!(held.summary(), model.summary());
    let info = inspect(&path).expect("inspects");
    assert_eq!(
        (info.kind, info.architecture.as_deref()),
        (FileKind::Checkpoint, Some(Family::all()[0].name))
    );
}

#[test]
fn a_file_says_how_large_its_pictures_are() {
    let mut parts = Parts::tiny();
    parts.header.insert("__metadata__".to_owned(), json!({"modelspec.resolution": "128x192"}));
    let model = Model::from_bytes("held", parts.bytes(), Precision::F32).expect("opens");
    assert_eq!(model.native_size(), (128, 192));
}

#[test]
fn a_file_or_the_configuration_beside_it_says_what_is_predicted() {
    use Prediction::{Epsilon, Velocity};
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.safetensors");
    let config = folder.path().join("model.yaml");
    let opened = || Model::open(&path, Precision::F32).map(|model| model.prediction());

    let mut marked = Parts::tiny();
    marked.add("v_pred", &[0]);
    let mut told = Parts::tiny();
    told.header.insert("__metadata__".to_owned(), json!({"modelspec.prediction_type": "v"}));
    for (parts, expected) in [(Parts::tiny(), Epsilon), (marked, Velocity), (told.clone(), Velocity)] {
        fs::write(&path, parts.bytes()).expect("written");
        assert_eq!(opened().expect("opens"), expected);
    }
    let held = Model::from_bytes("held", told.bytes(), Precision::F32).expect("opens");
    assert_eq!(held.prediction(), Velocity);

    // What people write beside a file goes before what is in it.
    for (text, expected) in [
        ("parameterization: eps", Epsilon),
        ("  parameterization: \"v\"\n", Velocity),
        ("of: something else", Velocity),
    ] {
        fs::write(&config, text).expect("written");
        assert_eq!(opened().expect("opens"), expected, "{text}");
    }
    for (text, reason) in [
        (&b"parameterization: x0"[..], "predicts \"x0\""),
        (&[0xFF, 0xFE, b'p'], "is no UTF-8 text"),
        (b"a: 'b", "is no YAML"),
        (&vec![b' '; 2 << 20], "is larger than any model's configuration"),
    ] {
        fs::write(&config, text).expect("written");
        let error = opened().expect_err("must be refused").to_string();
        assert!(error.contains("model.yaml") && error.contains(reason), "{error}");
    }
    fs::remove_file(&config).expect("removed");
    fs::create_dir(&config).expect("made");
    assert_eq!(opened().expect("a folder is no configuration"), Velocity);
    fs::remove_dir(&config).expect("removed");
    assert!(std::process::Command::new("mkfifo").arg(&config).status().expect("ran").success());
    assert_eq!(opened().expect("a pipe is none, and not waited for"), Velocity);

    told.header.insert("__metadata__".to_owned(), json!({"modelspec.prediction_type": "sample"}));
    let error = Model::from_bytes("held", told.bytes(), Precision::F32).err().expect("refused").to_string();
    assert!(error.contains("held") && error.contains("predicts \"sample\""), "{error}");
}

/// As the oldest checkpoints name the text encoder, without `text_model.`.
#[test]
fn older_names_of_the_text_encoder_will_do() {
    let mut parts = Parts::tiny();
    let old = |name: &str| {
        name.replace("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.")
    };
    parts.header = parts.header.iter().map(|(name, entry)| (old(name), entry.clone())).collect();
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("old.safetensors");
    fs::write(&path, parts.bytes()).expect("written");
    Model::open(&path, Precision::F32).expect("opens");
}

#[test]
fn broken_containers_are_refused() {
    let sound = fs::read(tiny()).expect("fixture");
    let with_length = |length: u64| [&length.to_le_bytes()[..], &sound[8..]].concat();
    let mut zip = b"PK\x03\x04\x14\x00\x00\x00".to_vec();
    zip.resize(70 << 20, 7);
    let rows: [(&str, Vec<u8>, &str); 16] = [
        ("empty", vec![], "is empty; copy or download it again"),
        (
            "an LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n".to_vec(),
            "git lfs pull",
        ),
        ("a web page", b"<!DOCTYPE html><html><title>Sign in</title>".to_vec(), "is a web page"),
        ("a site's refusal", b"{\"error\":\"Invalid token\"}".to_vec(), "Invalid token"),
        ("a short one", b"{}".to_vec(), "is JSON"),
        ("a zip, larger than any header", zip, "is a zip archive"),
        ("zeros", vec![0; 5000], "nothing but zeros"),
        ("7 bytes", sound[..7].to_vec(), "too short"),
        ("one byte short", sound[..sound.len() - 1].to_vec(), "cut off"),
        ("one byte long", [&sound[..], &[0]].concat(), "cut off or padded"),
        ("half", sound[..sound.len() / 2].to_vec(), "cut off"),
        ("header length 0", with_length(0), "safetensors"),
        ("header length 2⁶⁴ − 1", with_length(u64::MAX), "header length"),
        ("header length beyond the file", with_length(sound.len() as u64), "header length"),
        ("a zip, cut off", [b"PK\x03\x04", &sound[4..]].concat(), "is a zip archive"),
        ("a bare pickle", [b"\x80\x02", &sound[2..]].concat(), "is a bare pickle"),
    ];
    for (what, bytes, expected) in rows {
        let error = refusal(&bytes);
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let sound = Parts::tiny();
    let name = "model.diffusion_model.out.2.bias";
    let change = |key: &str, value: Value| {
        let mut parts = sound.clone();
        parts.header[name][key] = value;
        refusal(&parts.bytes())
    };
    let range = sound.range(name);
    for (what, error) in [
        ("overlap", change("data_offsets", json!([range.start - 2, range.end]))),
        ("gap", change("data_offsets", json!([range.start + 2, range.end]))),
        ("backwards", change("data_offsets", json!([range.end, range.start]))),
        ("beyond the file", change("data_offsets", json!([range.start, u64::MAX]))),
        ("negative", change("data_offsets", json!([-1, 5]))),
        ("shape that does not fit", change("shape", json!([5]))),
        ("shape that overflows", change("shape", json!([u64::MAX, u64::MAX]))),
        ("unknown type", change("dtype", json!("F12"))),
    ] {
        assert!(error.contains("safetensors"), "{what}: {error}");
    }
    let mut deep = sound.clone();
    deep.header.insert("x".to_owned(), (0..100).fold(json!(1), |value, _| json!([value])));
    refusal(&deep.bytes());
}

#[test]
fn missing_extra_and_misshapen_tensors_are_named() {
    let mut parts = Parts::tiny();
    parts.remove("model.diffusion_model.middle_block.1.norm.bias");
    parts.remove("first_stage_model.decoder.conv_out.weight");
    parts.add("cond_stage_model.transformer.text_model.extra.weight", &[3]);
    let error = refusal(&parts.bytes());
    for expected in [
        "missing tensor model.diffusion_model.middle_block.1.norm.bias",
        "missing tensor first_stage_model.decoder.conv_out.weight",
        "extra tensor cond_stage_model.transformer.text_model.extra.weight",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    let name = "model.diffusion_model.time_embed.2.weight";
    let mut parts = Parts::tiny();
    let shape = parts.header[name]["shape"].clone();
    parts.header[name]["shape"] = json!([shape[0].as_u64().map(|n| n / 2), shape[1].as_u64().map(|n| n * 2)]);
    let error = refusal(&parts.bytes());
    assert!(error.contains("time_embed.2.weight is [64, 256], [128, 128] is needed"), "{error}");
    // The very tensors the architecture is read from.
    for name in [
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.post_quant_conv.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    ] {
        let mut parts = Parts::tiny();
        parts.remove(name);
        let error = refusal(&parts.bytes());
        assert!(error.contains(name) || error.contains("no Stable Diffusion checkpoint"), "{error}");
    }
}

/// Whichever tensor a block lacks, it is named: none is taken for the end of the network.
#[test]
fn any_missing_tensor_is_named() {
    for name in [
        "model.diffusion_model.input_blocks.1.0.in_layers.2.weight",
        "model.diffusion_model.input_blocks.2.0.op.weight",
        "model.diffusion_model.output_blocks.1.0.in_layers.2.weight",
        "model.diffusion_model.input_blocks.3.1.transformer_blocks.0.norm1.weight",
        "model.diffusion_model.middle_block.1.transformer_blocks.0.norm1.weight",
        "first_stage_model.encoder.down.0.block.0.conv1.weight",
        "first_stage_model.encoder.down.2.block.0.conv1.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight",
    ] {
        let mut parts = Parts::tiny();
        parts.remove(name);
        let error = refusal(&parts.bytes());
        assert!(error.contains(&format!("missing tensor {name}")), "{error}");
    }
    let mut parts = Parts::tiny();
    let names: Vec<String> =
        parts.header.keys().filter(|name| name.contains("output_blocks.5.")).cloned().collect();
    for name in names {
        parts.remove(&name);
    }
    let error = refusal(&parts.bytes());
    assert!(error.contains("does not mirror"), "{error}");
}

/// Tensors without elements take no space and can claim any size; blocks without end cost their maker little.
#[test]
fn sizes_beyond_reason_are_refused() {
    let huge = 1usize << 60;
    for (name, shape) in [
        ("model.diffusion_model.input_blocks.0.0.weight", vec![huge, 4, 0, 3]),
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", vec![huge, 0, 3, 3]),
        ("model.diffusion_model.time_embed.0.weight", vec![huge, 0]),
        ("first_stage_model.post_quant_conv.weight", vec![1 << 63, 0, 1, 1]),
        ("first_stage_model.encoder.down.1.block.0.conv1.weight", vec![huge, 0]),
        ("cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight", vec![huge, 0]),
        ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", vec![0, huge]),
    ] {
        let mut parts = Parts::tiny();
        parts.remove(name);
        parts.add(name, &[0]);
        parts.header[name]["shape"] = json!(shape);
        let error = refusal(&parts.bytes());
        assert!(error.contains(name) && error.contains("shape"), "{error}");
    }
    // So many levels that 2 to their power wraps round to the right factor.
    for levels in [64, 65, 68, 300] {
        let mut parts = Parts::tiny();
        for level in 0..levels {
            let name = format!("first_stage_model.encoder.down.{level}.block.0.conv1.weight");
            if !parts.header.contains_key(&name) {
                parts.add(&name, &[32, 0]);
            }
        }
        let error = refusal(&parts.bytes());
        assert!(error.contains("the VAE scales by"), "{levels} levels: {error}");
    }
    let mut parts = Parts::tiny();
    for index in 0..20_000 {
        parts.add(&format!("model.diffusion_model.input_blocks.{index}.0.in_layers.2.weight"), &[32, 0]);
    }
    let error = refusal(&parts.bytes());
    assert!(error.len() < 3000, "{} bytes of error", error.len());
    // Names and shapes of any length do not make an error of any length.
    let mut parts = Parts::tiny();
    parts.add(&format!("model.diffusion_model.{}", "ß".repeat(1 << 20)), &[1]);
    parts.add("first_stage_model.post_quant_conv.bia", &vec![1; 1 << 20]);
    let error = refusal(&parts.bytes());
    assert!(error.contains("extra tensor") && error.len() < 3000, "{} bytes of error", error.len());
}

/// Drawing from text needs no encoder.
#[test]
fn a_vae_may_be_without_an_encoder() {
    let mut parts = Parts::tiny();
    let names: Vec<String> =
        parts.header.keys().filter(|name| name.starts_with("first_stage_model.")).cloned().collect();
    for name in names.iter().filter(|name| name.contains(".encoder.")) {
        parts.remove(name);
    }
    let open = |parts: &Parts| Model::from_bytes("held", parts.bytes(), Precision::F32);
    open(&parts).expect("what the encoder alone would use may stay");
    parts.remove("first_stage_model.quant_conv.weight");
    parts.remove("first_stage_model.quant_conv.bias");
    let model = open(&parts).expect("opens");
    let whole = Model::open(&tiny(), Precision::F32).expect("opens");
    assert_eq!(
        VaeConfig { encoder: true, ..model.vae().config().clone() },
        whole.vae().config().clone(),
        "the decoder tells the same"
    );
    let latents =
        Tensor::new((0..4 * 64).map(|value| value as f32 / 100.0).collect(), [1, 4, 8, 8]).expect("latents");
    let decode =
        |model: &Model| model.vae().decode(&latents, &Run::WHOLE).expect("decoded").values().to_vec();
    assert!(decode(&model) == decode(&whole));
    let image = Tensor::new(vec![0.5; 3 * 64 * 64], [1, 3, 64, 64]).expect("an image");
    let error = model.vae().encode(&image, &Run::WHOLE).err().expect("nothing to encode with").to_string();
    assert!(error.contains("has no encoder"), "{error}");
    whole.vae().encode(&image, &Run::WHOLE).expect("encoded");

    // One that lacks a tensor is told so, and is not taken for one that is meant to be without.
    let mut parts = Parts::tiny();
    parts.remove("first_stage_model.quant_conv.bias");
    assert!(refusal(&parts.bytes()).contains("missing tensor first_stage_model.quant_conv.bias"));
    for name in names {
        if parts.header.contains_key(&name) {
            parts.remove(&name);
        }
    }
    let error = refusal(&parts.bytes());
    assert!(error.contains("holds no VAE") && error.contains("first_stage_model."), "{error}");
}

/// A part of a checkpoint is called that.
#[test]
fn a_checkpoint_without_a_text_encoder_is_told_what_it_lacks() {
    let mut parts = Parts::tiny();
    let names: Vec<String> =
        parts.header.keys().filter(|name| name.starts_with("cond_stage_model.")).cloned().collect();
    for name in &names {
        parts.remove(name);
    }
    let error = refusal(&parts.bytes());
    assert!(error.contains("holds a UNet") && error.contains("no text encoder"), "{error}");
}

#[test]
fn what_a_checkpoint_holds_beside_itself_is_told() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.safetensors");
    let mut parts = Parts::tiny();
    for (added, beside) in [
        (None, vec![]),
        (Some("control_model.input_hint_block.0.weight"), vec![FileKind::ControlNet]),
        (Some("lora_unet_mid.lora_up.weight"), vec![FileKind::Lora, FileKind::ControlNet]),
    ] {
        if let Some(added) = added {
            parts.add(added, &[2]);
        }
        fs::write(&path, parts.bytes()).expect("written");
        let info = inspect(&path).expect("inspects");
        assert_eq!((info.kind, info.beside), (FileKind::Checkpoint, beside));
        Model::open(&path, Precision::F32).expect("opens all the same");
    }
}

/// A header of few bytes may name more tensors than there is memory for.
#[test]
fn a_header_with_a_million_tensors_is_refused_at_once() {
    let header = (0..1_000_000)
        .map(|index| format!(r#""{index}":{{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}"#));
    let header = format!("{{{}}}", header.collect::<Vec<_>>().join(","));
    let error = refusal(&[&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat());
    assert!(error.contains("header"), "{error}");
}

/// Elements of 8 bits, which a later version may read: told by tensor and type.
#[test]
fn types_that_weights_do_not_have_are_named() {
    let name = "model.diffusion_model.out.2.bias";
    for (dtype, size) in [("I8", 1), ("U8", 1), ("BOOL", 1)] {
        let mut parts = Parts::tiny();
        parts.remove(name);
        parts.add(name, &[size]);
        parts.header[name]["shape"] = json!([4]);
        parts.header[name]["dtype"] = json!(dtype);
        let error = refusal(&parts.bytes());
        assert!(error.contains(name) && error.contains(dtype), "{error}");
    }
}

/// A network read without the check before it still takes no tensor of another shape.
#[test]
fn a_shape_that_does_not_fit_is_no_layer() {
    let file = files::open(&tiny()).expect("opens");
    let name = "model.diffusion_model.time_embed.0.weight";
    let shape = file.shape(name).expect("there").to_vec();
    let loader = Loader::file(&file, &cpu(), Precision::F32);
    let load = |outputs, inputs| loader.matrix(name, Layout::Linear { outputs, inputs }, Precision::F32);
    assert!(load(shape[0], shape[1]).is_ok());
    let error = load(shape[1], shape[0]).err().expect("turned round").to_string();
    assert!(error.contains(name) && error.contains("is needed"), "{error}");
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    for (bits, what) in [(0x7e00u16, "NaN"), (0x7c00, "infinity")] {
        for name in [
            "model.diffusion_model.out.2.weight",
            "first_stage_model.decoder.norm_out.bias",
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
            "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
        ] {
            let mut parts = Parts::tiny();
            let start = parts.range(name).start;
            parts.data[start..start + 2].copy_from_slice(&bits.to_le_bytes());
            let error = refusal(&parts.bytes());
            assert!(error.contains(name) && error.contains("NaN or infinite"), "{what}: {error}");
        }
    }
}

#[test]
fn other_families_are_told_by_name() {
    let rename = |from: &str, to: &str| {
        let mut parts = Parts::tiny();
        let header: BTreeMap<String, Value> =
            parts.header.iter().map(|(k, v)| (k.replace(from, to), v.clone())).collect();
        parts.header = header.into_iter().collect();
        refusal(&parts.bytes())
    };
    assert!(rename("cond_stage_model.transformer.", "cond_stage_model.model.").contains("SD2"));
    assert!(rename("cond_stage_model.", "conditioner.embedders.0.").contains("SDXL"));
    assert!(rename("model.diffusion_model.", "unet.").contains("no Stable Diffusion checkpoint"));
    let refused = Model::open(Path::new("/dev/zero"), Precision::F32).err().expect("a device").to_string();
    assert!(refused.contains("not a regular file"), "{refused}");
    let refused = Model::open(Path::new("/"), Precision::F32).err().expect("a folder").to_string();
    assert!(refused.contains("not a regular file"), "{refused}");
}

/// Another program shortens the file while it is mapped: an error, where an unguarded map would end the process.
#[test]
fn a_file_cut_off_while_it_is_read_is_an_error() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.safetensors");
    fs::copy(tiny(), &path).expect("copied");
    let file = files::open(&path).expect("opens");
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(200_000)).expect("shortened");
    let mut sum = 0u64;
    for name in file.names() {
        let bytes = file.bytes(name).expect("readable").unwrap_or_default();
        sum += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }
    assert!(sum > 0, "what is still there is read");
    let error = file.check_intact().expect_err("cut off").to_string();
    assert!(error.contains("was cut off by another program"), "{error}");
    let other = files::open(&tiny()).expect("another file is fine");
    other.check_intact().expect("and whole");
}

/// Files come and go on several threads while some are cut off: only those that were notice it.
#[test]
fn only_the_file_that_was_cut_off_is_in_error() {
    let folder = tempfile::tempdir().expect("folder");
    let folder = folder.path();
    let sum = |file: &files::Tensors| -> u64 {
        let of = |name| {
            file.bytes(name)
                .expect("readable")
                .unwrap_or_default()
                .iter()
                .map(|byte| u64::from(*byte))
                .sum::<u64>()
        };
        file.names().map(of).sum()
    };
    let whole = sum(&files::open(&tiny()).expect("opens"));
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            scope.spawn(move || {
                for round in 0..12u64 {
                    let path = folder.join(format!("{thread}-{round}"));
                    fs::copy(tiny(), &path).expect("copied");
                    let file = files::open(&path).expect("opens");
                    let cut = (thread + round) % 2 == 0;
                    if cut {
                        let shorter = 150_000 + 4096 * round + thread;
                        let file = fs::File::options().write(true).open(&path).expect("opens");
                        file.set_len(shorter).expect("shortened");
                    }
                    assert_eq!(sum(&file) == whole, !cut);
                    assert_eq!(file.check_intact().is_err(), cut);
                    fs::remove_file(&path).expect("removed");
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes: Vec<u8>, length in 0u64..200) {
        bytes.splice(0..0, length.to_le_bytes());
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("x");
        fs::write(&path, &bytes).expect("written");
        let _ = inspect(&path);
        let _ = Model::open(&path, Precision::F32);
    }

    #[test]
    fn a_flipped_byte_in_the_header_never_panics(position in 0usize..60_000, value: u8) {
        let mut parts = Parts::tiny().bytes();
        let length = u64::from_le_bytes(parts[..8].try_into().expect("8 bytes")) as usize + 8;
        parts[position % length] = value;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("x");
        fs::write(&path, &parts).expect("written");
        let _ = Model::open(&path, Precision::F32);
    }
}
