//! Hypernetworks as A1111 writes them, against the same networks in torch, and a picture with one
//! (`tests/fixtures/adapters`).

use std::sync::Arc;

use latentd_models::adapters::Hypernetwork;
use latentd_models::model::{Model, TextEncoder};
use latentd_models::networks::unet::UNet;
use latentd_models::networks::vae::Vae;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Activations, Device, KeyValueTransform, Precision};
use latentd_models::pipeline::Components;
use latentd_models::{Result, files};
use serde::Deserialize;
use serde_json::Value;

use crate::drawing::{is_the_references, request};
use crate::golden::{Golden, checkpoint, fixture, relative_error, values};

#[derive(Deserialize)]
struct Case {
    file: String,
    #[serde(default)]
    strength: f32,
    #[serde(default)]
    widths: Vec<usize>,
    #[serde(default)]
    broken: bool,
    #[serde(default)]
    why: String,
}

fn load(file: &str, strength: f32, precision: Precision) -> Result<Arc<dyn KeyValueTransform>> {
    let file = files::open(&fixture(&format!("adapters/{file}")))?;
    Hypernetwork::of(&file)?.load(&file, &cpu(), precision, strength, [0; 32])
}

/// f32 rounds at 6e-8 and bf16 at 4e-3, in each of some layers.
#[test]
fn keys_and_values_are_those_of_torch() {
    let text = std::fs::read_to_string(fixture("adapters/hypernets.json")).expect("cases");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("cases");
    let golden = Golden::read(&fixture("adapters/hypernets.safetensors"));
    assert!(cases.len() > 20);
    let mut worst = 0f64;
    for Case { file, strength, widths, broken, why } in cases {
        for (precision, tolerance) in [(Precision::F32, 1e-6), (Precision::Bf16, 2e-2)] {
            let loaded = load(&file, strength, precision);
            if broken {
                let error = loaded.err().unwrap_or_else(|| panic!("{file}: {why}")).to_string();
                assert!(error.contains(&file), "{error}");
                continue;
            }
            let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
            for width in &widths {
                assert!(loaded.applies_to(*width), "{file}: {width}");
                let part = |part: &str| golden.get(&format!("{file}/{width}.{part}"));
                let device = cpu();
                let x = device.upload(part("x").values(), part("x").dims()).expect("uploads");
                let x = device.convert(&x, precision).expect("converts");
                let through = |of: &dyn Fn(&Device, &Activations) -> Result<Activations>| {
                    device.download(&of(&device, &x).expect("runs")).expect("downloads")
                };
                let keys = through(&|device, x| loaded.keys(device, x));
                let of_values = through(&|device, x| loaded.values(device, x));
                for (found, wanted) in [(keys, part("keys")), (of_values, part("values"))] {
                    let error = relative_error(&found, &values(wanted));
                    assert!(error < tolerance, "{file}, {width}, {}: {error:.2e}", precision.name());
                    if precision == Precision::F32 {
                        worst = worst.max(error);
                    }
                }
            }
        }
    }
    println!("hypernetworks: worst relative error {worst:.2e}");
}

struct WithTransforms<'a>(&'a Model, Vec<Arc<dyn KeyValueTransform>>);

impl Components for WithTransforms<'_> {
    fn text_encoder(&mut self) -> Result<Arc<TextEncoder>> {
        Ok(Arc::clone(self.0.text_encoder()))
    }

    fn unet(&mut self) -> Result<Arc<UNet>> {
        Ok(Arc::clone(self.0.unet()))
    }

    fn vae(&mut self) -> Result<Arc<Vae>> {
        Ok(Arc::clone(self.0.vae()))
    }

    fn transforms(&mut self) -> Result<Vec<Arc<dyn KeyValueTransform>>> {
        Ok(self.1.clone())
    }
}

#[test]
fn a_picture_with_a_hypernetwork_is_the_references() {
    let text = std::fs::read_to_string(fixture("adapters/pictures.json")).expect("pictures");
    let entries: Vec<Value> = serde_json::from_str(&text).expect("pictures");
    let model = Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens");
    let mut drawn = 0;
    for entry in &entries {
        let Some(named) = entry["hypernetworks"].as_array() else { continue };
        let loaded = named.iter().map(|pair| {
            let strength = pair[1].as_f64().expect("a strength") as f32;
            load(pair[0].as_str().expect("a name"), strength, Precision::F32).expect("loads")
        });
        let mut components = WithTransforms(&model, loaded.collect());
        is_the_references(&model, &mut components, &request(entry), entry);
        drawn += 1;
    }
    assert!(drawn > 0);
}
