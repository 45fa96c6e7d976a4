//! TAESD's decoder against diffusers' `AutoencoderTiny` in f32, with weights that both make up by one rule
//! (`tests/fixtures/taesd.py`). Tolerance as in `networks.rs`: 34 convolutions of up to 576 terms.

use std::collections::BTreeMap;

use latentd_models::files;
use latentd_models::networks::taesd::{Taesd, TaesdConfig};
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Precision, Run};

use crate::golden::{Golden, assert_close};

/// Names as diffusers has them within the decoder, and shapes.
fn tensors() -> BTreeMap<String, Vec<usize>> {
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| drop(tensors.insert(name, shape.to_vec()));
    for layer in [2, 3, 4, 7, 8, 9, 12, 13, 14, 17] {
        for part in [0, 2, 4] {
            add(format!("layers.{layer}.conv.{part}.weight"), &[64, 64, 3, 3]);
            add(format!("layers.{layer}.conv.{part}.bias"), &[64]);
        }
    }
    for layer in [6, 11, 16] {
        add(format!("layers.{layer}.weight"), &[64, 64, 3, 3]);
    }
    for (layer, outputs, inputs) in [(0, 64, 4), (18, 3, 64)] {
        add(format!("layers.{layer}.weight"), &[outputs, inputs, 3, 3]);
        add(format!("layers.{layer}.bias"), &[outputs]);
    }
    tensors
}

/// Element i of tensor t, as the script has it.
fn made_up(tensor: usize, shape: &[usize]) -> Vec<f32> {
    let inputs = if shape.len() > 1 { shape[1..].iter().product() } else { 100 };
    let count: usize = shape.iter().product();
    let hashed = (1..=count as u64).map(|at| (at * 2_654_435_761 + tensor as u64 * 40_503) % (1 << 32));
    let uniform = hashed.map(|hashed| hashed as f64 / 2f64.powi(32) - 0.5);
    uniform.map(|uniform| (uniform * 3.0 / f64::from(inputs as u32).sqrt()) as f32).collect()
}

/// A safetensors file with these tensors under other names.
fn file(called: impl Fn(usize, &str) -> String) -> Vec<u8> {
    let (mut header, mut data) = (BTreeMap::new(), Vec::<u8>::new());
    for (index, (name, shape)) in tensors().into_iter().enumerate() {
        let start = data.len();
        data.extend(made_up(index, &shape).into_iter().flat_map(f32::to_le_bytes));
        let (layer, rest) = name["layers.".len()..].split_once('.').expect("a layer");
        let offsets = [start, data.len()];
        let info = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets });
        header.insert(called(layer.parse().expect("a number"), rest), info);
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

#[test]
fn taesd_decodes_whatever_its_file_calls_its_layers() {
    let golden = Golden::open("taesd");
    let conventions: [(&str, Vec<u8>); 3] = [
        ("A1111", file(|layer, rest| format!("{}.{rest}", layer + 1))),
        ("diffusers", file(|layer, rest| format!("decoder.layers.{layer}.{rest}"))),
        ("ComfyUI", file(|layer, rest| format!("taesd_decoder.{}.{rest}", layer + 1))),
    ];
    for (name, bytes) in conventions {
        let file = files::from_bytes(name, bytes).expect("opens");
        assert_eq!(TaesdConfig::detect(&file).expect(name).latent_channels, 4);
        let taesd = Taesd::open(&file, &cpu(), Precision::F32).expect("loads");
        let image = taesd.decode(golden.get("latents"), &Run::WHOLE).expect("decodes");
        assert_close(name, &image, golden.get("image"), 1e-5);
    }
    let other = files::from_bytes("other", file(|layer, rest| format!("x.{layer}.{rest}"))).expect("opens");
    let refused = Taesd::open(&other, &cpu(), Precision::F32).err().expect("refused").to_string();
    assert!(refused.contains("other") && refused.contains("no TAESD decoder"), "{refused}");
}
