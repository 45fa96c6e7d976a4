//! IP-Adapters against diffusers, and the CLIP that they see pictures by against transformers, in f32, with weights that both make up
//! by one rule (`tests/fixtures/ip_adapters.py`). Tolerance: 1e-4 of the largest number.

use latentd_models::files;
use latentd_models::networks::known::KnownNetwork;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::backend::fake::fake;
use latentd_models::nn::{Device, Precision, Run};
use latentd_models::{Result, Tensor};

use crate::golden::{Golden, assert_close};
use crate::made_up;

/// A case's file, some of whose tensors may be left out.
fn file(case: &str, stays: impl Fn(&str) -> bool) -> files::Tensors {
    let bytes =
        made_up::file("ip_adapters", case, |name, shape| stays(name).then(|| (name.to_owned(), shape)));
    files::from_bytes(case, bytes).expect("opens")
}

fn known(case: &str) -> (files::Tensors, KnownNetwork) {
    let file = file(case, |_| true);
    let known = KnownNetwork::of(&file).expect("whole").expect("known");
    (file, known)
}

/// What comes out of a part, by name.
fn run(
    (file, known): &(files::Tensors, KnownNetwork),
    device: &Device,
    part: &str,
    inputs: Vec<(String, Tensor)>,
) -> Result<Vec<(&'static str, Tensor)>> {
    let network = known.open(file, device, Precision::F32)?;
    let entry = known.described().entry(part)?;
    let sizes: Vec<_> = inputs.iter().map(|(_, tensor)| tensor.dims().to_vec()).collect();
    let ordered = entry.in_order(inputs, |tensor: &Tensor| tensor.dims().to_vec())?;
    let made = network.run(entry, &ordered, &Run::WHOLE)?;
    // On a device that nobody else is on.
    if device.kind() == "fake" {
        let most = known.weight_bytes().unwrap_or(u64::MAX) + known.activation_bytes(entry, &sizes);
        assert!(device.memory().most <= most, "{part}: {} bytes", device.memory().most);
    }
    Ok(entry.outputs.iter().map(|port| port.name).zip(made).collect())
}

#[test]
fn what_clip_sees_is_what_transformers_says() {
    let golden = Golden::open("ip_adapters");
    for case in ["vision", "wide-vision"] {
        let network = known(case);
        assert_eq!(network.1.described().kind, "clip-vision");
        let (fake, _) = fake(512 << 20, None).expect("a fake device");
        for device in [&cpu(), &fake] {
            let image = vec![("image".to_owned(), golden.get("image").clone())];
            for (part, inputs, what) in [("", image, "seen"), ("nothing", vec![], "nothing")] {
                for (name, made) in run(&network, device, part, inputs).expect("runs") {
                    let wanted = golden.get(&format!("{case}.{what}.{name}"));
                    assert_close(&format!("{case} {what} {name}"), &made, wanted, 1e-4);
                }
            }
        }
    }
}

#[test]
fn keys_and_values_are_diffusers() {
    let golden = Golden::open("ip_adapters");
    for (case, input) in [("plain", "embedding"), ("plus", "hidden")] {
        let network = known(case);
        assert_eq!(network.1.described().kind, "ip-adapter");
        let (fake, _) = fake(512 << 20, None).expect("a fake device");
        for device in [&cpu(), &fake] {
            let seen = golden.get(&format!("vision.seen.{input}")).clone();
            let made = run(&network, device, "keys", vec![(input.to_owned(), seen)]).expect("runs");
            assert_eq!(made.len(), 14);
            for (name, made) in made {
                let wanted = golden.get(&format!("{case}.{name}"));
                assert_close(&format!("{case} {name}"), &made, wanted, 1e-4);
            }
        }
    }
}

#[test]
fn what_makes_no_ip_adapter_is_named() {
    for (case, part, expected) in [
        ("plain", "image_proj.norm.bias", "missing tensor image_proj.norm.bias"),
        ("plain", "ip_adapter.3.to_v_ip.weight", "missing tensor ip_adapter.3.to_v_ip.weight"),
        ("plain", "ip_adapter.5.to_k_ip.weight", "extra tensor ip_adapter.5.to_v_ip.weight"),
        ("plain", "image_proj.norm.weight", "of another kind"),
        ("plus", "layers.1.0.to_kv.weight", "missing tensor image_proj.layers.1.0.to_kv.weight"),
        ("vision", "visual_projection.weight", "visual_projection.weight"),
        ("vision", "layers.2.mlp.fc2.bias", "missing tensor vision_model.encoder.layers.2.mlp.fc2.bias"),
    ] {
        let file = file(case, |name| !name.ends_with(part));
        let error = KnownNetwork::of(&file).err().expect("refused").to_string();
        assert!(error.contains(expected), "{case}, {part}: {error}");
    }
    // ViT-B, whose heads are others.
    let bytes = made_up::file("ip_adapters", "vision", |name, mut shape| {
        if name.ends_with("patch_embedding.weight") {
            shape[0] = 768;
        }
        Some((name.to_owned(), shape))
    });
    let error = KnownNetwork::of(&files::from_bytes("vision", bytes).expect("opens"))
        .err()
        .expect("refused")
        .to_string();
    assert!(error.contains("is 768 wide, as no CLIP with 16 heads is"), "{error}");
}
