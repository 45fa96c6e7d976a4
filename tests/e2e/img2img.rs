//! Pictures from pictures, through the socket.

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, ImageOut, Img2ImgParams, JobState, LoopbackParams, Masks, Precision,
    RepeatRequest, SoftInpaintingParams, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::Picture;

use crate::harness::{Daemon, refused, small, within};

/// Of these sizes, with colours that say where they are.
fn ramp(width: u32, height: u32) -> ImageIn {
    let pixel = |x: u32, y: u32| [(x * 255 / width) as u8, (y * 255 / height) as u8, 90];
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    ImageIn::raw(pixels, width, height, 3)
}

/// White in a box.
fn mask(width: u32, height: u32, x: std::ops::Range<u32>, y: std::ops::Range<u32>) -> ImageIn {
    let value = |at: u32| if x.contains(&(at % width)) && y.contains(&(at / width)) { 255 } else { 0 };
    ImageIn::raw((0..width * height).map(value).collect(), width, height, 1)
}

fn request(init: ImageIn) -> Img2ImgParams {
    Img2ImgParams {
        drawing: Txt2ImgParams { precision: Precision::F32, steps: 4, width: None, height: None, ..small(5) },
        init_images: vec![init],
        ..Img2ImgParams::default()
    }
}

async fn draw(daemon: &Daemon, params: &Img2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.img2img(params)).await.expect("drawn")
}

fn picture(image: &ImageOut) -> Picture {
    Picture::decode(&image.png.as_ref().expect("a PNG").0, 1 << 24).expect("decodes")
}

fn original(image: &ImageIn) -> Picture {
    let (width, height) = (image.width.expect("raw"), image.height.expect("raw"));
    Picture::from_raw(image.raw.clone().expect("raw").0, width, height, 3).expect("a picture")
}

#[tokio::test]
async fn a_picture_is_drawn_from_another_and_again_from_what_it_says() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let base = request(ramp(70, 50));
    let box_of = mask(70, 50, 10..40, 8..30);
    let drawing = Txt2ImgParams { width: Some(64), height: Some(56), ..base.drawing.clone() };
    let masked = Img2ImgParams { mask: Some(box_of.into()), drawing, ..base.clone() };
    let rows = [
        base.clone(),
        Img2ImgParams {
            resize_mode: 1,
            img2img_fix_steps: true,
            initial_noise_multiplier: Some(0.9),
            img2img_extra_noise: 0.1,
            img2img_color_correction: true,
            img2img_background_color: "#00ff80".into(),
            drawing: Txt2ImgParams {
                denoising_strength: Some(0.5),
                width: Some(96),
                height: Some(64),
                ..base.drawing.clone()
            },
            ..base.clone()
        },
        masked.clone(),
        Img2ImgParams {
            inpaint_full_res: false,
            inpainting_fill: 2,
            inpainting_mask_invert: 1,
            mask_blur: Some(2.5),
            resize_mode: 2,
            ..masked.clone()
        },
        Img2ImgParams {
            inpainting_fill: 3,
            inpaint_full_res_padding: 12,
            mask_blur_x: 1.0,
            mask_blur_y: 0.0,
            mask_round: false,
            ..masked.clone()
        },
        Img2ImgParams { inpaint_full_res: false, inpainting_fill: 1, resize_mode: 3, ..masked.clone() },
        Img2ImgParams {
            resize_mode: 3,
            drawing: Txt2ImgParams { width: Some(64), height: Some(80), ..base.drawing.clone() },
            ..base.clone()
        },
        Img2ImgParams {
            soft_inpainting: Some(SoftInpaintingParams {
                mask_blend_power: 1.5,
                composite_mask_influence: 0.25,
                ..SoftInpaintingParams::default()
            }),
            inpainting_fill: 1,
            ..masked.clone()
        },
        Img2ImgParams {
            soft_inpainting: Some(SoftInpaintingParams::default()),
            inpaint_full_res: false,
            ..masked.clone()
        },
        Img2ImgParams { image_cfg_scale: Some(1.5), inpainting_mask_weight: 0.5, ..masked.clone() },
    ];
    for params in rows {
        let drawn = draw(&daemon, &params).await;
        assert!(drawn.notices.is_empty(), "{:?}", drawn.notices);
        let image = &drawn.images[0];
        let info = within(client.image_info(ImageIn::png(image.png.clone().expect("a PNG").0))).await;
        let info = info.expect("read");
        assert!(info.others.is_empty(), "{:?}", info.others);
        let Some(RepeatRequest::Img2Img(said)) = info.request else { panic!("{:?}", info.infotext) };
        let again = draw(&daemon, &said).await;
        assert_eq!((&again.images[0].png, &again.images[0].infotext), (&image.png, &image.infotext));
    }
    // Of pictures that nobody has any more the text tells by what name they were known.
    let drawn = draw(&daemon, &masked).await;
    let other = Daemon::start();
    let client = other.client().await;
    let png = drawn.images[0].png.clone().expect("a PNG").0;
    let info = within(client.image_info(ImageIn::png(png))).await.expect("read");
    let Some(RepeatRequest::Img2Img(said)) = info.request else { panic!("{:?}", info.infotext) };
    let text = refused(within(client.img2img(&said)).await, ErrorName::NotFound);
    assert!(text.contains("init_images[0].blob: ") && text.contains("blobs.put"), "{text}");
}

#[tokio::test]
async fn outside_of_the_mask_is_the_original() {
    let daemon = Daemon::start();
    let init = ramp(72, 56);
    let before = original(&init);
    for (inverted, full, fill) in [(0, true, 0), (0, false, 1), (1, true, 2), (1, false, 3)] {
        let params = Img2ImgParams {
            mask: Some(mask(72, 56, 16..40, 16..40).into()),
            inpainting_mask_invert: inverted,
            inpaint_full_res: full,
            inpainting_fill: fill,
            mask_blur_x: 1.0,
            mask_blur_y: 1.0,
            ..request(init.clone())
        };
        let drawn = picture(&draw(&daemon, &params).await.images[0]);
        assert_eq!((drawn.width, drawn.height), (72, 56), "{full}");
        let (mut kept, mut changed) = (0, 0);
        for y in 0..56 {
            for x in 0..72 {
                let at = (y * 72 + x) * 3;
                let is_same = drawn.pixels[at..at + 3] == before.pixels[at..at + 3];
                // Three pixels beyond the box the blur ends.
                let is_outside = !(13..43).contains(&x) || !(13..43).contains(&y);
                let is_inside = (19..37).contains(&x) && (19..37).contains(&y);
                if if inverted == 1 { is_inside } else { is_outside } {
                    assert!(is_same, "{inverted} {full}: {x}, {y}");
                    kept += 1;
                } else if !is_same {
                    changed += 1;
                }
            }
        }
        assert!(kept > 250 && changed > 250, "{kept} {changed}");
    }
}

#[tokio::test]
async fn a_batch_is_each_of_its_pictures_alone() {
    let daemon = Daemon::start();
    let pictures: Vec<ImageIn> = [(64, 64), (64, 64), (80, 48), (40, 96)].map(|(w, h)| ramp(w, h)).into();
    let masks: Vec<ImageIn> = (0..4u32).map(|index| mask(64, 64, index * 8..40, 8..48)).collect();
    let at = |batch_size, n_iter, seed| Txt2ImgParams {
        batch_size,
        n_iter,
        seed,
        width: Some(64),
        height: Some(64),
        ..request(ramp(8, 8)).drawing
    };
    let together = Img2ImgParams {
        drawing: at(2, 2, 5),
        init_images: pictures.clone(),
        mask: Some(Masks::Each(masks.clone())),
        inpaint_full_res: false,
        ..Img2ImgParams::default()
    };
    let all = draw(&daemon, &together).await.images;
    assert_eq!(all.len(), 4);
    for (index, image) in all.iter().enumerate() {
        let alone = Img2ImgParams {
            drawing: at(1, 1, 5 + index as i64),
            init_images: vec![pictures[index].clone()],
            mask: Some(masks[index].clone().into()),
            ..together.clone()
        };
        let alone = draw(&daemon, &alone).await;
        assert_eq!(
            (&alone.images[0].png, &alone.images[0].infotext),
            (&image.png, &image.infotext),
            "{index}"
        );
    }
    // One for each of a batch: the next begins with them again.
    let twice = Img2ImgParams { init_images: pictures[..2].to_vec(), mask: None, ..together.clone() };
    let third = Img2ImgParams {
        drawing: at(1, 1, 7),
        init_images: vec![pictures[0].clone()],
        mask: None,
        ..together.clone()
    };
    let (twice, third) = (draw(&daemon, &twice).await, draw(&daemon, &third).await);
    assert_eq!(twice.images[2].png, third.images[0].png);
}

#[tokio::test]
async fn an_empty_mask_is_told_and_a_full_one_is_all() {
    let daemon = Daemon::start();
    let mut base = request(ramp(64, 64));
    (base.drawing.width, base.drawing.height) = (Some(64), Some(64));
    let (empty, full) = (mask(64, 64, 0..0, 0..0), mask(64, 64, 0..64, 0..64));
    let plain = draw(&daemon, &base).await;
    let drawn = draw(&daemon, &Img2ImgParams { mask: Some(empty.clone().into()), ..base.clone() }).await;
    assert!(picture(&drawn.images[0]) == picture(&plain.images[0]));
    assert!(drawn.notices.iter().any(|text| text.contains("mask is empty")), "{:?}", drawn.notices);
    let whole = Img2ImgParams { inpaint_full_res: false, ..base.clone() };
    let drawn = draw(&daemon, &Img2ImgParams { mask: Some(empty.into()), ..whole.clone() }).await;
    assert!(picture(&drawn.images[0]) == original(&base.init_images[0]));
    let all = Img2ImgParams { mask: Some(full.into()), inpainting_fill: 1, ..whole };
    assert!(picture(&draw(&daemon, &all).await.images[0]) == picture(&plain.images[0]));
    // At the border, of another size than the picture, and by opacity.
    let rgba = (0..64).flat_map(|at| [9, 9, 9, if at % 8 < 4 { 255 } else { 0 }]).collect();
    for mask in [mask(32, 16, 0..4, 0..16), mask(64, 64, 60..64, 60..64), ImageIn::raw(rgba, 8, 8, 4)] {
        for inpaint_full_res in [true, false] {
            let params = Img2ImgParams { mask: Some(mask.clone().into()), inpaint_full_res, ..base.clone() };
            let drawn = picture(&draw(&daemon, &params).await.images[0]);
            assert_eq!((drawn.width, drawn.height), (64, 64));
            assert!(drawn != original(&base.init_images[0]));
        }
    }
}

#[tokio::test]
async fn what_cannot_be_begun_with_is_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let base = request(ramp(64, 64));
    let of = |drawing: Txt2ImgParams| Img2ImgParams { drawing, ..base.clone() };
    let rows = [
        (Img2ImgParams { init_images: vec![], ..base.clone() }, "init_images"),
        (Img2ImgParams { init_images: vec![ramp(8, 8); 3], ..base.clone() }, "3 pictures for 1"),
        (
            Img2ImgParams { init_images: vec![ImageIn::png(b"none".to_vec())], ..base.clone() },
            "init_images[0]",
        ),
        (Img2ImgParams { resize_mode: 4, ..base.clone() }, "resize_mode: 4 is out of range; give 0 to 3"),
        (Img2ImgParams { inpainting_fill: 9, ..base.clone() }, "inpainting_fill"),
        (Img2ImgParams { mask_blur_x: 2000.0, ..base.clone() }, "mask_blur_x"),
        (Img2ImgParams { img2img_background_color: "#12345g".into(), ..base.clone() }, "give one as #ffffff"),
        (
            Img2ImgParams { mask: Some(Masks::Each(vec![ramp(8, 8); 2])), ..base.clone() },
            "mask: has 2 pictures",
        ),
        (
            of(Txt2ImgParams { denoising_strength: Some(1.5), ..base.drawing.clone() }),
            "denoising_strength: 1.5",
        ),
        (
            of(Txt2ImgParams {
                sampler_name: "DPM fast".into(),
                denoising_strength: Some(0.0),
                ..base.drawing.clone()
            }),
            "DPM fast",
        ),
    ];
    for (params, expected) in rows {
        let text = refused(within(client.img2img(&params)).await, ErrorName::InvalidParams);
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let invert = Img2ImgParams { inpainting_mask_invert: 1, ..base.clone() };
    let drawn = within(client.img2img(&invert)).await.expect("drawn");
    assert!(
        drawn.notices.iter().any(|text| text.contains("does nothing without a mask")),
        "{:?}",
        drawn.notices
    );
    let strict = of(Txt2ImgParams { strict: true, ..base.drawing.clone() });
    let strict = Img2ImgParams { inpainting_mask_invert: 1, ..strict };
    refused(within(client.img2img(&strict)).await, ErrorName::InvalidParams);
    // The picture of a job that failed is nobody else's trouble.
    let text = within(client.img2img(&base)).await.expect("drawn").images.remove(0).infotext.expect("told");
    assert!(text.contains("Denoising strength: 0.75") && text.contains("Size: 64x64"), "{text}");
}

#[tokio::test]
async fn each_loop_begins_with_the_picture_before() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let base = request(ramp(64, 64));
    let loopback = LoopbackParams { loops: 3, final_denoising_strength: 0.3, ..LoopbackParams::default() };
    let looped = Img2ImgParams {
        loopback: Some(loopback),
        img2img_color_correction: true,
        mask: Some(mask(64, 64, 8..56, 8..56).into()),
        inpaint_full_res: false,
        ..base.clone()
    };
    let drawn = draw(&daemon, &looped).await;
    let seeds: Vec<_> = drawn.images.iter().map(|image| image.seed.expect("a seed")).collect();
    assert_eq!(seeds, [5, 6, 7]);
    for (image, strength) in drawn.images.iter().zip(["0.75", "0.525", "0.3"]) {
        let text = image.infotext.as_deref().expect("told");
        assert!(text.contains(&format!("Denoising strength: {strength},")), "{text}");
    }
    // Each is drawn again from what it says, but for the colours, which are the first picture's.
    let plain = draw(&daemon, &Img2ImgParams { img2img_color_correction: false, ..looped.clone() }).await;
    for image in &plain.images {
        let info = within(client.image_info(ImageIn::png(image.png.clone().expect("a PNG").0))).await;
        let Some(RepeatRequest::Img2Img(said)) = info.expect("read").request else { panic!("no request") };
        let again = draw(&daemon, &said).await;
        assert_eq!((&again.images[0].png, &again.images[0].infotext), (&image.png, &image.infotext));
    }
    // Of several batches the last pictures.
    let drawing = Txt2ImgParams { n_iter: 2, ..base.drawing.clone() };
    let twice = Img2ImgParams { drawing, img2img_color_correction: false, ..looped.clone() };
    let twice = draw(&daemon, &twice).await;
    assert_eq!(twice.images.len(), 2);
    assert_eq!(twice.images[0].png, plain.images[2].png);
    let drawing = Txt2ImgParams { batch_size: 2, ..base.drawing.clone() };
    let refused_text =
        refused(within(client.img2img(&Img2ImgParams { drawing, ..looped })).await, ErrorName::InvalidParams);
    assert!(refused_text.contains("set batch_size to 1"), "{refused_text}");
}

#[tokio::test]
async fn any_number_of_threads_gives_the_same_bytes() {
    let (one, two) = (Daemon::with_flags(&["--threads", "1"]), Daemon::with_flags(&["--threads", "2"]));
    let base = request(ramp(72, 56));
    let masked = Img2ImgParams {
        mask: Some(mask(72, 56, 16..40, 16..40).into()),
        inpaint_full_res: false,
        ..base.clone()
    };
    for params in [base, masked] {
        let (of_one, of_two) = (draw(&one, &params).await, draw(&two, &params).await);
        assert!(of_one.images[0].png == of_two.images[0].png);
    }
}

#[tokio::test]
async fn one_is_cancelled_while_its_picture_is_encoded() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    // The model is there already, so that the picture is what takes long.
    let small = request(ramp(64, 64));
    within(client.img2img(&small)).await.expect("drawn");
    let drawing = Txt2ImgParams { width: Some(2048), height: Some(2048), ..small.drawing.clone() };
    let large = Img2ImgParams { drawing, ..small.clone() };
    let job = within(client.submit("img2img", &large, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    loop {
        let event = within(events.next()).await.expect("events");
        match event.kind {
            EventKind::Progress { .. } => break,
            other => assert!(!other.is_last(), "{other:?}"),
        }
    }
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    let view = within(client.job(&job)).await.expect("known");
    assert_eq!((view.state, view.step), (JobState::Cancelled, 0), "no step was made");
    within(client.img2img(&small)).await.expect("the next job is fine");
}

#[tokio::test]
async fn a_folder_of_pictures_is_drawn_from_one_after_the_other() {
    let daemon = Daemon::start();
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    for name in ["b.png", "a.png"] {
        let png = original(&ramp(40, 48)).to_png().expect("encodes");
        std::fs::write(from.path().join(name), png).expect("written");
    }
    std::fs::write(from.path().join("broken.jpg"), b"no picture").expect("written");
    std::fs::write(from.path().join("notes.txt"), b"no picture").expect("written");
    let (from, to) = (from.path().to_str().expect("text"), to.path().to_str().expect("text"));
    let flags = ["--steps", "2", "--seed", "3", "--init-dir", from, "--output"];
    let run = |output: &str| {
        let arguments = [&["generate", "a cat"][..], &flags, &[output]].concat();
        daemon.command(&arguments).output().expect("it runs")
    };
    let done = run(to);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("broken.jpg") && said.contains("1 of 3 pictures were not drawn from"), "{said}");
    let mut names: Vec<_> = std::fs::read_dir(to)
        .expect("listed")
        .map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["a.png", "b.png"]);
    // Those that are drawn from are not replaced.
    assert_eq!(run(from).status.code(), Some(2));
}
