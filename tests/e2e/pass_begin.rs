//! What passes begin with, and plugins that change it, through the socket: a plugin in C that says what to do.

use latentd_client::protocol::{
    ErrorName, ImageIn, ImageOut, Img2ImgParams, LoopbackParams, Masks, OutputFormat, OutputParams,
    PluginParams, Precision, SoftInpaintingParams, Txt2ImgParams, Txt2ImgResult,
};
use serde_json::json;

use crate::harness::{Daemon, fixtures, refused, small, within};
use crate::plugin_library::{build, install};
use crate::vae::{daemon, models, read, write};

fn begins() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "begins.so", &build("tests/fixtures/plugins/begins.c", &["-std=gnu99"]));
    daemon
}

fn with(act: &str, image: i64, request: &Img2ImgParams) -> Img2ImgParams {
    let params = json!({"act": act, "image": image});
    let params = PluginParams::from_json(params.as_object().expect("an object").clone());
    let plugins = [("begins".to_owned(), params)].into();
    Img2ImgParams { drawing: Txt2ImgParams { plugins, ..request.drawing.clone() }, ..request.clone() }
}

fn raw(seed: i64) -> Txt2ImgParams {
    let output = OutputParams { format: OutputFormat::Raw, dir: None };
    let denoising_strength = Some(0.6);
    Txt2ImgParams { output, precision: Precision::F32, steps: 4, denoising_strength, ..small(seed) }
}

fn ramp(first: u8) -> Vec<u8> {
    (0..64 * 64).flat_map(|at| [first, (at % 64 * 3) as u8, (at / 64 * 3) as u8]).collect()
}

fn from(pixels: &[u8]) -> Img2ImgParams {
    Img2ImgParams {
        init_images: vec![ImageIn::raw(pixels.to_vec(), 64, 64, 3)],
        inpaint_full_res: false,
        inpainting_fill: 1,
        mask_blur: Some(0.0),
        drawing: raw(5),
        ..Img2ImgParams::default()
    }
}

/// White in the right half, or in the lower one.
fn half(is_right: bool) -> Masks {
    let is_white = |at: usize| if is_right { at % 64 >= 32 } else { at / 64 >= 32 };
    ImageIn::raw((0..64 * 64).map(|at| if is_white(at) { 255 } else { 0 }).collect(), 64, 64, 1).into()
}

fn masked(is_right: bool) -> Img2ImgParams {
    Img2ImgParams { mask: Some(half(is_right)), ..from(&ramp(9)) }
}

async fn drawn(daemon: &Daemon, request: &Img2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.img2img(request)).await.expect("drawn")
}

fn pixels(image: &ImageOut) -> &[u8] {
    &image.raw.as_ref().expect("pixels").0
}

async fn all(daemon: &Daemon, request: &Img2ImgParams) -> Vec<Vec<u8>> {
    drawn(daemon, request).await.images.iter().map(|image| pixels(image).to_vec()).collect()
}

fn told(drawn: &Txt2ImgResult) -> Vec<&str> {
    drawn.notices.iter().filter_map(|notice| notice.strip_prefix("plugin 'begins': ")).collect()
}

#[tokio::test]
async fn each_pass_is_told_with_what_it_begins_with() {
    let daemon = begins();
    let client = daemon.client().await;
    let tell = |request: &Txt2ImgParams| {
        with("tell", -1, &Img2ImgParams { drawing: request.clone(), ..from(&ramp(9)) }).drawing
    };
    let hires = Txt2ImgParams { enable_hr: true, n_iter: 2, denoising_strength: Some(0.5), ..raw(5) };
    let result = within(client.txt2img(&tell(&hires))).await.expect("drawn");
    let sizes = "base 64x64, hires 128x128";
    let pass = |index: u32| {
        let picture = format!("{index}, seed {}: none, mask none, 0x0 at 0,0 of 0x0", 5 + index);
        let base = format!("pass 1.{index} of 64x64, 4 steps, {sizes}, init 0, strength 1.00");
        let hires = format!("pass 2.{index} of 128x128, 4 steps, {sizes}, init 1, strength 0.50");
        [base, picture, hires]
    };
    assert_eq!(told(&result), [pass(0), pass(1)].concat(), "each text once");
    let two = Txt2ImgParams { batch_size: 2, ..raw(5) };
    let result = drawn(&daemon, &with("tell", -1, &Img2ImgParams { drawing: two, ..masked(true) })).await;
    let of = "64x64x3, mask 64x64x1, 64x64 at 0,0 of 64x64";
    let pass = "pass 1.0 of 64x64, 3 steps, base 64x64, hires 0x0, init 1, strength 0.60";
    assert_eq!(told(&result), [pass, &format!("0, seed 5: {of}"), &format!("1, seed 6: {of}")]);
    // What only is masked is drawn of: a quarter, and the padding around it.
    let quarter = (0..64 * 64).map(|at| if at % 64 >= 40 && at / 64 >= 40 { 255 } else { 0 }).collect();
    let part = Img2ImgParams {
        mask: Some(ImageIn::raw(quarter, 64, 64, 1).into()),
        inpaint_full_res: true,
        inpaint_full_res_padding: 4,
        drawing: Txt2ImgParams { width: Some(64), height: Some(64), ..raw(5) },
        ..masked(true)
    };
    let result = drawn(&daemon, &with("tell", -1, &part)).await;
    assert_eq!(told(&result)[1], "0, seed 5: 64x64x3, mask 64x64x1, 28x28 at 36,36 of 64x64");
}

/// Each way in which pictures begin.
fn requests() -> Vec<Img2ImgParams> {
    let two = Txt2ImgParams { batch_size: 2, n_iter: 2, ..raw(5) };
    let inits = vec![ImageIn::raw(ramp(9), 64, 64, 3), ImageIn::raw(ramp(200), 64, 64, 3)];
    let large = Txt2ImgParams { width: Some(96), height: Some(64), ..raw(5) };
    vec![
        from(&ramp(9)),
        Img2ImgParams { drawing: two.clone(), init_images: inits.clone(), ..masked(true) },
        Img2ImgParams { drawing: two, init_images: inits, ..from(&ramp(9)) },
        Img2ImgParams { inpaint_full_res: true, mask_blur: Some(4.0), inpainting_fill: 0, ..masked(true) },
        Img2ImgParams { mask_blur: Some(4.0), inpainting_fill: 2, mask_round: false, ..masked(false) },
        Img2ImgParams { soft_inpainting: Some(SoftInpaintingParams::default()), ..masked(true) },
        Img2ImgParams { resize_mode: 3, drawing: large.clone(), ..from(&ramp(9)) },
        Img2ImgParams { resize_mode: 2, drawing: large, img2img_color_correction: true, ..masked(false) },
    ]
}

#[tokio::test]
async fn who_only_looks_or_copies_changes_no_byte() {
    let daemon = begins();
    for (number, request) in requests().iter().enumerate() {
        let expected = all(&daemon, request).await;
        for act in ["tell", "own", "same", "skip"] {
            // A copy of a mask that is between is laid over the user's picture as it was drawn with, not as it was blurred.
            if act == "same" && number == 3 {
                continue;
            }
            assert!(all(&daemon, &with(act, -1, request)).await == expected, "{act}, request {number}");
        }
        assert!(all(&daemon, &with("invert", -1, request)).await != expected, "request {number}");
        assert!(all(&daemon, request).await == expected, "request {number}");
    }
}

#[tokio::test]
async fn an_image_is_drawn_from_as_if_it_was_the_users() {
    let daemon = begins();
    let inverted: Vec<u8> = ramp(9).iter().map(|value| 255 - value).collect();
    let (plain, other) = (all(&daemon, &from(&ramp(9))).await, all(&daemon, &from(&inverted)).await);
    assert!(all(&daemon, &with("invert", -1, &from(&ramp(9)))).await == other && plain != other);
    // One of several, in the second batch, is another alone.
    let four = |pixels: &[u8]| Img2ImgParams {
        drawing: Txt2ImgParams { batch_size: 2, n_iter: 2, ..raw(5) },
        ..from(pixels)
    };
    let (plain, other) = (all(&daemon, &four(&ramp(9))).await, all(&daemon, &four(&inverted)).await);
    let found = all(&daemon, &with("invert", 3, &four(&ramp(9)))).await;
    assert!(found[..3] == plain[..3] && found[3] == other[3]);
    // What lies around what is drawn stays the user's.
    let found = all(&daemon, &with("invert", -1, &masked(true))).await.remove(0);
    let before = ramp(9);
    assert!((0..64).all(|row| found[row * 192..row * 192 + 90] == before[row * 192..row * 192 + 90]));
    // Each loop begins for itself.
    let loopback = LoopbackParams { loops: 2, final_denoising_strength: 0.6, ..LoopbackParams::default() };
    let looped = Img2ImgParams { loopback: Some(loopback), ..from(&ramp(9)) };
    let images = all(&daemon, &with("invert", -1, &looped)).await;
    let next = Img2ImgParams { drawing: raw(6), ..from(&images[0]) };
    assert!(images[0] == all(&daemon, &from(&inverted)).await[0]);
    assert!(images[1] == all(&daemon, &with("invert", -1, &next)).await[0]);
}

#[tokio::test]
async fn a_mask_is_drawn_in_as_if_it_was_the_users() {
    let daemon = begins();
    let expected = all(&daemon, &masked(true)).await;
    for request in [masked(false), from(&ramp(9))] {
        assert!(all(&daemon, &with("right", -1, &request)).await == expected);
    }
    // Of two pictures one has it, and the other is drawn all over.
    let two = Img2ImgParams { drawing: Txt2ImgParams { batch_size: 2, ..raw(4) }, ..from(&ramp(9)) };
    let plain = all(&daemon, &two).await;
    assert!(all(&daemon, &with("right", 1, &two)).await == [plain[0].clone(), expected[0].clone()]);
    // In the part that is drawn of it, the user's picture stays where the mask is not.
    let lower: Vec<u8> = (0..64 * 64).map(|at| if at / 64 >= 40 { 255 } else { 0 }).collect();
    let part = Img2ImgParams {
        mask: Some(ImageIn::raw(lower, 64, 64, 1).into()),
        inpaint_full_res: true,
        inpaint_full_res_padding: 0,
        drawing: Txt2ImgParams { width: Some(128), height: Some(48), ..raw(5) },
        ..from(&ramp(9))
    };
    let (plain, found) =
        (all(&daemon, &part).await.remove(0), all(&daemon, &with("right", -1, &part)).await.remove(0));
    let before = ramp(9);
    let is_kept = |at: usize| found[at * 3..at * 3 + 3] == before[at * 3..at * 3 + 3];
    assert!((0..64 * 64).filter(|at| at % 64 < 26 || at / 64 < 40).all(is_kept) && found != plain);
    assert!((0..64 * 64).any(|at| at % 64 >= 34 && at / 64 >= 42 && !is_kept(at)));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_costs_that_job_alone() {
    let daemon = begins();
    let client = daemon.client().await;
    let plain = all(&daemon, &masked(true)).await;
    let stretched = Img2ImgParams {
        resize_mode: 3,
        drawing: Txt2ImgParams { width: Some(96), height: Some(64), ..raw(5) },
        ..from(&ramp(9))
    };
    for (act, request, words) in [
        ("small", masked(true), "slot 0: an image [1, 3, 63, 64] in the place of an image [1, 3, 64, 64]"),
        ("colours", masked(true), "slot 1: an image [1, 3, 64, 64] in the place of an image [1, 1, 64, 64]"),
        ("tensor", masked(true), "slot 0: a tensor"),
        ("slot", masked(true), "slot 2 is none of its slots"),
        ("right", stretched, "slot 1: there is nothing to be replaced"),
    ] {
        let text = refused(within(client.img2img(&with(act, -1, &request))).await, ErrorName::Plugin);
        assert!(text.starts_with("plugin 'begins', pass.begin/draft-1: ") && text.contains(words), "{text}");
        assert!(all(&daemon, &masked(true)).await == plain, "{act}");
    }
    let text =
        refused(within(client.txt2img(&with("small", -1, &masked(true)).drawing)).await, ErrorName::Plugin);
    assert!(text.contains("slot 0 is none of its slots"), "{text}");
    let waits = with("wait", -1, &masked(true));
    let job = within(client.submit("img2img", &waits, None)).await.expect("submitted");
    daemon.wait_log("waits at pass.begin");
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    assert!(all(&daemon, &masked(true)).await == plain);
}

#[tokio::test]
async fn the_model_is_that_of_the_pass() {
    let daemon = begins();
    let client = daemon.client().await;
    let drawing = Txt2ImgParams {
        enable_hr: true,
        hr_checkpoint_name: Some("tiny-sd1-ema".into()),
        n_iter: 2,
        denoising_strength: Some(0.5),
        ..raw(5)
    };
    let request = with("model", -1, &Img2ImgParams { drawing, ..from(&ramp(9)) }).drawing;
    let line = |pass: &str, width: u32| format!("pass {pass}: {width} numbers a token");
    let result = within(client.txt2img(&request)).await.expect("drawn");
    assert_eq!(told(&result), [line("1.0", 32), line("2.0", 8), line("1.1", 32), line("2.1", 8)]);
}

/// A library with tiny-sd1 as an inpainting checkpoint.
fn inpainting() -> (Daemon, tempfile::TempDir) {
    let folder = models();
    let mut tensors = read(&fixtures().join("Stable-diffusion/tiny-sd1.safetensors"));
    for (name, _, shape, bytes) in &mut tensors {
        if name == "model.diffusion_model.input_blocks.0.0.weight" {
            // Of each output five more inputs, of 3 by 3 each in f16.
            let of_inputs = |count: usize| count * 9 * 2;
            let row = |row: &[u8]| [row, row, row].concat()[..of_inputs(9)].to_vec();
            *bytes = bytes.chunks(of_inputs(4)).flat_map(row).collect();
            shape[1] = json!(9);
        }
    }
    write(&folder.path().join("Stable-diffusion/paints.safetensors"), &tensors);
    let daemon = daemon(folder.path());
    install(&daemon, "begins.so", &build("tests/fixtures/plugins/begins.c", &["-std=gnu99"]));
    (daemon, folder)
}

#[tokio::test]
async fn an_inpainting_checkpoint_sees_what_a_plugin_put_there() {
    let (daemon, _models) = inpainting();
    let paints = |request: Img2ImgParams| Img2ImgParams {
        drawing: Txt2ImgParams { checkpoint: Some("paints".into()), ..request.drawing },
        ..request
    };
    let inverted: Vec<u8> = ramp(9).iter().map(|value| 255 - value).collect();
    let (right, lower) =
        (all(&daemon, &paints(masked(true))).await, all(&daemon, &paints(masked(false))).await);
    assert_ne!(right, lower);
    for request in [masked(false), from(&ramp(9))] {
        assert!(all(&daemon, &paints(with("right", -1, &request))).await == right);
    }
    let expected = all(&daemon, &paints(from(&inverted))).await;
    assert!(all(&daemon, &paints(with("invert", -1, &from(&ramp(9))))).await == expected);
    assert!(all(&daemon, &paints(from(&ramp(9)))).await != expected);
    // Nothing of it stays.
    assert!(all(&daemon, &paints(masked(true))).await == right);
}
