//! Soft inpainting against A1111's formulas in torch and numpy: `tests/fixtures/soft_inpainting.py`. Latents and the filter are
//! within f32's rounding of the reference; 8-bit values are within 1, where one is cut off on the other side of a whole number.

use latentd_models::Tensor;
use latentd_models::image::Picture;
use latentd_models::image::inpaint::{Overlay, Region, WeightedHistogram, soft_mask};
use latentd_models::model::Model;
use latentd_models::nn::Precision;
use latentd_models::pipeline::{Img2Img, NoStages, NoWatch, SoftInpainting, img2img};
use latentd_models::sampling::{Sampler, Schedule};

use crate::drawing::Trace;
use crate::from_latents::request;
use crate::golden::{Golden, assert_close, checkpoint, relative_error, values};

fn settings(golden: &Golden) -> Vec<SoftInpainting> {
    let decimal = |value: &f32| value.to_string().parse::<f64>().expect("a number");
    let numbers: Vec<f64> = golden.floats("settings").iter().map(decimal).collect();
    let all = numbers.chunks_exact(6).map(|of| SoftInpainting {
        mask_blend_power: of[0],
        mask_blend_scale: of[1],
        inpaint_detail_preservation: of[2],
        composite_mask_influence: of[3],
        composite_difference_threshold: of[4],
        composite_difference_contrast: of[5],
    });
    all.collect()
}

/// How many differ; by more than 1 none may.
#[track_caller]
fn apart(name: &str, found: &[u8], wanted: &[f32]) -> usize {
    assert_eq!(found.len(), wanted.len(), "{name}");
    let apart = found.iter().zip(wanted).map(|(found, wanted)| (f32::from(*found) - wanted).abs());
    assert!(apart.clone().all(|apart| apart <= 1.0), "{name}: {found:?} for {wanted:?}");
    apart.filter(|apart| *apart > 0.0).count()
}

#[test]
fn latents_are_blended_as_a1111_does() {
    let golden = Golden::open("soft_inpainting");
    let (original, drawn) = (golden.get("original"), golden.get("drawn"));
    let mask = golden.get("mask").clone().reshaped([16, 12]).expect("a plane");
    for (index, soft) in settings(&golden).iter().enumerate() {
        soft.check().expect("as sliders go");
        for level in ["14.6146", "0.7", "0.0292"] {
            let at = soft.mask_at(&mask, level.parse().expect("a number"));
            let name = |what| format!("{index}.{level}.{what}");
            let wanted = golden.get(&name("mask")).clone().reshaped([16, 12]).expect("a plane");
            assert_close(&name("mask"), &at, &wanted, 1e-6);
            let blended = soft.blend(original, drawn, &at).expect("fits");
            assert_close(&name("blend"), &blended, golden.get(&name("blend")), 1e-6);
        }
    }
}

#[test]
fn the_filter_is_a1111s() {
    let golden = Golden::open("soft_inpainting");
    let histogram = WeightedHistogram::gaussian(1.5, 2);
    for (low, high) in [(0.9, 1.0), (0.25, 0.75), (0.0, 1.0), (0.5, 0.5), (0.0, 0.0)] {
        let found = histogram.filtered(&golden.floats("plane"), 11, (low, high), 1.0);
        let name = format!("filtered.{low:?}.{high:?}");
        let error = relative_error(&found, &golden.floats(&name));
        println!("{name}: {error:.2e}");
        assert!(error < 1e-7, "{name}: {error:.2e}");
    }
}

#[test]
fn what_is_seen_is_what_a1111_shows() {
    let golden = Golden::open("soft_inpainting");
    let mask = golden.get("mask").clone().reshaped([16, 12]).expect("a plane");
    let (mut off, mut all) = (0, 0);
    for (index, soft) in settings(&golden).iter().enumerate() {
        let seen = soft.seen(golden.get("original"), golden.get("drawn"), &mask).expect("fits");
        let name = format!("{index}.seen");
        off += apart(&name, &seen.pixels, &golden.floats(&name));
        let name = format!("{index}.by_mask");
        off += apart(&name, &soft.seen_by_mask(&mask).expect("a plane").pixels, &golden.floats(&name));
        all += 2 * seen.pixels.len();
    }
    println!("{off} of {all} values of 8 bits differ, by 1");
    let pixels: Vec<u8> = golden.floats("0.seen").iter().map(|value| *value as u8).collect();
    let seen = Picture::from_raw(pixels, 12, 16, 1).expect("grey");
    let region = |left, top, right, bottom| Region { left, top, right, bottom };
    for (index, (size, place)) in [
        ((36, 48), None),
        ((48, 64), None),
        ((72, 96), Some((region(10, 7, 48, 51), (60, 56)))),
        ((96, 128), Some((region(0, 0, 150, 33), (150, 40)))),
    ]
    .into_iter()
    .enumerate()
    {
        let found = soft_mask(&seen, size, place).expect("fits");
        let wanted: Vec<u8> =
            golden.floats(&format!("overlay.{index}")).iter().map(|value| *value as u8).collect();
        assert!(found.values() == wanted, "overlay.{index} is not byte for byte");
    }
}

/// With samplers of each kind; "DPM adaptive", which is chaotic (`samplers.rs` says why), is not among them.
#[test]
fn samplers_end_where_the_reference_does() {
    let golden = Golden::open("soft_inpainting");
    let begun = Golden::open("from_latents");
    let model = Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens");
    let init = Tensor::new(begun.floats("init"), [1, 4, 8, 8]).expect("fits");
    let mask = Tensor::new(begun.floats("mask"), [1, 8, 8]).expect("fits");
    let (settings, mut worst) = (settings(&golden), 0f64);
    for name in ["Euler", "Euler a", "DPM++ 2M", "DPM++ SDE", "DDIM", "PLMS", "UniPC", "LCM"] {
        for index in [0, 2] {
            let sampler = Sampler::from_name(name).expect("a sampler");
            let request = Img2Img {
                denoising_strength: 0.6,
                latent_mask: Some(mask.clone()),
                soft_inpainting: Some(settings[index]),
                ..request(init.clone(), sampler, Schedule::Automatic, 7)
            };
            let mut trace = Trace::default();
            let drawn =
                img2img(&model.facts(), &mut &model, &request, &mut NoWatch, &mut trace).expect("draws");
            let key = format!("{name}.{index}");
            let error = relative_error(&values(&trace.latents[0]), &golden.floats(&key));
            assert!(error < 1e-4, "{key}: {error:.2e}");
            worst = worst.max(error);
            let plane = mask.clone().reshaped([8, 8]).expect("a plane");
            let seen = settings[index].seen(&init, &trace.latents[0], &plane).expect("fits");
            assert_eq!(drawn[0].seen.as_ref(), Some(&seen), "{key}");
        }
    }
    println!("at worst {worst:.2e}");
}

/// Each image has its own part of what is seen, and what hardly changed is the original to the byte.
#[test]
fn what_is_seen_is_each_images_own() {
    let begun = Golden::open("from_latents");
    let model = Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens");
    let init = Tensor::new(begun.floats("init"), [1, 4, 8, 8]).expect("fits");
    let mask = |from: usize| {
        let values = (0..64).map(|at| if at % 8 < from { 0.0 } else { 0.8 }).collect();
        Tensor::new(values, [1, 8, 8]).expect("fits")
    };
    let sampler = Sampler::from_name("Euler a").expect("a sampler");
    let mut base = request(init, sampler, Schedule::Automatic, 4);
    base.soft_inpainting = Some(SoftInpainting::default());
    let draw = |request: &Img2Img| {
        img2img(&model.facts(), &mut &model, request, &mut NoWatch, &mut NoStages).expect("draws")
    };
    let mut two = base.clone();
    two.drawing.batch_size = 2;
    two.latent_mask = Some(Tensor::cat(&[&mask(2), &mask(6)], 0).expect("fits"));
    let together = draw(&two);
    for (image, from) in [2, 6].into_iter().enumerate() {
        let mut alone = Img2Img { latent_mask: Some(mask(from)), ..base.clone() };
        alone.drawing.seed += image as u64;
        let alone = draw(&alone);
        assert_eq!((&together[image].image, &together[image].seen), (&alone[0].image, &alone[0].seen));
        let seen = alone[0].seen.as_ref().expect("told");
        let over = soft_mask(seen, (64, 64), None).expect("fits");
        let original = Picture::from_raw(vec![9; 64 * 64 * 3], 64, 64, 3).expect("a picture");
        let drawn = Picture::from(alone[0].image.clone());
        let whole = Overlay::new(&original, &over).expect("one size").over(&drawn, None).expect("one size");
        for ((whole, drawn), mask) in
            whole.pixels.chunks_exact(3).zip(drawn.pixels.chunks_exact(3)).zip(over.values())
        {
            match mask {
                0 => assert_eq!(whole, [9; 3]),
                255 => assert_eq!(whole, drawn),
                _ => (),
            }
        }
    }
    base.latent_mask = None;
    assert_eq!(draw(&base)[0].seen, None);
    let wrong = SoftInpainting { mask_blend_scale: 9.0, ..SoftInpainting::default() };
    base.soft_inpainting = Some(wrong);
    let refused = img2img(&model.facts(), &mut &model, &base, &mut NoWatch, &mut NoStages);
    assert!(refused.expect_err("refused").to_string().contains("mask_blend_scale is 9"));
}
