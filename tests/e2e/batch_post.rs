//! Pictures as they are given back, and plugins that change them, through the socket: a plugin in C that says what to do.

use latentd_client::protocol::{
    ErrorName, ImageIn, ImageOut, Img2ImgParams, LoopbackParams, OutpaintParams, OutputFormat, OutputParams,
    PluginParams, Precision, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::{Channels, Picture, read_infotext};
use serde_json::json;

use crate::harness::{Daemon, Options, refused, small, within};
use crate::plugin_library::{build, install};

fn whole() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "whole.so", &build("tests/fixtures/plugins/whole.c", &["-std=gnu99"]));
    daemon
}

fn with(act: &str, request: &Txt2ImgParams) -> Txt2ImgParams {
    let params = PluginParams::from_json(json!({"act": act}).as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [("whole".to_owned(), params)].into(), ..request.clone() }
}

fn raw(seed: i64) -> Txt2ImgParams {
    let output = OutputParams { format: OutputFormat::Raw, dir: None };
    Txt2ImgParams { output, precision: Precision::F32, ..small(seed) }
}

async fn drawn(daemon: &Daemon, request: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(request)).await.expect("drawn")
}

async fn begun(daemon: &Daemon, request: &Img2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.img2img(request)).await.expect("drawn")
}

fn pixels(image: &ImageOut) -> &[u8] {
    &image.raw.as_ref().expect("pixels").0
}

fn inverted(image: &ImageOut) -> Vec<u8> {
    pixels(image).iter().map(|value| 255 - value).collect()
}

fn decoded(image: &ImageOut) -> (Vec<u8>, Picture) {
    let bytes = match &image.path {
        Some(path) => std::fs::read(path).expect("written"),
        None => {
            [&image.png, &image.jpeg, &image.webp].into_iter().flatten().next().expect("a file").0.clone()
        }
    };
    let picture = Picture::decode(&bytes, 1 << 24).expect("decodes");
    (bytes, picture)
}

fn told(drawn: &Txt2ImgResult) -> Vec<&str> {
    drawn.notices.iter().filter_map(|notice| notice.strip_prefix("plugin 'whole': ")).collect()
}

#[tokio::test]
async fn all_pictures_come_in_one_call_with_their_seeds() {
    let daemon = whole();
    let four = Txt2ImgParams { batch_size: 2, n_iter: 2, ..raw(5) };
    let plain = drawn(&daemon, &four).await;
    let found = drawn(&daemon, &with("tell", &four)).await;
    let line = |image: u32| format!("{image} of 4, seed {}, 64x64x3", 5 + image);
    assert_eq!(told(&found), [line(0), line(1), line(2), line(3)]);
    for act in ["tell", "skip", "own"] {
        let found = drawn(&daemon, &with(act, &four)).await;
        assert!(found.images.iter().map(pixels).eq(plain.images.iter().map(pixels)), "{act}");
    }
    let found = drawn(&daemon, &with("invert", &four)).await;
    for (image, before) in found.images.iter().zip(&plain.images) {
        assert_eq!((image.seed, image.channels), (before.seed, Some(3)));
        assert_eq!(pixels(image), inverted(before));
    }
    // Of two passes the last one's, whether or not the first one's are given back.
    for save in [false, true] {
        let hires = Txt2ImgParams { enable_hr: true, save_images_before_highres_fix: save, ..raw(5) };
        let (plain, found) = (drawn(&daemon, &hires).await, drawn(&daemon, &with("invert", &hires)).await);
        assert_eq!(found.images.len(), 1 + usize::from(save));
        assert_eq!(told(&drawn(&daemon, &with("tell", &hires)).await), ["0 of 1, seed 5, 128x128x3"]);
        assert_eq!(pixels(found.images.last().expect("one")), inverted(plain.images.last().expect("one")));
        assert!(!save || found.images[0].raw == plain.images[0].raw);
    }
}

#[tokio::test]
async fn pictures_may_get_opacity_and_other_sizes() {
    let daemon = whole();
    let plain = drawn(&daemon, &raw(5)).await.images.remove(0);
    let rgba: Vec<u8> = pixels(&plain)
        .chunks(3)
        .enumerate()
        .flat_map(|(at, pixel)| [pixel[0], pixel[1], pixel[2], if at % 64 < 32 { 0 } else { 255 }])
        .collect();
    let image = drawn(&daemon, &with("alpha", &raw(5))).await.images.remove(0);
    assert_eq!((image.channels, pixels(&image)), (Some(4), rgba.as_slice()));
    for format in [OutputFormat::Png, OutputFormat::Webp, OutputFormat::File, OutputFormat::Jpeg] {
        let output = OutputParams { format, dir: None };
        let image =
            drawn(&daemon, &with("alpha", &Txt2ImgParams { output, ..raw(5) })).await.images.remove(0);
        let (bytes, picture) = decoded(&image);
        assert_eq!(read_infotext(&bytes).expect("read"), image.infotext, "{format:?}");
        if format == OutputFormat::Jpeg {
            // It has no opacity: what is not opaque is white.
            assert_eq!(picture.channels, Channels::Rgb);
            assert!(picture.pixels.chunks(3).step_by(64).all(|pixel| pixel.iter().all(|value| *value > 250)));
        } else {
            assert!(picture.channels == Channels::Rgba && picture.pixels == rgba, "{format:?}");
        }
    }
    let image = drawn(&daemon, &with("double", &raw(5))).await.images.remove(0);
    assert_eq!((image.width, image.height, pixels(&image).len()), (128, 128, 128 * 128 * 3));
    assert!((0..128 * 128).all(|at| {
        let from = (at / 256 * 64 + at % 128 / 2) * 3;
        pixels(&image)[at * 3..at * 3 + 3] == pixels(&plain)[from..from + 3]
    }));
    assert!(image.infotext.expect("a text").contains("Size: 64x64"), "what was drawn");
    let image = drawn(&daemon, &with("grey", &raw(5))).await.images.remove(0);
    assert!(image.channels == Some(3) && pixels(&image).chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
}

/// From a picture of grey; with a mask, of which the right half is drawn.
fn from_grey(is_masked: bool, drawing: Txt2ImgParams) -> Img2ImgParams {
    let mask = (0..64 * 64).map(|at| if at % 64 < 32 { 0 } else { 255 }).collect();
    Img2ImgParams {
        init_images: vec![ImageIn::raw(vec![90; 64 * 64 * 3], 64, 64, 3)],
        mask: is_masked.then(|| ImageIn::raw(mask, 64, 64, 1).into()),
        inpaint_full_res: false,
        mask_blur: Some(0.0),
        drawing,
        ..Img2ImgParams::default()
    }
}

#[tokio::test]
async fn they_lie_over_the_users_picture_already() {
    let daemon = whole();
    let plain = begun(&daemon, &from_grey(true, raw(5))).await.images.remove(0);
    let found = begun(&daemon, &from_grey(true, with("invert", &raw(5)))).await.images.remove(0);
    assert_eq!(pixels(&found), inverted(&plain));
    assert!((0..64).all(|row| pixels(&found)[row * 192..row * 192 + 90].iter().all(|value| *value == 165)));
}

#[tokio::test]
async fn a_loop_begins_with_what_it_left_of_the_one_before() {
    let daemon = whole();
    let strength = Some(0.5);
    for act in ["invert", "alpha", "double"] {
        let request = with(act, &Txt2ImgParams { steps: 4, denoising_strength: strength, ..raw(5) });
        let loopback =
            LoopbackParams { loops: 2, final_denoising_strength: 0.5, ..LoopbackParams::default() };
        let looped = Img2ImgParams { loopback: Some(loopback), ..from_grey(false, request.clone()) };
        let images = begun(&daemon, &looped).await.images;
        let [first, second] = images.as_slice() else { panic!("two loops") };
        let channels = first.channels.expect("raw");
        let init = ImageIn::raw(pixels(first).to_vec(), first.width, first.height, channels);
        let alone = Txt2ImgParams { seed: 6, width: Some(64), height: Some(64), ..request };
        let alone = Img2ImgParams { init_images: vec![init], ..from_grey(false, alone) };
        assert_eq!(pixels(second), pixels(&begun(&daemon, &alone).await.images[0]), "{act}");
    }
}

#[tokio::test]
async fn parts_of_what_is_continued_keep_their_sizes() {
    let daemon = whole();
    let client = daemon.client().await;
    let request = |act: &str| OutpaintParams {
        drawing: with(act, &Txt2ImgParams { width: Some(96), height: Some(96), ..raw(5) }),
        image: ImageIn::raw(vec![90; 64 * 64 * 3], 64, 64, 3),
        left: 32,
        right: 32,
        ..OutpaintParams::default()
    };
    let mut plain = request("tell");
    plain.drawing.plugins.clear();
    let plain = within(client.outpaint(&plain)).await;
    let told_of = within(client.outpaint(&request("tell"))).await.expect("drawn");
    assert_eq!(pixels(&told_of.images[0]), pixels(&plain.expect("drawn").images[0]));
    assert!(told(&told_of).iter().all(|line| line.starts_with("0 of 1, seed ")), "{:?}", told_of.notices);
    for act in ["double", "alpha"] {
        let text = refused(within(client.outpaint(&request(act))).await, ErrorName::Plugin);
        assert!(text.starts_with("plugin 'whole', batch.post/draft-1: slot 0: an image [1, "), "{text}");
    }
}

#[tokio::test]
async fn what_is_no_picture_is_refused_and_costs_that_job_alone() {
    let daemon = whole();
    let client = daemon.client().await;
    let plain = drawn(&daemon, &raw(5)).await;
    for (act, name, words) in [
        ("slot", ErrorName::Plugin, "slot 1 is none of its slots"),
        ("tensor", ErrorName::Plugin, "slot 0: a tensor [1, 3, 64, 64] in the place of an image"),
        ("wide", ErrorName::Plugin, "slot 0: an image of 16385x1 is no picture; sides are 1 to 16384"),
        ("null", ErrorName::Plugin, "0 is no handle"),
        ("fail", ErrorName::Plugin, "as asked"),
        ("vae", ErrorName::Unsupported, "there is no VAE at hand in this function"),
    ] {
        let text = refused(within(client.txt2img(&with(act, &raw(5)))).await, name);
        assert!(text.starts_with("plugin 'whole', batch.post/draft-1: ") && text.contains(words), "{text}");
        assert_eq!(drawn(&daemon, &raw(5)).await.images, plain.images, "{act}");
    }
    let job = within(client.submit("txt2img", &with("wait", &raw(5)), None)).await.expect("submitted");
    daemon.wait_log("waits at batch.post");
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    assert_eq!(drawn(&daemon, &raw(5)).await.images, plain.images);
}

#[tokio::test]
async fn loops_that_grow_have_one_bound_together() {
    let daemon = Daemon::with(Options { config: "result_bytes = 60_000".into(), ..Options::default() });
    install(&daemon, "whole.so", &build("tests/fixtures/plugins/whole.c", &["-std=gnu99"]));
    let looped = |loops: u32| {
        let loopback = LoopbackParams { loops, final_denoising_strength: 0.5, ..LoopbackParams::default() };
        let drawing = with("double", &Txt2ImgParams { denoising_strength: Some(0.5), ..raw(5) });
        Img2ImgParams { loopback: Some(loopback), ..from_grey(false, drawing) }
    };
    let one = begun(&daemon, &Img2ImgParams { loopback: None, ..looped(1) }).await;
    assert_eq!(pixels(&one.images[0]).len(), 128 * 128 * 3);
    let text = refused(within(daemon.client().await.img2img(&looped(2))).await, ErrorName::Plugin);
    assert_eq!(text, "batch.post/draft-1: plugins leave pictures of 49152 bytes, 10848 are allowed");
}
