//! What changes a model: patches of its weights, vectors in the place of tokens, transforms of keys and values.

use std::sync::Arc;

use latentd_models::Result;
use latentd_models::model::{Checkpoint, Component, Model, Network};
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::backend::fake::fake;
use latentd_models::nn::{Activations, Device, KeyValueTransform, Parts, Patch, Precision, Run};
use latentd_models::pipeline::{Components, NoStages};
use latentd_models::prompt::{Chunk, Embeddings, Emphasis, Reading, Variant, chunks, encode_variants};
use proptest::prelude::*;

use crate::drawing::{checkpoint, components, draw, draw_with, request};

const TOUCHED: &str = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight";

/// Changes one tensor by a function of each weight.
struct Each(&'static str, fn(f32) -> f32);

impl Patch for Each {
    fn digest(&self) -> [u8; 32] {
        [0; 32]
    }

    fn touches(&self, name: &str) -> bool {
        name == self.0
    }

    fn apply(&self, _name: &str, shape: &[usize], weights: &mut [f32]) -> Result<()> {
        assert_eq!(shape.iter().product::<usize>(), weights.len());
        for weight in weights {
            *weight = (self.1)(*weight);
        }
        Ok(())
    }
}

fn patched(
    checkpoint: &Checkpoint,
    base: &Component,
    patches: &[Arc<dyn Patch>],
    precision: Precision,
) -> Component {
    checkpoint.load_patched(base, &[], patches, &cpu(), precision, &|| false).expect("loads")
}

fn drawn_with(
    checkpoint: &Checkpoint,
    base: &[Component; 3],
    unet: Component,
    precision: Precision,
) -> Vec<u8> {
    let model = Model::of(checkpoint, [base[0].clone(), unet, base[2].clone()], precision).expect("a model");
    draw(&model, &request()).expect("draws").remove(0).image.pixels
}

fn others(parts: &Parts) -> Vec<(String, usize)> {
    parts
        .iter()
        .filter(|(name, _)| *name != TOUCHED)
        .map(|(name, part)| (name.to_owned(), part.address()))
        .collect()
}

#[test]
fn a_patched_network_shares_what_no_patch_touches() {
    let checkpoint = checkpoint();
    for precision in [Precision::F32, Precision::Bf16] {
        let base = components(&checkpoint, &cpu(), precision);
        let before = drawn_with(&checkpoint, &base, base[1].clone(), precision);
        let nothing = patched(&checkpoint, &base[1], &[], precision);
        assert_eq!(nothing.parts.bytes_beside(&base[1].parts), 0, "nothing is copied for nothing");
        assert_eq!(drawn_with(&checkpoint, &base, nothing, precision), before);

        let twice: Vec<Arc<dyn Patch>> = vec![Arc::new(Each(TOUCHED, |weight| weight * 3.0))];
        let something = patched(&checkpoint, &base[1], &twice, precision);
        assert_eq!(others(&something.parts), others(&base[1].parts), "every other tensor is the base's own");
        let (own, of_base) = (&something.parts, &base[1].parts);
        let address = |parts: &Parts| parts.get(TOUCHED).expect("there").address();
        assert_ne!(address(own), address(of_base));
        let size = own.get(TOUCHED).expect("there").bytes() as u64;
        assert_eq!(own.bytes_beside(of_base), size);
        assert_ne!(drawn_with(&checkpoint, &base, something, precision), before, "it does something");
        assert_eq!(
            drawn_with(&checkpoint, &base, base[1].clone(), precision),
            before,
            "the base is as it was"
        );
    }
}

#[test]
fn patches_see_what_the_former_left_and_one_that_changes_nothing_gives_the_same_bytes() {
    let checkpoint = checkpoint();
    let base = components(&checkpoint, &cpu(), Precision::F32);
    let before = drawn_with(&checkpoint, &base, base[1].clone(), Precision::F32);
    let with = |patches: Vec<Arc<dyn Patch>>| {
        let unet = patched(&checkpoint, &base[1], &patches, Precision::F32);
        drawn_with(&checkpoint, &base, unet, Precision::F32)
    };
    assert_eq!(
        with(vec![Arc::new(Each(TOUCHED, |weight| weight))]),
        before,
        "f16 as f32 are the same numbers"
    );
    let double: Arc<dyn Patch> = Arc::new(Each(TOUCHED, |weight| weight * 2.0));
    let one_more: Arc<dyn Patch> = Arc::new(Each(TOUCHED, |weight| weight + 0.125));
    let at_once: Arc<dyn Patch> = Arc::new(Each(TOUCHED, |weight| weight * 2.0 + 0.125));
    let in_turn = with(vec![double.clone(), one_more.clone()]);
    assert_eq!(in_turn, with(vec![at_once]));
    assert_ne!(in_turn, with(vec![one_more, double]), "the order counts");
}

/// Only what is the same is shared with a base of another precision, and nothing with one on another device.
#[test]
fn a_base_of_another_kind_is_not_shared_by_mistake() {
    let checkpoint = checkpoint();
    let base = components(&checkpoint, &cpu(), Precision::F32);
    let wanted = components(&checkpoint, &cpu(), Precision::Bf16);
    let beside = patched(&checkpoint, &base[1], &[], Precision::Bf16);
    let bytes = beside.parts.bytes_beside(&base[1].parts);
    assert!(0 < bytes && bytes < beside.bytes(), "vectors are the same in any precision");
    let draw = |unet| drawn_with(&checkpoint, &wanted, unet, Precision::Bf16);
    assert_eq!(draw(beside), draw(wanted[1].clone()));
    let (device, _) = fake(64 << 20, None).expect("memory");
    let elsewhere = checkpoint.load_patched(&base[1], &[], &[], &device, Precision::F32, &|| false);
    assert!(elsewhere.is_err(), "another device");
}

/// A patch that refuses costs the load, not the base.
#[test]
fn a_patch_that_does_not_fit_is_an_error() {
    struct Refusing;
    impl Patch for Refusing {
        fn digest(&self) -> [u8; 32] {
            [1; 32]
        }
        fn touches(&self, name: &str) -> bool {
            name == TOUCHED
        }
        fn apply(&self, name: &str, shape: &[usize], _weights: &mut [f32]) -> Result<()> {
            Err(latentd_models::Error::Request(format!("{name} {shape:?}: made for another model")))
        }
    }
    let checkpoint = checkpoint();
    let base = components(&checkpoint, &cpu(), Precision::F32);
    let refused =
        checkpoint.load_patched(&base[1], &[], &[Arc::new(Refusing)], &cpu(), Precision::F32, &|| false);
    assert!(refused.err().expect("refused").to_string().contains("made for another model"));
}

#[test]
fn a_vector_in_the_place_of_a_token_is_what_the_encoder_sees() {
    let base = components(&checkpoint(), &cpu(), Precision::F32);
    let Network::TextEncoder(encoder) = &base[0].network else { panic!("a text encoder") };
    let clip = &encoder.clip;
    let encoded = |chunks: &[Chunk]| {
        let variant = Variant { chunks: chunks.to_vec(), count: 1 };
        let encoded = encode_variants(clip, &[variant], Emphasis::Original, 1, &Run::WHOLE);
        encoded.expect("encodes").remove(0).tokens
    };
    let plain = chunks("a red circle", &Embeddings::default(), &Reading::default()).expect("chunks");
    // The embeddings of the same tokens without their positions: at each place that of "red", less the position's own.
    let states = clip.hidden_states(&[plain[0].ids.clone()], &[], &Run::WHOLE).expect("runs");
    let zero = vec![0.0; clip.config().width];
    let mut silent = plain.clone();
    silent[0].vectors.push((2, zero.clone().into()));
    let vectors =
        [latentd_models::networks::clip::TokenVector { sequence: 0, position: 2, vector: zero.into() }];
    let position = clip.hidden_states(&[plain[0].ids.clone()], &vectors, &Run::WHOLE).expect("runs");
    let row = |states: &[latentd_models::Tensor]| states[0].get(0).and_then(|x| x.get(2)).expect("row");
    let red = row(&states).minus(&row(&position)).expect("the token's own");
    let mut same = plain.clone();
    same[0].vectors.push((2, red.values().into()));
    let close = |a: &latentd_models::Tensor, b: &latentd_models::Tensor| {
        a.values().iter().zip(b.values()).all(|(a, b)| (a - b).abs() < 1e-4)
    };
    assert!(close(&encoded(&same), &encoded(&plain)), "the token's own vector changes nothing");
    assert!(!close(&encoded(&silent), &encoded(&plain)), "another one does");
    for (place, width, what) in [(2, 3, "of another width"), (77, clip.config().width, "beyond the tokens")] {
        let mut wrong = plain.clone();
        wrong[0].vectors.push((place, vec![0.0; width].into()));
        let variant = Variant { chunks: wrong.clone(), count: 1 };
        assert!(encode_variants(clip, &[variant], Emphasis::Original, 1, &Run::WHOLE).is_err(), "{what}");
    }
}

/// Adds a share of the tokens to themselves.
struct Share(f32);

impl KeyValueTransform for Share {
    fn digest(&self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&self.0.to_le_bytes());
        digest
    }

    fn applies_to(&self, _width: usize) -> bool {
        true
    }

    fn keys(&self, device: &Device, tokens: &Activations) -> Result<Activations> {
        device.blend((tokens, 1.0, None), Some((tokens, self.0, None)))
    }

    fn values(&self, _device: &Device, tokens: &Activations) -> Result<Activations> {
        Ok(tokens.clone())
    }
}

struct WithTransforms<'a>(&'a Model, Vec<Arc<dyn KeyValueTransform>>);

impl Components for WithTransforms<'_> {
    fn text_encoder(&mut self) -> Result<Arc<latentd_models::model::TextEncoder>> {
        Ok(Arc::clone(self.0.text_encoder()))
    }

    fn unet(&mut self) -> Result<Arc<latentd_models::networks::unet::UNet>> {
        Ok(Arc::clone(self.0.unet()))
    }

    fn vae(&mut self) -> Result<Arc<latentd_models::networks::vae::Vae>> {
        Ok(Arc::clone(self.0.vae()))
    }

    fn transforms(&mut self) -> Result<Vec<Arc<dyn KeyValueTransform>>> {
        Ok(self.1.clone())
    }
}

#[test]
fn a_transform_changes_keys_and_values_on_their_way() {
    let model = crate::drawing::model(&cpu(), Precision::F32);
    let pixels = |transforms: Vec<Arc<dyn KeyValueTransform>>| {
        let mut components = WithTransforms(&model, transforms);
        draw_with(&model, &mut components, &request(), &mut NoStages).expect("draws").remove(0).image.pixels
    };
    let plain = draw(&model, &request()).expect("draws").remove(0).image.pixels;
    assert_eq!(pixels(vec![]), plain);
    assert_eq!(pixels(vec![Arc::new(Share(0.0))]), plain, "nothing is added");
    assert_ne!(pixels(vec![Arc::new(Share(0.5))]), plain);
    assert_eq!(pixels(vec![]), plain, "and gone again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever tensors are patched: those and no others have another address.
    #[test]
    fn exactly_what_is_touched_is_copied(picked in prop::collection::vec(any::<prop::sample::Index>(), 1..6)) {
        struct Some(Vec<String>);
        impl Patch for Some {
            fn digest(&self) -> [u8; 32] {
                [2; 32]
            }
            fn touches(&self, name: &str) -> bool {
                self.0.iter().any(|each| each == name)
            }
            fn apply(&self, _name: &str, _shape: &[usize], weights: &mut [f32]) -> Result<()> {
                for weight in weights {
                    *weight *= 1.5;
                }
                Ok(())
            }
        }
        let checkpoint = checkpoint();
        let base = checkpoint.load(latentd_models::model::ComponentKind::UNet, &cpu(), Precision::F32, &|| false).expect("loads");
        let names: Vec<String> = base.parts.iter().map(|(name, _)| name.to_owned()).collect();
        let wanted: Vec<String> = picked.iter().map(|index| index.get(&names).clone()).collect();
        let patch = Some(wanted.clone());
        let patched = patched(&checkpoint, &base, &[Arc::new(patch)], Precision::F32);
        for (name, part) in patched.parts.iter() {
            let shared = base.parts.get(name).expect("the same names").address() == part.address();
            prop_assert_eq!(shared, !wanted.iter().any(|each| each == name), "{}", name);
        }
    }
}
