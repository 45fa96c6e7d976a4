//! Sampling from latents against k-diffusion and A1111's formulas: `tests/fixtures/from_latents.py`. Tolerances are those of
//! `samplers.rs`.

use latentd_models::model::Model;
use latentd_models::nn::Precision;
use latentd_models::pipeline::{Img2Img, InitImage, MaskedContent, NoStages, NoWatch, Txt2Img, img2img};
use latentd_models::sampling::{Sampler, SamplerOptions, Schedule};
use latentd_models::{Error, Tensor};

use crate::drawing::Trace;
use crate::golden::{Golden, checkpoint, relative_error, values};

/// What begins with one of them, and is said no more of.
pub(crate) fn plain(init: InitImage) -> Img2Img {
    Img2Img {
        init: vec![init],
        ..request(Tensor::full(0.0, [1, 4, 8, 8]), Sampler::default(), Schedule::Automatic, 4)
    }
}

pub(crate) fn request(init: Tensor, sampler: Sampler, schedule: Schedule, steps: usize) -> Img2Img {
    let drawing = crate::samplers::request(sampler, schedule, steps, SamplerOptions::default());
    Img2Img {
        drawing,
        init: vec![InitImage::Latents(init)],
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

#[test]
fn every_sampler_ends_where_the_reference_does() {
    let golden = Golden::open("from_latents");
    let model = Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens");
    let init = Tensor::new(golden.floats("init"), [1, 4, 8, 8]).expect("fits");
    let (mut compared, mut wrong, mut worst) = (0, vec![], 0f64);
    for sampler in Sampler::all() {
        for (schedule, steps, strength, fixed, extra) in [
            ("Automatic", 20, 0.75, false, "0.0"),
            ("Automatic", 7, 0.4, false, "0.0"),
            ("Karras", 7, 1.0, false, "0.0"),
            ("Automatic", 5, 0.6, true, "0.0"),
            ("Automatic", 7, 0.5, false, "0.1"),
            ("Simple", 3, 0.2, false, "0.0"),
        ] {
            let key = format!("{sampler}.{schedule}.{steps}.{strength:?}.{fixed}.{extra}");
            let schedule = Schedule::from_name(schedule).expect("a schedule");
            let request = Img2Img {
                denoising_strength: strength,
                img2img_fix_steps: fixed,
                img2img_extra_noise: extra.parse().expect("a number"),
                ..request(init.clone(), sampler, schedule, steps)
            };
            let mut trace = Trace::default();
            let drawn = img2img(&model.facts(), &mut &model, &request, &mut NoWatch, &mut trace);
            if !golden.has(&key) {
                assert!(matches!(drawn, Err(Error::Request(_))), "{key} is not there");
                continue;
            }
            drawn.unwrap_or_else(|error| panic!("{key}: {error}"));
            let error = relative_error(&values(&trace.latents[0]), &golden.floats(&key));
            compared += 1;
            // Chaotic: `samplers.rs` says why.
            let most = if sampler.name == "DPM adaptive" { 0.1 } else { 1e-4 };
            if error >= most {
                wrong.push(format!("{key}: {error:.2e}"));
            } else if most < 0.1 {
                worst = worst.max(error);
            }
        }
    }
    println!("{compared} ends, at worst {worst:.2e}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared > 140, "only {compared} were compared");
}

/// Outside of a mask all stays what it was, and what is drawn knows of it.
#[test]
fn within_a_mask_every_sampler_ends_where_the_reference_does() {
    let golden = Golden::open("from_latents");
    let model = Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens");
    let init = Tensor::new(golden.floats("init"), [1, 4, 8, 8]).expect("fits");
    let mask = Tensor::new(golden.floats("mask"), [1, 8, 8]).expect("fits");
    let (mut worst, mut wrong) = (0f64, vec![]);
    for sampler in Sampler::all() {
        let request = Img2Img {
            denoising_strength: 0.6,
            latent_mask: Some(mask.clone()),
            ..request(init.clone(), sampler, Schedule::Automatic, 7)
        };
        let mut trace = Trace::default();
        img2img(&model.facts(), &mut &model, &request, &mut NoWatch, &mut trace).expect("draws");
        let latents = values(&trace.latents[0]);
        let error = relative_error(&latents, &golden.floats(&format!("{sampler}.masked")));
        let most = if sampler.name == "DPM adaptive" { 0.1 } else { 1e-4 };
        if error >= most {
            wrong.push(format!("{sampler}: {error:.2e}"));
        } else if most < 0.1 {
            worst = worst.max(error);
        }
        for (place, (drawn, begun)) in latents.iter().zip(init.values()).enumerate() {
            assert!(mask.values()[place % 64] > 0.0 || drawn == begun, "{sampler}: {place}");
        }
    }
    println!("at worst {worst:.2e}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each image of a batch is the same alone, with a picture for all of them or one for each, encoded from its own seed.
#[test]
fn a_batch_does_not_show() {
    let model = Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens");
    let picture = |shade: f32| {
        let values = (0..3 * 64 * 64).map(|place| (place as f32 * 0.01 + shade).sin() * 0.7).collect();
        InitImage::Picture(Tensor::new(values, [1, 3, 64, 64]).expect("fits"))
    };
    let latents = Tensor::full(0.0, [1, 4, 8, 8]);
    let draw = |request: &Img2Img| {
        img2img(&model.facts(), &mut &model, request, &mut NoWatch, &mut NoStages).expect("draws")
    };
    for name in ["Euler a", "DPM++ SDE", "DDIM", "DPM adaptive"] {
        let sampler = Sampler::from_name(name).expect("a sampler");
        let base = request(latents.clone(), sampler, Schedule::Automatic, 4);
        for init in [vec![picture(0.0)], (0..4).map(|shade| picture(shade as f32)).collect()] {
            let drawing = Txt2Img { batch_size: 2, n_iter: 2, ..base.drawing.clone() };
            let together = draw(&Img2Img { drawing, init: init.clone(), ..base.clone() });
            for (index, drawn) in together.iter().enumerate() {
                let drawing = Txt2Img { seed: 42 + index as u64, ..base.drawing.clone() };
                let own = vec![init[index % init.len()].clone()];
                let alone = draw(&Img2Img { drawing, init: own, ..base.clone() });
                assert_eq!(alone[0].image, drawn.image, "{name}, image {index}");
            }
        }
    }
}
