//! One trait, three devices: the CPU, one that only counts, and one whose memory the CPU's code cannot touch.

use std::sync::Arc;

use latentd_models::model::{Checkpoint, ComponentKind, Estimate, Model, PictureSize, TextEncoder};
use latentd_models::networks::unet::{RowContext, UNet, UNetCall};
use latentd_models::networks::vae::Vae;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::backend::fake::fake;
use latentd_models::nn::{Device, Precision, Run};
use latentd_models::pipeline::{
    Components, Img2Img, InitImage, MaskedContent, NoStages, Txt2Img, Watch, img2img, txt2img,
};
use latentd_models::sampling::Sampler;
use latentd_models::{Error, Tensor};

use crate::drawing::{checkpoint, components, draw, model, request};

const ENOUGH: usize = 256 << 20;

fn fake_device(limit: usize) -> Device {
    fake(limit, None).expect("an arena").0
}

#[test]
fn the_fake_device_draws_the_same_pictures() {
    for precision in [Precision::F32, Precision::Bf16] {
        let device = fake_device(ENOUGH);
        let (here, there) = (model(&cpu(), precision), model(&device, precision));
        let weights = device.memory().used;
        // Samplers compute beside the device: a few kinds of what they ask of it will do.
        for sampler in ["Euler a", "DPM++ 2M", "DPM++ SDE", "Restart", "DDIM CFG++", "UniPC"] {
            let sampler = Sampler::from_name(sampler).expect("a sampler");
            let request = Txt2Img { sampler, batch_size: 2, ..request() };
            let (wanted, found) = (draw(&here, &request), draw(&there, &request));
            assert_eq!(
                found.expect("draws"),
                wanted.expect("draws"),
                "{}, {}",
                sampler.name,
                precision.name()
            );
        }
        assert_eq!(device.memory().used, weights, "all activations were given back");
        drop(there);
        assert_eq!(device.memory().used, 0, "and all weights");
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_leaves_room_for_what_does() {
    let device = fake_device(ENOUGH);
    let model = model(&device, Precision::F32);
    let weights = device.memory().used as usize;
    drop(model);
    // Room for the weights and a small picture.
    let device = fake_device(weights + (8 << 20));
    let model = crate::drawing::model(&device, Precision::F32);
    let small = Txt2Img { width: 64, height: 64, samples_at_once: Some(1), ..request() };
    let wanted = draw(&model, &small).expect("fits");
    let large = Txt2Img { width: 512, height: 512, ..request() };
    assert!(matches!(draw(&model, &large), Err(Error::OutOfMemory { .. })));
    assert_eq!(draw(&model, &small).expect("fits again"), wanted);
    let none =
        Checkpoint::load(&checkpoint(), ComponentKind::UNet, &fake_device(1 << 16), Precision::F32, &|| {
            false
        });
    assert!(matches!(none, Err(Error::OutOfMemory { .. })), "no room for the weights");
}

#[test]
fn failures_are_told_with_their_section_and_cost_one_run() {
    let (device, failures) = fake(ENOUGH, None).expect("an arena");
    let model = model(&device, Precision::F32);
    let wanted = draw(&model, &request()).expect("draws");
    for section in [
        "clip.1",
        "unet.context.1",
        "unet.in.0",
        "unet.in.2",
        "unet.middle",
        "unet.out.1",
        "unet.last",
        "vae.decoder.0.1",
    ] {
        failures.fail_in(section);
        // Another prompt each time: one that was encoded before needs no text encoder.
        let other = Txt2Img { prompt: format!("a circle, {section}").into(), ..request() };
        match draw(&model, &other) {
            Err(Error::Device(text)) => assert!(text.contains(section), "{text}"),
            other => panic!("{section}: {other:?}"),
        }
        assert_eq!(draw(&model, &request()).expect("draws again"), wanted, "{section}");
    }
}

/// Ends at the `at`-th question.
struct Until {
    asked: std::sync::atomic::AtomicUsize,
    at: usize,
}

impl Watch for Until {
    fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= self.at
    }
}

#[test]
fn sections_of_every_network_ask_whether_to_go_on() {
    let model = model(&cpu(), Precision::F32);
    let mut whole = Until { asked: 0.into(), at: usize::MAX };
    // Another prompt each time: one that was encoded before needs no text encoder.
    let run = |watch: &mut Until| {
        let (prompt, negative_prompt) = (format!("a circle, {}", watch.at), format!("blurry, {}", watch.at));
        let request =
            Txt2Img { prompt: prompt.into(), negative_prompt: negative_prompt.into(), steps: 2, ..request() };
        txt2img(&model.facts(), &mut &model, &request, watch, &mut NoStages)
    };
    run(&mut whole).expect("draws");
    let questions = whole.asked.into_inner();
    assert!(questions > 50, "only {questions} questions");
    for at in (0..questions).step_by(questions / 40).chain([questions - 1]) {
        let ended = run(&mut Until { asked: 0.into(), at });
        assert!(matches!(ended, Err(Error::Cancelled)), "at question {at} of {questions}");
    }
    let stopped = checkpoint().load(ComponentKind::UNet, &cpu(), Precision::F32, &|| true);
    assert!(matches!(stopped, Err(Error::Cancelled)), "loading too");
}

/// Lends a model's VAE, and counts how often anything else is asked for.
struct VaeAlone<'a> {
    model: &'a Model,
    others: usize,
}

impl Components for VaeAlone<'_> {
    fn text_encoder(&mut self) -> latentd_models::Result<Arc<TextEncoder>> {
        self.others += 1;
        Ok(Arc::clone(self.model.text_encoder()))
    }

    fn unet(&mut self) -> latentd_models::Result<Arc<UNet>> {
        self.others += 1;
        Ok(Arc::clone(self.model.unet()))
    }

    fn vae(&mut self) -> latentd_models::Result<Arc<Vae>> {
        Ok(Arc::clone(self.model.vae()))
    }
}

#[test]
fn a_picture_that_is_encoded_asks_whether_to_go_on() {
    let model = model(&cpu(), Precision::F32);
    let picture = Tensor::full(0.25, [1, 3, 64, 72]);
    let request = Img2Img {
        drawing: Txt2Img { steps: 2, ..request() },
        init: vec![InitImage::Picture(picture)],
        denoising_strength: 0.5,
        img2img_fix_steps: false,
        initial_noise_multiplier: 1.0,
        img2img_extra_noise: 0.0,
        latent_mask: None,
        masked_content: MaskedContent::Picture,
        soft_inpainting: None,
        image_cfg_scale: None,
        conditioning_mask: None,
        inpainting_mask_weight: 1.0,
    };
    let run = |at: usize| {
        let mut components = VaeAlone { model: &model, others: 0 };
        let mut watch = Until { asked: 0.into(), at };
        let ended = img2img(&model.facts(), &mut components, &request, &mut watch, &mut NoStages);
        (ended, components.others)
    };
    // Each question ends it, and as long as nothing else is asked for the encoder is at work.
    let mut while_encoding = 0;
    for at in 0.. {
        let (ended, others) = run(at);
        assert!(matches!(ended, Err(Error::Cancelled)), "at question {at}: {:?}", ended.err());
        if others > 0 {
            break;
        }
        while_encoding += 1;
    }
    assert!(while_encoding > 10, "only {while_encoding} questions while a picture is encoded");
}

/// The dry run counts what the same operations take of an arena, but for how both round.
#[test]
fn what_is_counted_beforehand_is_what_is_taken() {
    let checkpoint = checkpoint();
    for precision in [Precision::F32, Precision::Bf16] {
        let estimate = Estimate::new(&checkpoint, precision).expect("counted");
        let device = fake_device(ENOUGH);
        let parts = components(&checkpoint, &device, precision);
        for (kind, part) in ComponentKind::ALL.into_iter().zip(&parts) {
            assert_eq!(estimate.weight_bytes(kind), part.bytes(), "{kind}, {}", precision.name());
        }
        let model = Model::of(&checkpoint, parts, precision).expect("a model");
        let context_width = model.clip().config().width;
        let conditioning_bytes = |tokens: [usize; 2]| (tokens[0] + tokens[1]) * context_width * 4;
        for (width, height, samples, tokens) in [
            (64, 64, 1, [77, 77]),
            (128, 64, 2, [77, 77]),
            (256, 256, 2, [77, 77]),
            (200, 136, 4, [154, 77]),
            (64, 64, 2, [77, 7_700]),
        ] {
            let size = PictureSize {
                width,
                height,
                images: samples,
                rows: samples,
                samples,
                tokens,
                more_contexts: 0,
                held_tokens: tokens[0] + tokens[1],
                threads: 0,
            };
            // A device of its own, whose high-water mark is of this call alone.
            let device = fake_device(ENOUGH);
            let unet = checkpoint.load(ComponentKind::UNet, &device, precision, &|| false).expect("loads");
            let latentd_models::model::Network::UNet(unet) = unet.network else { panic!("a UNet") };
            let weights = device.memory().used;
            let (rows, columns) = (height / 8, width / 8);
            let x = Tensor::full(0.5, [samples, 4, rows, columns]);
            let contexts = tokens.map(|tokens| {
                let conditioning = Tensor::full(0.1, [1, tokens, context_width]);
                unet.context(&conditioning, &[], &Run::WHOLE).expect("context")
            });
            let time = unet.time_embeddings(&[500.0]).expect("embeds");
            let of_rows: Vec<RowContext> =
                (0..samples).map(|row| RowContext::own(&contexts[row % 2])).collect();
            let call = UNetCall {
                times: &vec![&time[0]; samples],
                contexts: &of_rows,
                residuals: &[],
                transforms: &[],
            };
            unet.denoise(&x, &call, &Run::WHOLE).expect("runs");
            let taken = device.memory().most - weights;
            let host = ((16 + 5) * samples * 4 * rows * columns * 4 + conditioning_bytes(tokens)) as u64;
            let counted = estimate.activation_bytes(ComponentKind::UNet, &size).expect("counted") - host;
            let ratio = counted as f64 / taken as f64;
            assert!((0.98..1.02).contains(&ratio), "{width}x{height}, {samples}: {counted} for {taken}");
        }
        // The conditioning's keys and values stay while the picture is decoded, for the next pass.
        for tokens in [[77, 77], [7_700, 1_540]] {
            let device = fake_device(ENOUGH);
            let unet = checkpoint.load(ComponentKind::UNet, &device, precision, &|| false).expect("loads");
            let vae = checkpoint.load(ComponentKind::Vae, &device, precision, &|| false).expect("loads");
            let latentd_models::model::Network::UNet(unet) = unet.network else { panic!("a UNet") };
            let latentd_models::model::Network::Vae(vae) = vae.network else { panic!("a VAE") };
            let weights = device.memory().used;
            let contexts = tokens.map(|tokens| {
                let conditioning = Tensor::full(0.1, [1, tokens, context_width]);
                unet.context(&conditioning, &[], &Run::WHOLE).expect("context")
            });
            vae.decode(&Tensor::full(0.5, [1, 4, 24, 40]), &Run::WHOLE).expect("decodes");
            drop(contexts);
            let taken = device.memory().most - weights;
            let size = PictureSize {
                width: 320,
                height: 192,
                images: 1,
                rows: 1,
                samples: 1,
                tokens,
                more_contexts: 0,
                held_tokens: tokens[0] + tokens[1],
                threads: 0,
            };
            let counted = estimate.activation_bytes(ComponentKind::Vae, &size).expect("counted")
                - vae.host_bytes((24, 40))
                - conditioning_bytes(tokens) as u64;
            assert!(
                (0.98..1.02).contains(&(counted as f64 / taken as f64)),
                "{tokens:?}: {counted} for {taken}"
            );
        }
    }
}

#[test]
fn as_many_latents_go_together_as_fit() {
    let estimate = Estimate::new(&checkpoint(), Precision::F32).expect("counted");
    let size = PictureSize {
        width: 256,
        height: 256,
        images: 16,
        rows: 16,
        samples: 16,
        tokens: [77; 2],
        more_contexts: 0,
        held_tokens: 154,
        threads: 2,
    };
    let needed = |samples| {
        estimate.activation_bytes(ComponentKind::UNet, &PictureSize { samples, ..size }).expect("counted")
    };
    let least = estimate.activation_bytes(ComponentKind::Vae, &size).expect("counted").max(needed(1));
    for samples in [1, 2, 5, 16] {
        let limit = needed(samples).max(least);
        let fits = estimate.samples_within(limit, &size).expect("fits");
        assert!(needed(fits) <= limit && (fits == 16 || needed(fits + 1) > limit), "{fits} of {samples}");
    }
    assert!(matches!(estimate.samples_within(least - 1, &size), Err(Error::Memory { .. })));
}
