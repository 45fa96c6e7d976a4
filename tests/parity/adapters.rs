//! Files of the LoRA family against what their own packages make of the same weights (`tests/fixtures/adapters`).

use std::sync::Arc;

use latentd_models::adapters::{Adapter, Network, Targets};
use latentd_models::files;
use latentd_models::image::RgbImage;
use latentd_models::model::{Checkpoint, ComponentKind, Model};
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Patch, Precision};
use latentd_models::pipeline::{NoStages, Txt2Img};
use serde::Deserialize;

use crate::drawing::{psnr, sampler, txt2img};
use crate::golden::{Golden, checkpoint, fixture, relative_error, values};

/// f32 rounds at 6e-8; a product of some tens and what follows it stay well within this.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Case {
    file: String,
    #[serde(default)]
    te: f32,
    #[serde(default)]
    unet: f32,
    dyn_: Option<usize>,
    golden: Option<String>,
    /// PEFT's configuration beside the file, and what it makes of it.
    config: Option<String>,
    golden_with_config: Option<String>,
    #[serde(default)]
    tensors: Vec<String>,
    #[serde(default)]
    unmatched: Vec<String>,
    expect: Option<String>,
    #[serde(default)]
    broken: bool,
    #[serde(default)]
    why: String,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(fixture("adapters/cases.json")).expect("cases");
    serde_json::from_str(&text.replace("\"dyn\"", "\"dyn_\"")).expect("cases")
}

fn targets() -> Targets {
    let file = files::open(&checkpoint("tiny-sd1")).expect("opens");
    Targets::new(file.names().map(|name| (name.to_owned(), file.shape(name).expect("a shape").to_vec())))
}

fn adapter(name: &str, dynamic: Option<usize>) -> latentd_models::Result<Adapter> {
    Adapter::of(files::open(&fixture(&format!("adapters/{name}")))?, &targets(), dynamic, None)
}

/// Changes a tensor of this shape.
fn apply(
    adapter: &Arc<Adapter>,
    (te, unet): (f32, f32),
    (name, shape): (&str, &[usize]),
    weights: &mut [f32],
) -> latentd_models::Result<()> {
    for (network, strength) in [(Network::Text, te), (Network::UNet, unet)] {
        let Some(patch) = adapter.patch(network, strength, [0; 32]) else { continue };
        if patch.touches(name) {
            patch.apply(name, shape, weights)?;
            if weights.iter().any(|weight| !weight.is_finite()) {
                return Err(patch.not_finite(name));
            }
        }
    }
    Ok(())
}

/// A tensor as the adapter changes it, from the checkpoint's.
fn changed(adapter: &Arc<Adapter>, strengths: (f32, f32), name: &str) -> latentd_models::Result<Vec<f32>> {
    let base = Golden::read(&checkpoint("tiny-sd1"));
    let mut weights = base.floats(name);
    apply(adapter, strengths, (name, base.get(name).dims()), &mut weights)?;
    Ok(weights)
}

#[test]
fn weights_are_what_the_packages_make_of_them() {
    let golden = Golden::read(&fixture("adapters/golden.safetensors"));
    let mut worst = (0.0, String::new());
    for case in cases() {
        let Some(key) = &case.golden else { continue };
        let adapter = Arc::new(adapter(&case.file, case.dyn_).unwrap_or_else(|error| panic!("{error}")));
        let touched: Vec<&str> = adapter.tensors().collect();
        assert_eq!(touched, case.tensors, "{}", case.file);
        let unapplied = adapter.unapplied().map_or((0, ""), |left| (left.count, left.first.as_str()));
        let first = case.unmatched.iter().min().map_or("", String::as_str);
        assert_eq!(unapplied, (case.unmatched.len(), first), "{}", case.file);
        for name in &case.tensors {
            let found = changed(&adapter, (case.te, case.unet), name).expect("applies");
            let error = relative_error(&found, &values(golden.get(&format!("{key}/{name}"))));
            assert!(error < TOLERANCE, "{key} {name}: relative error {error:.2e}");
            if error > worst.0 {
                worst = (error, format!("{key} {name}"));
            }
        }
    }
    println!("worst relative error {:.2e}: {}", worst.0, worst.1);
}

/// The checkpoint with some of its tensors replaced by these, in f32.
fn with_weights(weights: &[(&str, Vec<f32>)]) -> Model {
    let file = files::open(&checkpoint("tiny-sd1")).expect("opens");
    let (mut header, mut data) = (serde_json::Map::new(), vec![]);
    for name in file.names() {
        let begin = data.len();
        let dtype = if let Some((_, values)) = weights.iter().find(|(changed, _)| *changed == name) {
            data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            "F32".to_owned()
        } else {
            data.extend_from_slice(&file.bytes(name).expect("reads").expect("there"));
            file.dtype(name).expect("a type").name().to_uppercase()
        };
        let shape = file.shape(name).expect("a shape");
        header.insert(
            name.to_owned(),
            serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]}),
        );
    }
    let header = serde_json::Value::from(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    Model::from_bytes("golden.safetensors", bytes, Precision::F32).expect("a model")
}

fn drawn(model: &Model) -> RgbImage {
    let request = Txt2Img {
        prompt: "a red circle".into(),
        seed: 42,
        steps: 6,
        width: 64,
        height: 64,
        sampler: sampler("Euler"),
        ..Txt2Img::default()
    };
    txt2img(model, &request, &mut NoStages).expect("draws").remove(0).image
}

/// Of each kind: with the file on the way into memory the picture is that of a checkpoint which has its package's weights.
#[test]
fn a_picture_of_each_kind_is_that_of_its_packages_weights() {
    let golden = Golden::read(&fixture("adapters/golden.safetensors"));
    let source = Checkpoint::open(&checkpoint("tiny-sd1")).expect("opens");
    let load = |kind| source.load(kind, &cpu(), Precision::F32, &|| false).expect("loads");
    let base = ComponentKind::ALL.map(load);
    let plain = drawn(&Model::of(&source, base.clone(), Precision::F32).expect("a model"));
    let (mut worst, mut count, mut unchanged) = (f64::INFINITY, 0, vec![]);
    for case in cases() {
        let Some(key) = &case.golden else { continue };
        let adapter = Arc::new(adapter(&case.file, case.dyn_).unwrap_or_else(|error| panic!("{error}")));
        let patched = |index: usize, network, strength| {
            let patch = adapter.patch(network, strength, [1; 32]);
            let patches: Vec<_> = patch.into_iter().map(|patch| Arc::new(patch) as Arc<dyn Patch>).collect();
            source
                .load_patched(&base[index], &[], &patches, &cpu(), Precision::F32, &|| false)
                .expect("loads")
        };
        let made =
            [patched(0, Network::Text, case.te), patched(1, Network::UNet, case.unet), base[2].clone()];
        let found = drawn(&Model::of(&source, made, Precision::F32).expect("a model"));
        let weights: Vec<(&str, Vec<f32>)> = case
            .tensors
            .iter()
            .map(|name| (name.as_str(), values(golden.get(&format!("{key}/{name}")))))
            .collect();
        let wanted = drawn(&with_weights(&weights));
        let psnr = psnr(&found, &wanted);
        assert!(psnr >= 60.0, "{}: {psnr:.1} dB", case.file);
        if found == plain {
            unchanged.push(case.file.clone());
        }
        worst = worst.min(psnr);
        count += 1;
    }
    println!("{count} pictures, worst PSNR {worst:.1} dB; the same as without: {unchanged:?}");
    assert!(count >= 40 && unchanged.len() * 5 < count, "{count}: {unchanged:?}");
}

#[test]
fn what_peft_saves_beside_its_file_counts() {
    let golden = Golden::read(&fixture("adapters/golden.safetensors"));
    let mut count = 0;
    for case in cases() {
        let (Some(config), Some(key)) = (&case.config, &case.golden_with_config) else { continue };
        let config =
            std::fs::read_to_string(fixture(&format!("adapters/{config}"))).expect("a configuration");
        let file = files::open(&fixture(&format!("adapters/{}", case.file))).expect("opens");
        let adapter = Arc::new(Adapter::of(file, &targets(), None, Some(&config)).expect("fits"));
        for name in &case.tensors {
            let found = changed(&adapter, (case.te, case.unet), name).expect("applies");
            let error = relative_error(&found, &values(golden.get(&format!("{key}/{name}"))));
            assert!(error < TOLERANCE, "{key} {name}: relative error {error:.2e}");
            count += 1;
        }
    }
    assert!(count > 0);
}

#[derive(Deserialize)]
struct Stack {
    files: Vec<(String, f32, f32)>,
    golden: String,
    tensors: Vec<String>,
}

#[test]
fn each_changes_what_the_former_left() {
    let golden = Golden::read(&fixture("adapters/golden.safetensors"));
    let base = Golden::read(&checkpoint("tiny-sd1"));
    let text = std::fs::read_to_string(fixture("adapters/stacks.json")).expect("stacks");
    for stack in serde_json::from_str::<Vec<Stack>>(&text).expect("stacks") {
        for name in &stack.tensors {
            let mut weights = base.floats(name);
            for (file, te, unet) in &stack.files {
                let adapter = Arc::new(adapter(file, None).expect("opens"));
                apply(&adapter, (*te, *unet), (name, base.get(name).dims()), &mut weights).expect("applies");
            }
            let error = relative_error(&weights, &values(golden.get(&format!("{}/{name}", stack.golden))));
            assert!(error < TOLERANCE, "{} {name}: relative error {error:.2e}", stack.golden);
        }
    }
}

/// The first convolution of an inpainting model sees five channels more, which nothing here knows.
#[test]
fn of_an_inpainting_model_the_part_is_changed_that_every_model_has() {
    const FIRST: &str = "model.diffusion_model.input_blocks.0.0.weight";
    let golden = Golden::read(&fixture("adapters/golden.safetensors"));
    let base = Golden::read(&checkpoint("tiny-sd1"));
    let file = files::open(&checkpoint("tiny-sd1")).expect("opens");
    let shape = |name: &str| match file.shape(name).expect("a shape") {
        [outputs, _, rows, columns] if name == FIRST => vec![*outputs, 9, *rows, *columns],
        shape => shape.to_vec(),
    };
    let targets = Targets::new(file.names().map(|name| (name.to_owned(), shape(name))));
    let (first, shape) = (base.floats(FIRST), shape(FIRST));
    let taps = shape[2] * shape[3];
    for name in ["lycoris-locon", "lycoris-loha", "lycoris-dora-in"] {
        let file = files::open(&fixture(&format!("adapters/{name}.safetensors"))).expect("opens");
        let adapter = Arc::new(Adapter::of(file, &targets, None, None).expect("fits"));
        let case =
            cases().into_iter().find(|case| case.file == format!("{name}.safetensors")).expect("there");
        let mut weights: Vec<f32> =
            first.chunks_exact(4 * taps).flat_map(|row| [row, &vec![0.5; 5 * taps]].concat()).collect();
        apply(&adapter, (case.te, case.unet), (FIRST, &shape), &mut weights).expect("applies");
        let (part, more): (Vec<&[f32]>, Vec<&[f32]>) =
            weights.chunks_exact(9 * taps).map(|row| row.split_at(4 * taps)).unzip();
        assert!(more.concat().iter().all(|weight| *weight == 0.5), "{name}");
        let wanted = values(golden.get(&format!("{}/{FIRST}", case.golden.expect("a golden"))));
        assert!(relative_error(&part.concat(), &wanted) < TOLERANCE, "{name}");
    }
}

#[test]
fn what_is_for_another_family_says_so_and_changes_nothing() {
    for case in cases() {
        let Some(expected) = &case.expect else { continue };
        let adapter = adapter(&case.file, None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(adapter.tensors().count(), 0, "{}", case.file);
        let told = adapter.unapplied().expect("said").to_string();
        let family = if expected == "sdxl" { "is for SDXL and " } else { "is for Stable Diffusion 2 and " };
        assert!(told.starts_with(family) && told.contains("the first "), "{}: {told}", case.file);
        println!("{}: {told}", case.file);
    }
}

#[test]
fn what_is_broken_is_named_and_not_half_applied() {
    for case in cases().into_iter().filter(|case| case.broken) {
        let told = match adapter(&case.file, None) {
            Err(error) => error.to_string(),
            Ok(adapter) => match adapter.unapplied() {
                Some(left) if adapter.tensors().count() == 0 => left.to_string(),
                _ => {
                    let adapter = Arc::new(adapter);
                    let names: Vec<String> = adapter.tensors().map(str::to_owned).collect();
                    let applied: Result<Vec<_>, _> =
                        names.iter().map(|name| changed(&adapter, (1.0, 1.0), name)).collect();
                    applied
                        .err()
                        .unwrap_or_else(|| panic!("{}: {} goes through", case.file, case.why))
                        .to_string()
                }
            },
        };
        println!("{} ({}): {told}", case.file, case.why);
        let names = ["lora_", "model.diffusion_model.", "tensors do not fill it"];
        let is_named = names.iter().any(|name| told.contains(name));
        assert!(is_named, "{}: {told}", case.file);
    }
}
