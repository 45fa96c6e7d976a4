//! Pictures continued beyond their sides, through the socket.

use std::process::Stdio;

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, ImageOut, JobState, OutpaintMethod, OutpaintParams, Precision,
    RegionParams, RepeatRequest, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::Picture;
use latentd_models::image::inpaint::Region;

use crate::harness::{Daemon, refused, small, within};

/// Of these sizes, with colours that say where they are.
fn ramp(width: u32, height: u32) -> ImageIn {
    let pixel = |x: u32, y: u32| [(x * 255 / width) as u8, (y * 255 / height) as u8, 90];
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    ImageIn::raw(pixels, width, height, 3)
}

/// To the left and right by 32, and down by 64, at most 96 by 96 at once.
fn request(method: OutpaintMethod) -> OutpaintParams {
    let drawing = Txt2ImgParams {
        precision: Precision::F32,
        steps: 4,
        width: Some(96),
        height: Some(96),
        denoising_strength: Some(0.8),
        ..small(5)
    };
    OutpaintParams {
        drawing,
        image: ramp(64, 64),
        left: 32,
        right: 32,
        down: 64,
        method,
        mask_blur: Some(if method == OutpaintMethod::Mk2 { 2 } else { 1 }),
        ..OutpaintParams::default()
    }
}

async fn draw(daemon: &Daemon, params: &OutpaintParams) -> Txt2ImgResult {
    within(daemon.client().await.outpaint(params)).await.expect("drawn")
}

fn picture(image: &ImageOut) -> Picture {
    Picture::decode(&image.png.as_ref().expect("a PNG").0, 1 << 24).expect("decodes")
}

fn original(image: &ImageIn) -> Picture {
    let (width, height) = (image.width.expect("raw"), image.height.expect("raw"));
    Picture::from_raw(image.raw.clone().expect("raw").0, width, height, 3).expect("a picture")
}

fn part(picture: &Picture, [left, top, right, bottom]: [usize; 4]) -> Picture {
    picture.cropped(Region { left, top, right, bottom }).expect("inside")
}

#[tokio::test]
async fn a_picture_grows_and_keeps_what_it_has() {
    let daemon = Daemon::start();
    for method in OutpaintMethod::ALL {
        let params = request(method);
        let drawn = draw(&daemon, &params).await;
        assert!(drawn.notices.is_empty(), "{:?}", drawn.notices);
        let whole = picture(&drawn.images[0]);
        assert_eq!((whole.width, whole.height), (128, 128), "{method:?}");
        // Far from what was drawn it is the original, and what was not there is no longer black.
        let kept = part(&original(&params.image), [28, 0, 36, 8]);
        assert!(part(&whole, [60, 0, 68, 8]) == kept, "{method:?}");
        let new = part(&whole, [0, 100, 128, 128]).pixels;
        assert!(new.iter().filter(|value| **value > 0).count() * 2 > new.len(), "{method:?}");
    }
    // Up to multiples of 64 only along what is continued.
    let odd = OutpaintParams {
        image: ramp(70, 50),
        left: 0,
        right: 20,
        down: 0,
        mask_blur: Some(0),
        ..request(OutpaintMethod::PoorMans)
    };
    for method in OutpaintMethod::ALL {
        let drawn = draw(&daemon, &OutpaintParams { method, ..odd.clone() }).await;
        let whole = picture(&drawn.images[0]);
        assert_eq!((whole.width, whole.height), (128, 50), "{method:?}");
        assert!(part(&whole, [0, 0, 30, 50]) == part(&original(&odd.image), [0, 0, 30, 50]), "{method:?}");
    }
}

#[tokio::test]
async fn a_continued_picture_is_drawn_again_from_what_it_says() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let (mk2, poor) = (request(OutpaintMethod::Mk2), request(OutpaintMethod::PoorMans));
    let rows = [
        OutpaintParams { mask_blur: None, right: 0, down: 0, ..mk2.clone() },
        OutpaintParams { noise_q: 1.75, color_variation: 0.3, ..mk2.clone() },
        OutpaintParams { inpainting_fill: 2, ..poor.clone() },
        OutpaintParams { inpainting_fill: 1, mask_blur: Some(0), left: 0, up: 16, ..poor.clone() },
        OutpaintParams {
            drawing: Txt2ImgParams {
                n_iter: 2,
                subseed: 3,
                subseed_strength: 0.4,
                sampler_name: "DDIM".into(),
                ..poor.drawing.clone()
            },
            ..poor
        },
        OutpaintParams { drawing: Txt2ImgParams { n_iter: 2, ..mk2.drawing.clone() }, ..mk2 },
    ];
    for params in rows {
        let drawn = draw(&daemon, &params).await;
        assert_eq!(drawn.images.len(), params.drawing.n_iter as usize);
        for image in &drawn.images {
            let text = image.infotext.as_deref().expect("told");
            assert!(text.contains("Outpaint: ") && text.contains("Denoising strength: 0.8"), "{text}");
            let png = ImageIn::png(image.png.clone().expect("a PNG").0);
            let info = within(client.image_info(png)).await.expect("read");
            assert!(info.others.is_empty(), "{:?}", info.others);
            let Some(RepeatRequest::Outpaint(said)) = info.request else { panic!("{text}") };
            let again = draw(&daemon, &said).await;
            assert_eq!((&again.images[0].png, &again.images[0].infotext), (&image.png, &image.infotext));
        }
        let [first, last] = [drawn.images.first(), drawn.images.last()].map(|image| image.expect("one"));
        assert_eq!(first.png == last.png, drawn.images.len() == 1, "each has a seed of its own");
    }
}

#[tokio::test]
async fn what_cannot_be_continued_is_refused_at_once() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let (mk2, poor) = (request(OutpaintMethod::Mk2), request(OutpaintMethod::PoorMans));
    let of = |drawing: Txt2ImgParams| OutpaintParams { drawing, ..mk2.clone() };
    let drawing = mk2.drawing.clone();
    let nowhere = OutpaintParams { left: 0, right: 0, down: 0, ..mk2.clone() };
    let region = RegionParams::new(ramp(8, 8), "red");
    let rows = vec![
        (OutpaintParams { image: ImageIn::default(), ..mk2.clone() }, "image: is empty"),
        (OutpaintParams { image: ImageIn::png(b"none".to_vec()), ..poor.clone() }, "image: "),
        (nowhere.clone(), "give at least one of them"),
        (OutpaintParams { method: OutpaintMethod::PoorMans, ..nowhere }, "give at least one of them"),
        (OutpaintParams { left: 70_000, ..mk2.clone() }, "left: 70000 is out of range"),
        (OutpaintParams { left: 60_000, down: 60_000, ..mk2.clone() }, "outpainted: "),
        (OutpaintParams { left: 60_000, down: 4000, ..mk2.clone() }, "pictures of "),
        (OutpaintParams { left: 200, ..poor.clone() }, "give a width above 200"),
        (OutpaintParams { mask_blur: Some(257), ..mk2.clone() }, "mask_blur: 257 is out of range"),
        (OutpaintParams { mask_blur: Some(128), ..mk2.clone() }, "mask_blur: 128 leaves nothing"),
        (OutpaintParams { mask_blur: Some(64), ..poor.clone() }, "mask_blur: 64 leaves nothing"),
        (OutpaintParams { noise_q: 5.0, ..mk2.clone() }, "noise_q: 5"),
        (OutpaintParams { color_variation: -0.1, ..mk2.clone() }, "color_variation: -0.1"),
        (OutpaintParams { inpainting_fill: 4, ..poor.clone() }, "inpainting_fill: 4"),
        (of(Txt2ImgParams { batch_size: 2, ..drawing.clone() }), "set it to 1, not 2"),
        (of(Txt2ImgParams { regions: vec![region], ..drawing.clone() }), "regions: outpaint"),
        (
            of(Txt2ImgParams {
                prompt: vec!["a".to_owned(), "b".to_owned()].into(),
                n_iter: 2,
                ..drawing.clone()
            }),
            "prompt: outpaint draws from one prompt",
        ),
        (of(Txt2ImgParams { enable_hr: true, ..drawing.clone() }), "enable_hr: hires fix belongs to txt2img"),
        (of(Txt2ImgParams { denoising_strength: Some(1.5), ..drawing }), "denoising_strength: 1.5"),
    ];
    for (params, expected) in rows {
        let text = refused(within(client.outpaint(&params)).await, ErrorName::InvalidParams);
        assert!(text.contains(expected) && !text.contains("init_images"), "{expected}: {text}");
    }
    let narrow = Txt2ImgParams { width: Some(32), ..mk2.drawing.clone() };
    let narrow = OutpaintParams { drawing: narrow, left: 0, right: 128, down: 0, ..mk2.clone() };
    for (params, field) in [
        (narrow, "width: 32 columns are drawn at once"),
        (OutpaintParams { inpainting_fill: 2, ..mk2 }, "inpainting_fill: does nothing with mk2"),
        (OutpaintParams { noise_q: 2.0, ..poor }, "noise_q: does nothing with poor-mans"),
    ] {
        let drawn = draw(&daemon, &params).await;
        assert!(drawn.notices.iter().any(|text| text.contains(field)), "{:?}", drawn.notices);
        let drawing = Txt2ImgParams { strict: true, ..params.drawing.clone() };
        let strict = OutpaintParams { drawing, ..params };
        refused(within(client.outpaint(&strict)).await, ErrorName::InvalidParams);
    }
}

#[tokio::test]
async fn the_command_line_continues_a_picture_and_draws_it_again() {
    let daemon = Daemon::start();
    let run = |arguments: &[&str]| {
        let mut command = daemon.command(arguments);
        let output = command.stdin(Stdio::null()).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let file = |name: &str| std::fs::read(daemon.folder.path().join(name)).expect("written");
    let picture = |name: &str| Picture::decode(&file(name), 1 << 24).expect("decodes");
    let small = ["--seed=7", "--steps=2", "-W64", "-H64"];
    let drawn = run(&[&["generate", "a cat", "-o", "a.png"], &small[..]].concat());
    assert_eq!(drawn.0, Some(0), "{}", drawn.1);
    let flags =
        ["--right=32", "--mask-blur=1", "--denoising-strength=0.9", "--method=poor-mans", "-o", "b.png"];
    let drawn = run(&[&["outpaint", "a.png", "a dog"], &small[..], &flags].concat());
    assert_eq!(drawn.0, Some(0), "{}", drawn.1);
    assert_eq!((picture("b.png").width, picture("b.png").height), (128, 64));
    let drawn = run(&["generate", "--from", "b.png", "-o", "c.png"]);
    assert_eq!(drawn.0, Some(0), "{}", drawn.1);
    assert!(file("c.png") == file("b.png"), "drawn again");
    let (code, errors) = run(&["generate", "--from", "b.png", "--init-image", "a.png"]);
    assert!(code == Some(2) && errors.contains("latentd outpaint"), "{errors}");
    let (code, errors) = run(&["outpaint", "a.png", "a dog", "-o", "d.png"]);
    assert!(code == Some(2) && errors.contains("left, right, up and down are 0"), "{errors}");
}

/// Steps are counted over all sides, and a job ends between two of them.
#[tokio::test]
async fn steps_are_those_of_all_sides_and_a_job_can_be_cancelled() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for method in OutpaintMethod::ALL {
        let mut told = vec![];
        let params = request(method);
        within(client.outpaint_with(&params, |event| {
            if let EventKind::Progress { step, steps, .. } = event.kind {
                told.push((step, steps));
            }
        }))
        .await
        .expect("drawn");
        // Four steps at this strength are four: of three sides, or of four tiles.
        let all = if method == OutpaintMethod::Mk2 { 12 } else { 16 };
        assert!(told.iter().all(|(_, steps)| *steps == all), "{told:?}");
        assert!(told.is_sorted() && told.last() == Some(&(all, all)), "{told:?}");

        let drawing = Txt2ImgParams { steps: 1000, n_iter: 20, ..params.drawing.clone() };
        let long = OutpaintParams { drawing, ..params };
        let job = within(client.submit("outpaint", &long, None)).await.expect("submitted");
        let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
        loop {
            match within(events.next()).await.expect("events").kind {
                EventKind::Progress { step, .. } if step > 1 => break,
                other => assert!(!other.is_last(), "{other:?}"),
            }
        }
        within(client.cancel(&job)).await.expect("cancelled");
        refused(within(client.wait(&job)).await, ErrorName::Cancelled);
        assert_eq!(within(client.job(&job)).await.expect("known").state, JobState::Cancelled);
    }
}
