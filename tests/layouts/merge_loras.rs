//! LoRAs in the weights of merged checkpoints, against what the add-ons' own packages make of the same weights
//! (`tests/fixtures/adapters`).

use std::fs;

use latentd_models::model::{Interpolation, Merge, WeightDtype};
use serde_json::Value;

use crate::folder::read;
use crate::merge::{Files, From, fixture, floats, merge, merged, other, refused, settled, tiny, write};

/// |found − wanted| / |wanted|.
fn relative_error(found: &[f32], wanted: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(wanted).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut wanted.iter().map(|v| f64::from(*v)))
}

#[test]
fn loras_are_in_the_weights_as_their_packages_have_them() {
    let adapters = fixture("adapters");
    let golden = read(&adapters.join("golden.safetensors"));
    let cases: Value =
        serde_json::from_slice(&fs::read(adapters.join("cases.json")).expect("read")).expect("JSON");
    let a = tiny();
    let wide = Merge { dtype: Some(WeightDtype::F32), ..merge(Interpolation::None, 0.0) };
    let mut seen = 0;
    for case in cases.as_array().expect("cases").iter().filter(|case| case["golden"].is_string()) {
        let (file, key) = (case["file"].as_str().expect("a name"), case["golden"].as_str().expect("a name"));
        let strength = |name: &str| case[name].as_f64().expect("a number") as f32;
        let dynamic = case["dyn"].as_u64().map(|ranks| ranks as usize);
        let at = adapters.join(file);
        let loras = [(at.as_path(), strength("te"), strength("unet"), dynamic)];
        let (found, notices) = merged(wide.clone(), From { loras: &loras, ..From::default() });
        let unmatched = case["unmatched"].as_array().expect("a list").len();
        assert_eq!(notices.len(), usize::from(unmatched > 0), "{file}: {notices:?}");
        let changed: Vec<_> = case["tensors"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|name| name.as_str().expect("a name"))
            .collect();
        for (name, tensor) in &found {
            if changed.contains(&name.as_str()) {
                let error = relative_error(&floats(tensor), &floats(&golden[&format!("{key}/{name}")]));
                assert!(error < 1e-5, "{key} {name}: {error:.2e}");
            } else {
                assert!(floats(tensor) == floats(&a[name]), "{file} leaves {name} alone");
            }
        }
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn loras_come_after_the_mixture_in_their_order() {
    let adapters = fixture("adapters");
    let golden = read(&adapters.join("golden.safetensors"));
    let stacks: Value =
        serde_json::from_slice(&fs::read(adapters.join("stacks.json")).expect("read")).expect("JSON");
    // At 1 all that is mixed is B's, which are the numbers that the reference had.
    let folder = Files::new();
    let (at_a, b) = (
        folder.put("a.safetensors", &other(&tiny(), 1)),
        fixture("models/Stable-diffusion/tiny-sd1.safetensors"),
    );
    let wanted = Merge { dtype: Some(WeightDtype::F32), ..merge(Interpolation::WeightedSum, 1.0) };
    for stack in stacks.as_array().expect("stacks") {
        let files: Vec<_> = stack["files"].as_array().expect("a list").iter().collect();
        let paths: Vec<_> =
            files.iter().map(|file| adapters.join(file[0].as_str().expect("a name"))).collect();
        let strength = |value: &Value| value.as_f64().expect("a number") as f32;
        let loras: Vec<_> = paths
            .iter()
            .zip(&files)
            .map(|(path, file)| (path.as_path(), strength(&file[1]), strength(&file[2]), None))
            .collect();
        let from = From { a: Some(&at_a), b: Some(&b), loras: &loras, ..From::default() };
        let (found, _) = merged(wanted.clone(), from);
        let key = stack["golden"].as_str().expect("a name");
        for name in stack["tensors"].as_array().expect("a list").iter().filter_map(Value::as_str) {
            let error = relative_error(&floats(&found[name]), &floats(&golden[&format!("{key}/{name}")]));
            assert!(error < 1e-5, "{key} {name}: {error:.2e}");
        }
    }
    let at = adapters.join("lycoris-locon.safetensors");
    let loras = vec![(at.as_path(), 3e38, 3e38, None); 99];
    let large =
        settled(wanted, From { b: Some(&b), loras: &loras, ..From::default() }).expect("not read yet");
    let error = write(&large, &folder.at("x")).expect_err("refused").to_string();
    assert!(error.contains("infinite at a strength of 3"), "{error}");
    for (name, reason) in [
        ("other-sdxl.safetensors", "is for"),
        ("broken-shape.safetensors", "do not fit this model"),
        ("broken-no-up.safetensors", "broken-no-up.safetensors: "),
    ] {
        let at = adapters.join(name);
        let loras = [(at.as_path(), 1.0, 1.0, None)];
        let error = refused(merge(Interpolation::None, 0.0), From { loras: &loras, ..From::default() });
        assert!(error.contains(reason), "{name}: {error}");
    }
}
