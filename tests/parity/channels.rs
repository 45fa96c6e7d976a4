//! Checkpoints whose UNet sees a picture beside noisy latents, against diffusers' networks and k-diffusion with A1111's and
//! InstructPix2Pix's formulas: `tests/fixtures/channels.py`.
//!
//! Latents within 1e-4, relative, as in `samplers.rs`.

use half::f16;
use latentd_models::model::{Checkpoint, ComponentKind, Model, PictureSize, UNetInput};
use latentd_models::nn::Precision;
use latentd_models::nn::backend::fake::fake;
use latentd_models::pipeline::{
    Img2Img, InitImage, MaskedContent, NoStages, NoWatch, Output, Txt2Img, img2img,
};
use latentd_models::sampling::{SamplerOptions, Schedule};
use latentd_models::{Error, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::drawing::{Trace, sampler, txt2img};
use crate::golden::{Golden, checkpoint, relative_error, values};
use crate::refiner::Both;

const FIRST: &str = "model.diffusion_model.input_blocks.0.0.weight";
const SAMPLERS: [&str; 3] = ["Euler", "Euler a", "DDIM"];

/// The tiny checkpoint whose first convolution sees channels more.
fn file(kind: &str) -> Vec<u8> {
    let bytes = std::fs::read(checkpoint("tiny-sd1")).expect("the tiny checkpoint");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let more = Golden::open("channels");
    let more = more.get(&format!("{kind}.more"));
    let [outputs, channels, ..] = *more.dims() else { panic!("a convolution") };
    let taps = 9;
    let first = file.tensor(FIRST).expect("there");
    let rows = first.data().chunks_exact(4 * taps * 2).zip(more.values().chunks_exact(channels * taps));
    let wider: Vec<u8> = rows
        .flat_map(|(row, more)| {
            let more = more.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes());
            row.iter().copied().chain(more).collect::<Vec<u8>>()
        })
        .collect();
    let wider = TensorView::new(Dtype::F16, vec![outputs, 4 + channels, 3, 3], &wider).expect("a tensor");
    let tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, tensor)| if name == FIRST { (name, wider.clone()) } else { (name, tensor) })
        .collect();
    serialize(tensors, None).expect("written")
}

fn model(kind: &str) -> Model {
    Model::from_bytes(format!("{kind}.safetensors"), file(kind), Precision::F32).expect("opens")
}

fn drawing(name: &str, height: usize) -> Txt2Img {
    let request = crate::samplers::request(sampler(name), Schedule::Automatic, 4, SamplerOptions::default());
    Txt2Img { height, ..request }
}

fn request(name: &str, picture: Tensor) -> Img2Img {
    Img2Img {
        drawing: drawing(name, picture.dim(2)),
        init: vec![InitImage::Picture(picture)],
        denoising_strength: 0.75,
        img2img_fix_steps: false,
        initial_noise_multiplier: 1.0,
        img2img_extra_noise: 0.0,
        latent_mask: None,
        masked_content: MaskedContent::Picture,
        soft_inpainting: None,
        image_cfg_scale: None,
        conditioning_mask: None,
        inpainting_mask_weight: 1.0,
    }
}

fn disc(height: usize) -> Tensor {
    let inside = |x: i32, y: i32| (x - 20).pow(2) + (y - 30).pow(2) < 300;
    mask(height, |x, y| if inside(x, y) { 1.0 } else { 0.0 })
}

fn ramp(height: usize) -> Tensor {
    mask(height, |x, y| ((x * 7 + y * 3) % 256) as f32 / 255.0)
}

fn mask(height: usize, of: impl Fn(i32, i32) -> f32) -> Tensor {
    let values = (0..height as i32 * 64).map(|place| of(place % 64, place / 64)).collect();
    Tensor::new(values, [1, height, 64]).expect("fits")
}

/// Fails unless the last latents are the golden's.
fn is_close(golden: &Golden, key: &str, trace: &Trace) {
    let error = relative_error(&values(&trace.latents[0]), &golden.floats(key));
    println!("{key}: {error:.2e}");
    assert!(error < 1e-4, "{key}: {error:.2e}");
}

fn draw(model: &Model, request: &Img2Img) -> Vec<Output> {
    img2img(&model.facts(), &mut &*model, request, &mut NoWatch, &mut NoStages).expect("draws")
}

#[test]
fn an_inpainting_checkpoint_sees_what_the_references_does() {
    let (golden, pictures, model) = (Golden::open("channels"), Golden::open("vae"), model("inpainting"));
    assert_eq!(model.facts().unet_input, UNetInput::Inpainting);
    let [small, tall] = ["encode0.image", "encode1.image"].map(|name| pictures.get(name).clone());
    for name in SAMPLERS {
        let mut trace = Trace::default();
        txt2img(&model, &drawing(name, 64), &mut trace).expect("draws");
        is_close(&golden, &format!("inpainting.txt2img.{name}"), &trace);
        for (case, picture, mask, weight) in [
            ("whole.1.0", &small, None, 1.0),
            ("whole.0.0", &small, None, 0.0),
            ("disc.1.0", &small, Some(disc(64)), 1.0),
            ("disc.0.5", &small, Some(disc(64)), 0.5),
            ("ramp.1.0", &small, Some(ramp(64)), 1.0),
            ("tall.0.5", &tall, Some(disc(96)), 0.5),
        ] {
            let request = Img2Img {
                conditioning_mask: mask,
                inpainting_mask_weight: weight,
                ..request(name, picture.clone())
            };
            let mut trace = Trace::default();
            img2img(&model.facts(), &mut &model, &request, &mut NoWatch, &mut trace).expect("draws");
            is_close(&golden, &format!("inpainting.{case}.{name}"), &trace);
        }
        // As it is used: what is outside of the mask stays too.
        let mask = disc(64);
        let of_latents = (0..64).map(|place| mask.values()[place / 8 * 8 * 64 + place % 8 * 8]).collect();
        let request = Img2Img {
            latent_mask: Some(Tensor::new(of_latents, [1, 8, 8]).expect("fits")),
            conditioning_mask: Some(mask),
            ..request(name, small.clone())
        };
        let mut trace = Trace::default();
        img2img(&model.facts(), &mut &model, &request, &mut NoWatch, &mut trace).expect("draws");
        is_close(&golden, &format!("inpainting.within.1.0.{name}"), &trace);
    }
}

#[test]
fn a_checkpoint_that_edits_sees_what_the_references_does() {
    let (golden, pictures, model) = (Golden::open("channels"), Golden::open("vae"), model("edit"));
    assert_eq!(model.facts().unet_input, UNetInput::Edit);
    for name in SAMPLERS {
        let mut trace = Trace::default();
        txt2img(&model, &drawing(name, 64), &mut trace).expect("draws");
        is_close(&golden, &format!("edit.txt2img.{name}"), &trace);
        for (case, picture) in [("small", "encode0.image"), ("tall", "encode1.image")] {
            for (image_cfg_scale, part) in
                [(None, "None"), (Some(1.0), "None"), (Some(1.5), "1.5"), (Some(0.0), "0.0")]
            {
                let request = Img2Img { image_cfg_scale, ..request(name, pictures.get(picture).clone()) };
                let mut trace = Trace::default();
                img2img(&model.facts(), &mut &model, &request, &mut NoWatch, &mut trace).expect("draws");
                is_close(&golden, &format!("edit.{case}.{part}.{name}"), &trace);
            }
        }
    }
}

/// Each image of a batch is the same alone, shown one picture or mask for all of them, one for each of a batch or one for
/// each, and so it is with little memory.
#[test]
fn a_batch_does_not_show() {
    let picture = |shade: f32| {
        let values = (0..3 * 64 * 64).map(|place| (place as f32 * 0.01 + shade).sin() * 0.7).collect();
        Tensor::new(values, [1, 3, 64, 64]).expect("fits")
    };
    for (kind, image_cfg_scale) in [("inpainting", None), ("edit", Some(1.5))] {
        let model = model(kind);
        // One that draws images one after the other too.
        for (name, most) in [("Euler a", 3), ("DPM adaptive", 1)] {
            let base = Img2Img { image_cfg_scale, ..request(name, picture(0.0)) };
            let masks = [disc(64), ramp(64), disc(64).map(|value| 1.0 - value), ramp(64)];
            let cases = [(vec![0.0, 1.0], 4), (vec![0.0, 1.0, 2.0, 3.0], 1), (vec![0.0], 2)];
            for (shades, count) in &cases[..most] {
                let masks = &masks[..*count];
                let conditioning_mask =
                    Some(Tensor::cat(&masks.iter().collect::<Vec<_>>(), 0).expect("fits"));
                let init: Vec<Tensor> = shades.iter().map(|shade| picture(*shade)).collect();
                let drawing = Txt2Img { batch_size: 2, n_iter: 2, ..base.drawing.clone() };
                let of_all = init.iter().cloned().map(InitImage::Picture).collect();
                let together = Img2Img { drawing, init: of_all, conditioning_mask, ..base.clone() };
                let drawn = draw(&model, &together);
                let drawing = Txt2Img { samples_at_once: Some(1), ..together.drawing.clone() };
                assert!(
                    draw(&model, &Img2Img { drawing, ..together }) == drawn,
                    "{kind}, {name}: one at a time"
                );
                for (index, drawn) in drawn.iter().enumerate() {
                    let drawing = Txt2Img { seed: 42 + index as u64, ..base.drawing.clone() };
                    let own = vec![InitImage::Picture(init[index % init.len()].clone())];
                    let conditioning_mask = Some(masks[index % masks.len()].clone());
                    let alone =
                        draw(&model, &Img2Img { drawing, init: own, conditioning_mask, ..base.clone() });
                    assert!(alone[0].image == drawn.image, "{kind}, {name}, image {index}");
                }
            }
        }
    }
}

/// Latents that no picture is given with are shown too: decoded beneath a mask, and to one that edits as they are.
#[test]
fn latents_are_shown_as_pictures_are() {
    let latents = Tensor::new(Golden::open("from_latents").floats("init"), [1, 4, 8, 8]).expect("fits");
    for kind in ["inpainting", "edit"] {
        let model = model(kind);
        let base = Img2Img {
            init: vec![InitImage::Latents(latents.clone())],
            ..request("Euler", Tensor::full(0.0, [1, 3, 64, 64]))
        };
        let drawn = draw(&model, &base);
        let other = draw(&model, &Img2Img { inpainting_mask_weight: 0.0, ..base.clone() });
        assert_eq!(drawn != other, kind == "inpainting", "{kind}: weight");
    }
}

#[test]
fn what_cannot_be_shown_is_refused_by_name() {
    let model = model("edit");
    let base = request("Euler", Tensor::full(0.0, [1, 3, 64, 64]));
    let error = |request: Img2Img| match img2img(
        &model.facts(),
        &mut &model,
        &request,
        &mut NoWatch,
        &mut NoStages,
    ) {
        Err(Error::Request(text)) => text,
        other => panic!("{other:?}"),
    };
    for scale in [-0.5, f64::NAN, f64::INFINITY] {
        let told = error(Img2Img { image_cfg_scale: Some(scale), ..base.clone() });
        assert!(told.contains(&format!("image_cfg_scale is {scale}; a number of 0 or more")), "{told}");
    }
    for weight in [-0.1, 1.1, f64::NAN] {
        let told = error(Img2Img { inpainting_mask_weight: weight, ..base.clone() });
        assert!(told.contains(&format!("inpainting_mask_weight is {weight}; 0 to 1")), "{told}");
    }
    for (mask, part) in [
        (Tensor::full(1.0, [1, 64, 72]), "the mask is [1, 64, 72]; [1, 1 or 1, 64, 64] is needed"),
        (Tensor::full(1.0, [2, 64, 64]), "the mask is [2, 64, 64]; [1, 1 or 1, 64, 64] is needed"),
        (Tensor::full(1.0, [64, 64]), "the mask is [64, 64]; [1, 1 or 1, 64, 64] is needed"),
        (Tensor::full(1.5, [1, 64, 64]), "a value of the mask is 1.5; 0 to 1 is needed"),
    ] {
        let told = error(Img2Img { conditioning_mask: Some(mask), ..base.clone() });
        assert!(told.contains(part), "{told}");
    }
    let two = Txt2Img { prompt: "a red circle AND a blue square".into(), ..base.drawing.clone() };
    let two = Img2Img { drawing: two, ..base };
    let told = error(Img2Img { image_cfg_scale: Some(1.5), ..two.clone() });
    assert!(told.contains("image_cfg_scale goes with one prompt"), "{told}");
    assert_eq!((two.more_branches(&model.facts()), draw(&model, &two).len()), (0, 1), "at 1 all goes");
}

/// A plain checkpoint goes on where one that sees a picture ends, and is not shown it; the other way round there is nothing to show.
#[test]
fn a_refiner_sees_no_more_than_what_it_refines() {
    let (plain, edit) = (Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens"), model("edit"));
    let refine = |own: &Model, refiner: &Model, share: f64, image_cfg_scale| {
        let base = request("Euler", Tensor::full(0.2, [1, 3, 64, 64]));
        let drawing = Txt2Img { refiner_switch_at: Some(share), batch_size: 2, ..base.drawing.clone() };
        let request = Img2Img { drawing, image_cfg_scale, ..base };
        img2img(&own.facts(), &mut Both::new(own, refiner), &request, &mut NoWatch, &mut NoStages)
    };
    let images = |drawn: Vec<Output>| drawn.into_iter().map(|output| output.image).collect::<Vec<_>>();
    let at_once = images(refine(&edit, &plain, 0.0, Some(1.5)).expect("draws"));
    assert!(
        at_once == images(refine(&plain, &plain, 0.0, Some(1.5)).expect("draws")),
        "plain from the first call on"
    );
    assert!(at_once != images(refine(&edit, &plain, 0.8, Some(1.5)).expect("draws")));
    assert!(refine(&edit, &edit, 0.5, Some(1.5)).is_ok());
    let Err(Error::Request(told)) = refine(&plain, &edit, 0.5, None) else { panic!("not refused") };
    assert!(told.contains("the refiner is an InstructPix2Pix checkpoint"), "{told}");
}

/// On a device whose memory nobody else may touch it is the same picture, and takes no more of it than is foretold.
#[test]
fn memory_is_foretold_and_devices_draw_the_same() {
    for (kind, image_cfg_scale) in [("inpainting", None), ("edit", Some(1.5))] {
        let checkpoint = Checkpoint::from_bytes(format!("{kind}.safetensors"), file(kind)).expect("opens");
        let (device, _) = fake(256 << 20, None).expect("an arena");
        let there = Model::load(&checkpoint, &device, Precision::F32).expect("loads");
        let weights = device.memory().used;
        let picture = Golden::open("vae").get("encode1.image").clone();
        let request =
            Img2Img { image_cfg_scale, conditioning_mask: Some(disc(96)), ..request("Euler", picture) };
        let rows = 2 + request.more_branches(&there.facts());
        let size = PictureSize {
            width: 64,
            height: 96,
            images: 1,
            rows,
            samples: rows,
            tokens: [77; 2],
            more_contexts: 0,
            held_tokens: 154,
            threads: 0,
        };
        let foretold = ComponentKind::ALL
            .map(|kind| there.estimate().activation_bytes(kind, &size).expect("counted"))
            .into_iter()
            .max();
        let of_pictures = draw(&there, &request);
        let of_text = txt2img(&there, &request.drawing, &mut NoStages).expect("draws");
        let taken = device.memory().most - weights;
        println!("{kind}: {taken} bytes of {foretold:?}");
        assert!(Some(taken) <= foretold, "{kind}: {taken} bytes of {foretold:?}");
        let here = model(kind);
        assert!(of_pictures == draw(&here, &request), "{kind}");
        assert!(
            of_text == txt2img(&here, &request.drawing, &mut NoStages).expect("draws"),
            "{kind} from text"
        );
    }
}
