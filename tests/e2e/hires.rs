//! Hires fix through the socket: a second, larger pass over what the first one drew.

use std::fs;

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, ImageOut, Img2ImgParams, LoraParams, Pass, Precision, PreviewKind,
    PreviewParams, Txt2ImgParams, Txt2ImgResult,
};

use crate::harness::{Daemon, Options, fixtures, long, refused, small, within};

/// Of 64 by 64, made twice as large.
fn hires(seed: i64) -> Txt2ImgParams {
    Txt2ImgParams { enable_hr: true, precision: Precision::F32, ..small(seed) }
}

/// With two checkpoints and a LoRA.
fn start() -> (Daemon, tempfile::TempDir) {
    let models = tempfile::tempdir().expect("a folder");
    let (checkpoints, loras) = (models.path().join("Stable-diffusion"), models.path().join("Lora"));
    fs::create_dir_all(&checkpoints).expect("made");
    fs::create_dir_all(&loras).expect("made");
    for name in ["tiny-sd1.safetensors", "tiny-sd1-ema.safetensors"] {
        fs::copy(fixtures().join("Stable-diffusion").join(name), checkpoints.join(name)).expect("copied");
    }
    let file = fixtures().join("../adapters/lycoris-locon.safetensors");
    fs::copy(file, loras.join("style.safetensors")).expect("copied");
    let hypernetworks = models.path().join("hypernetworks");
    fs::create_dir_all(&hypernetworks).expect("made");
    let file = fixtures().join("../adapters/hypernet-linear.pt");
    fs::copy(file, hypernetworks.join("linear.pt")).expect("copied");
    (Daemon::with(Options { models: Some(models.path().to_owned()), ..Options::default() }), models)
}

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(params)).await.expect("drawn")
}

async fn image(daemon: &Daemon, params: &Txt2ImgParams) -> ImageOut {
    let mut drawn = draw(daemon, params).await;
    assert_eq!((drawn.images.len(), drawn.notices), (1, vec![]));
    drawn.images.remove(0)
}

fn png(image: &ImageOut) -> Vec<u8> {
    image.png.clone().expect("a PNG").0
}

/// The same pixels, whatever their texts say.
fn is_same(a: &ImageOut, b: &ImageOut) -> bool {
    let pixels = |image| latentd_models::image::Picture::decode(&png(image), 1 << 24).expect("decodes");
    pixels(a) == pixels(b)
}

/// The request in a picture's text, all of which it must say.
async fn said(daemon: &Daemon, image: &ImageOut) -> Txt2ImgParams {
    let info = within(daemon.client().await.image_info(ImageIn::png(png(image)))).await.expect("read");
    assert!(info.others.is_empty(), "{:?}", info.others);
    info.request.expect("a request").into_drawing()
}

#[tokio::test]
async fn a_picture_repeats_from_its_text() {
    let (daemon, _models) = start();
    let base = hires(5);
    let rows = [
        (
            base.clone(),
            (128, 128),
            "Denoising strength: 0.75, RNG: NV, Hires upscale: 2, Hires upscaler: Latent,",
        ),
        (
            Txt2ImgParams {
                hr_upscaler: "Lanczos".into(),
                hr_scale: 1.5,
                hr_second_pass_steps: 3,
                denoising_strength: Some(0.5),
                ..base.clone()
            },
            (96, 96),
            "Hires upscale: 1.5, Hires steps: 3, Hires upscaler: Lanczos,",
        ),
        (
            Txt2ImgParams { hr_upscaler: "None".into(), hr_resize_x: 96, ..base.clone() },
            (96, 96),
            "Hires resize: 96x0, Hires upscaler: None,",
        ),
        (
            Txt2ImgParams {
                hr_upscaler: "Latent (nearest-exact)".into(),
                hr_resize_x: 128,
                hr_resize_y: 96,
                ..base.clone()
            },
            (128, 96),
            "Hires resize: 128x96, Hires upscaler: Latent (nearest-exact),",
        ),
        (
            Txt2ImgParams {
                sampler_name: "DPM++ 2M".into(),
                hr_sampler_name: Some("Heun".into()),
                hr_scheduler: Some("Beta".into()),
                beta_dist_alpha: 0.7,
                s_churn: 0.3,
                hr_cfg: Some(3.5),
                hr_prompt: "a green (square:1.2), [cat:dog:0.5]".into(),
                hr_negative_prompt: "fog ".into(),
                ..base.clone()
            },
            (128, 128),
            "Hires sampler: Heun, Hires prompt: \"a green (square:1.2), [cat:dog:0.5]\", Hires negative prompt: \"fog \", \
             Hires CFG Scale: 3.5, Hires schedule type: Beta, Hires upscale: 2,",
        ),
        (
            Txt2ImgParams { hr_checkpoint_name: Some("tiny-sd1-ema".into()), ..base.clone() },
            (128, 128),
            "Hires checkpoint: tiny-sd1-ema [",
        ),
        (
            Txt2ImgParams {
                refiner_checkpoint: Some("tiny-sd1-ema".into()),
                refiner_switch_at: Some(0.5),
                denoising_strength: Some(1.0),
                steps: 6,
                ..base.clone()
            },
            (128, 128),
            "Refiner: tiny-sd1-ema [",
        ),
    ];
    let mut all: Vec<ImageOut> = vec![];
    for (params, size, text) in rows {
        let drawn = image(&daemon, &params).await;
        let infotext = drawn.infotext.clone().expect("an infotext");
        assert_eq!((drawn.width, drawn.height), size, "{infotext}");
        assert!(infotext.contains(text) && infotext.contains("Size: 64x64"), "{infotext}");
        let again = image(&daemon, &said(&daemon, &drawn).await).await;
        assert!(again.png == drawn.png, "{infotext}\n{}", again.infotext.expect("an infotext"));
        assert!(all.iter().all(|other| !is_same(other, &drawn)), "{infotext}");
        all.push(drawn);
    }
    // What is as the first pass has it anyway is not told.
    let same = Txt2ImgParams {
        hr_prompt: base.prompt.clone(),
        hr_sampler_name: Some("Use same sampler".into()),
        hr_scheduler: Some("Use same scheduler".into()),
        hr_checkpoint_name: Some("Use same checkpoint".into()),
        hr_cfg: Some(base.cfg_scale),
        denoising_strength: Some(0.75),
        ..base
    };
    assert!(image(&daemon, &same).await.png == all[0].png);
}

#[tokio::test]
async fn networks_are_those_of_its_own_prompt() {
    let (daemon, _models) = start();
    let with = |prompt: &str, hr_prompt: &str| Txt2ImgParams {
        prompt: prompt.into(),
        hr_prompt: hr_prompt.into(),
        denoising_strength: Some(0.5),
        ..hires(3)
    };
    let plain = image(&daemon, &with("a cat", "")).await;
    let both = image(&daemon, &with("a cat<lora:style:1>", "")).await;
    let named = image(&daemon, &with("a cat<lora:style:1>", "a cat<lora:style:1> ")).await;
    let (first, second) = (with("a cat<lora:style:1>", "a cat"), with("a cat", "a cat<lora:style:1>"));
    let (first, second) = (image(&daemon, &first).await, image(&daemon, &second).await);
    assert!(!is_same(&plain, &both) && !is_same(&first, &both) && !is_same(&second, &both));
    assert!(!is_same(&first, &plain) && !is_same(&second, &plain) && !is_same(&first, &second));
    assert!(is_same(&both, &named), "the same, said twice");
    // What stands beside the prompts is of both.
    let lora = LoraParams { name: "style".into(), unet: Some(1.0), te: Some(1.0), dynamic: None };
    let beside = Txt2ImgParams { loras: vec![lora], ..with("a cat", "a dog") };
    let beside = image(&daemon, &beside).await;
    let written = image(&daemon, &with("a cat<lora:style:1>", "a dog<lora:style:1>")).await;
    assert!(is_same(&beside, &written));
    let hyper = image(&daemon, &with("a cat", "a cat<hypernet:linear:1>")).await;
    let hyper_first = image(&daemon, &with("a cat<hypernet:linear:1>", "a cat ")).await;
    assert!(!is_same(&hyper, &plain) && !is_same(&hyper_first, &plain) && !is_same(&hyper, &hyper_first));
    for drawn in [&hyper, &hyper_first] {
        assert!(image(&daemon, &said(&daemon, drawn).await).await.png == drawn.png);
    }
    for drawn in [&first, &second, &beside] {
        let text = drawn.infotext.as_ref().expect("an infotext");
        assert!(text.contains("Lora hashes: \"style: "), "{text}");
        assert!(image(&daemon, &said(&daemon, drawn).await).await.png == drawn.png, "{text}");
    }
    let drawn = draw(&daemon, &with("a cat", "a cat<lora:nothing>")).await;
    assert!(drawn.notices[0].contains("nothing") && is_same(&drawn.images[0], &plain), "{:?}", drawn.notices);
}

#[tokio::test]
async fn first_pictures_come_too_and_repeat_alone() {
    let (daemon, _models) = start();
    for upscaler in ["Latent", "Lanczos"] {
        let params = Txt2ImgParams {
            batch_size: 2,
            n_iter: 2,
            hr_upscaler: upscaler.into(),
            hr_prompt: vec!["a", "b", "c", "d"].into_iter().map(str::to_owned).collect::<Vec<_>>().into(),
            save_images_before_highres_fix: true,
            ..hires(7)
        };
        let images = draw(&daemon, &params).await.images;
        let sizes: Vec<u32> = images.iter().map(|image| image.width).collect();
        assert_eq!(sizes, [64, 64, 128, 128, 64, 64, 128, 128], "{upscaler}");
        for (place, drawn) in images.iter().enumerate() {
            let text = drawn.infotext.clone().expect("an infotext");
            let is_first = drawn.width == 64;
            assert_eq!(text.contains("Hires") || text.contains("Denoising"), !is_first, "{place}: {text}");
            let request = said(&daemon, drawn).await;
            assert_eq!((request.enable_hr, request.save_images_before_highres_fix), (!is_first, false));
            assert!(image(&daemon, &request).await.png == drawn.png, "{place}: {text}");
        }
        let plain = Txt2ImgParams { enable_hr: false, batch_size: 1, n_iter: 1, ..params };
        assert!(
            image(&daemon, &plain).await.png == images[0].png,
            "what is of a second pass does nothing alone"
        );
    }
}

#[tokio::test]
async fn progress_counts_both_passes_and_names_them() {
    let (daemon, _models) = start();
    let client = daemon.client().await;
    let params = Txt2ImgParams {
        steps: 3,
        hr_second_pass_steps: 2,
        n_iter: 2,
        preview: Some(PreviewParams { every: 1, kind: PreviewKind::Latent }),
        ..hires(1)
    };
    let (mut told, mut previews) = (vec![], vec![]);
    within(client.txt2img_with(&params, |event| match &event.kind {
        EventKind::Progress { stage: Some(stage), pass, step, steps, .. } => {
            assert_eq!(*steps, 10, "{event:?}");
            assert_eq!(pass.is_none(), stage == "loading", "{event:?}");
            told.extend(pass.map(|pass| (pass, *step)));
        }
        EventKind::Preview { pass, image, .. } => previews.push((*pass, image.width)),
        _ => (),
    }))
    .await
    .expect("drawn");
    let passes: Vec<Pass> = told.iter().map(|(pass, _)| *pass).collect();
    let mut turns = passes.clone();
    turns.dedup();
    assert_eq!(turns, [Pass::Base, Pass::Hires, Pass::Base, Pass::Hires]);
    assert!(told.is_sorted_by_key(|(_, step)| *step) && told.last() == Some(&(Pass::Hires, 10)), "{told:?}");
    assert!(
        previews.contains(&(Some(Pass::Base), 8)) && previews.contains(&(Some(Pass::Hires), 16)),
        "{previews:?}"
    );
}

#[tokio::test]
async fn cancelling_ends_the_second_pass_within_a_step() {
    let (daemon, _models) = start();
    let client = daemon.client().await;
    let params = Txt2ImgParams {
        enable_hr: true,
        steps: 1,
        width: Some(128),
        height: Some(128),
        hr_second_pass_steps: 1000,
        ..long()
    };
    let job = within(client.submit("txt2img", &params, None)).await.expect("submitted");
    let mut events = within(client.subscribe(&job, 0)).await.expect("subscribed");
    let mut cancelled_at = None;
    let mut last = 0;
    while let Some(event) = within(events.next()).await {
        match event.kind {
            EventKind::Progress { pass: Some(Pass::Hires), step, .. } => {
                if step > 2 && cancelled_at.is_none() {
                    within(client.cancel(&job)).await.expect("cancelled");
                    cancelled_at = Some(within(client.job(&job)).await.expect("known").step);
                }
                last = step;
            }
            EventKind::Cancelled => break,
            other => assert!(!other.is_last(), "{other:?}"),
        }
    }
    let cancelled_at = cancelled_at.expect("cancelled");
    assert!(last <= cancelled_at + 1, "{last} steps, cancelled at {cancelled_at}");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    draw(&daemon, &hires(1)).await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let (daemon, _models) = start();
    let client = daemon.client().await;
    let base = hires(1);
    let rows = [
        (
            Txt2ImgParams { hr_upscaler: "Lanzcos".into(), ..base.clone() },
            ErrorName::NotFound,
            "hr_upscaler: 'Lanzcos' is not known; known: Latent, Latent (antialiased)",
        ),
        (
            Txt2ImgParams { hr_upscaler: "lanzcos".into(), ..base.clone() },
            ErrorName::NotFound,
            "did you mean",
        ),
        (
            Txt2ImgParams { hr_sampler_name: Some("Eular".into()), ..base.clone() },
            ErrorName::InvalidParams,
            "hr_sampler_name: 'Eular' is not known",
        ),
        (
            Txt2ImgParams { hr_scheduler: Some("Karas".into()), ..base.clone() },
            ErrorName::InvalidParams,
            "hr_scheduler: 'Karas' is not known",
        ),
        (
            Txt2ImgParams { hr_checkpoint_name: Some("nothing".into()), ..base.clone() },
            ErrorName::NotFound,
            "hr_checkpoint_name 'nothing' is not in the library",
        ),
        (Txt2ImgParams { hr_scale: 0.01, ..base.clone() }, ErrorName::InvalidParams, "another hr_scale"),
        (Txt2ImgParams { hr_scale: 65.0, ..base.clone() }, ErrorName::InvalidParams, "hr_scale: 65"),
        (Txt2ImgParams { hr_resize_x: 4, ..base.clone() }, ErrorName::InvalidParams, "hr_resize_x"),
        (Txt2ImgParams { hr_cfg: Some(-1.0), ..base.clone() }, ErrorName::InvalidParams, "hr_cfg"),
        (
            Txt2ImgParams { hr_prompt: vec!["a".to_owned(); 3].into(), ..base.clone() },
            ErrorName::InvalidParams,
            "list of 3",
        ),
        (
            Txt2ImgParams { denoising_strength: Some(1.5), ..base.clone() },
            ErrorName::InvalidParams,
            "denoising_strength",
        ),
    ];
    for (params, name, expected) in rows {
        let text = refused(within(client.txt2img(&params)).await, name);
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let raw = ImageIn::raw(vec![9; 64 * 64 * 3], 64, 64, 3);
    let from = Img2ImgParams { drawing: base.clone(), init_images: vec![raw], ..Img2ImgParams::default() };
    let text = refused(within(client.img2img(&from)).await, ErrorName::InvalidParams);
    assert!(text.starts_with("enable_hr: hires fix belongs to txt2img"), "{text}");
    // Without it nothing of it matters.
    let off = Txt2ImgParams { enable_hr: false, hr_upscaler: "nothing".into(), ..base };
    assert!(!image(&daemon, &off).await.infotext.expect("an infotext").contains("Hires"));
}

#[tokio::test]
async fn larger_pictures_than_fit_are_refused_by_their_size() {
    let config = "result_bytes = 40000\n".to_owned();
    let daemon = Daemon::with(Options { config, ..Options::default() });
    let text = refused(within(daemon.client().await.txt2img(&hires(1))).await, ErrorName::InvalidParams);
    assert!(text.contains("1 pictures of 128×128 are 49152 bytes"), "{text}");
    let less = Txt2ImgParams { hr_scale: 1.5, ..hires(1) };
    assert_eq!(image(&daemon, &less).await.width, 96);
}

#[test]
fn the_command_line_has_it() {
    let daemon = Daemon::start();
    let folder = daemon.folder.path();
    let run = |arguments: &[&str]| {
        let output = daemon.command(arguments).current_dir(folder).output().expect("run");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let small = ["-c", "tiny-sd1", "-W", "64", "-H", "64", "--steps", "2", "-s", "4"];
    let mut first = vec!["generate", "a cat", "--enable-hr", "--hr-scale", "1.5", "--hr-upscaler", "Lanczos"];
    first.extend(["--denoising-strength", "0.6", "--hr-prompt", "a dog", "-o", "first.png"]);
    first.extend(small);
    let (done, told) = run(&first);
    assert!(done, "{told}");
    let (done, told) = run(&["generate", "--from", "first.png", "-o", "second.png"]);
    assert!(done, "{told}");
    let bytes = |name: &str| fs::read(folder.join(name)).expect("written");
    assert!(bytes("first.png") == bytes("second.png"));
    let (done, told) = run(&["generate", "a cat", "--denoising-strength", "0.6"]);
    assert!(!done && told.contains("--denoising-strength needs a picture"), "{told}");
}

/// With room for little beside one of them each leaves for the other, and the picture is the same.
#[tokio::test]
async fn two_checkpoints_come_and_go_within_the_budget() {
    let (wide, models) = start();
    let batch = Txt2ImgParams {
        hr_checkpoint_name: Some("tiny-sd1-ema".into()),
        hr_upscaler: "Lanczos".into(),
        batch_size: 2,
        n_iter: 2,
        ..hires(2)
    };
    let wanted = draw(&wide, &batch).await;
    let mut bytes = 1u64 << 20;
    let narrow = loop {
        let config = format!("memory_bytes = {bytes}\n");
        let narrow =
            Daemon::with(Options { models: Some(models.path().to_owned()), config, ..Options::default() });
        let Err(error) = within(narrow.client().await.txt2img(&batch)).await else { break narrow };
        let text = refused::<()>(Err(error), ErrorName::Memory);
        let needed = text.split_once("needs about ").and_then(|(_, rest)| rest.split_once(" bytes"));
        bytes = needed.and_then(|(needed, _)| needed.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    };
    for _ in 0..2 {
        let drawn = draw(&narrow, &batch).await;
        assert!(
            drawn.images.len() == 4 && drawn.images.iter().zip(&wanted.images).all(|(a, b)| a.png == b.png)
        );
    }
    assert!(narrow.log().contains("unloaded to make room"), "{}", narrow.log());
}
