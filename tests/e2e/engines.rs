//! Engines of plugins through the socket: what `hr_upscaler` names of others, tiled by the host, told in pictures, held against a
//! reference.

use std::fs;

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, ImageOut, OutputFormat, OutputParams, PluginState, Precision,
    Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::Picture;
use serde_json::Value as Json;

use crate::harness::{Daemon, fixtures, refused, small, within};
use crate::plugin_library::{build, folder_of, install};
use crate::reference::{LEAST_DECIBELS, decibels};

/// The example that goes along edges.
fn upscale2x() -> Vec<u8> {
    build("plugin-api/examples/upscale2x/upscale2x.c", &[])
}

/// The plugin whose engines do what they must not.
fn faults(flags: &[&str]) -> Vec<u8> {
    build("tests/fixtures/plugins/engines.c", &[&["-std=gnu99"], flags].concat())
}

/// Of 64 by 64, made twice as large.
fn hires(upscaler: &str) -> Txt2ImgParams {
    Txt2ImgParams { enable_hr: true, hr_upscaler: upscaler.into(), precision: Precision::F32, ..small(5) }
}

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(params)).await.expect("drawn")
}

async fn fails(daemon: &Daemon, params: &Txt2ImgParams, name: ErrorName) -> String {
    refused(within(daemon.client().await.txt2img(params)).await, name)
}

fn png(image: &ImageOut) -> &[u8] {
    &image.png.as_ref().expect("a PNG").0
}

fn pixels(result: &Txt2ImgResult) -> Picture {
    Picture::decode(png(&result.images[0]), 1 << 24).expect("decodes")
}

#[tokio::test]
#[allow(clippy::print_stderr)]
async fn pictures_over_an_engine_are_those_of_the_reference() {
    let folder = fixtures().join("../plugins");
    let index: Json =
        serde_json::from_slice(&fs::read(folder.join("upscaled.json")).expect("read")).expect("JSON");
    let all = fs::read(folder.join("upscaled.png")).expect("read");
    let all = Picture::decode(&all, 1 << 22).expect("decodes").pixels;
    let (mut rest, mut worst) = (&all[..], f64::INFINITY);
    let daemon = Daemon::start();
    install(&daemon, "upscale2x.so", &upscale2x());
    for row in index["rows"].as_array().expect("rows") {
        let side = |index: usize| row["resize"][index].as_u64().expect("a side") as u32;
        let params = Txt2ImgParams {
            prompt: "a red circle".into(),
            negative_prompt: "blurry".into(),
            seed: 42,
            steps: 4,
            cfg_scale: 7.0,
            sampler_name: row["sampler"].as_str().expect("a name").to_owned(),
            hr_scale: row["scale"].as_f64().expect("a scale"),
            hr_resize_x: side(0),
            hr_resize_y: side(1),
            hr_second_pass_steps: row["steps"].as_u64().expect("steps") as u32,
            denoising_strength: row["strength"].as_f64(),
            output: OutputParams { format: OutputFormat::Raw, dir: None },
            ..hires("DCCI 2x")
        };
        let drawn = draw(&daemon, &params).await;
        let image = &drawn.images[0];
        let of_row = |key: &str| row[key].as_u64().expect("a side");
        assert_eq!((u64::from(image.width), u64::from(image.height)), (of_row("width"), of_row("height")));
        assert_eq!(drawn.notices, Vec::<String>::new());
        let found = &image.raw.as_ref().expect("pixels").0;
        let wanted;
        (wanted, rest) = rest.split_at(found.len());
        let reached = decibels(found, wanted);
        eprintln!("{reached:5.1} dB: {row}");
        worst = worst.min(reached);
    }
    assert!(rest.len() < 128 * 3 && rest.iter().all(|value| *value == 0), "pictures that no row tells of");
    eprintln!("the worst: {worst:.1} dB");
    assert!(worst >= LEAST_DECIBELS, "{worst:.1} dB");
}

#[tokio::test]
async fn an_engine_is_named_without_its_plugin_and_told_with_it() {
    let daemon = Daemon::start();
    install(&daemon, "upscale2x.so", &upscale2x());
    let listed = within(daemon.client().await.plugins()).await.expect("listed").plugins;
    assert_eq!(listed[0].engines, [("upscaler".to_owned(), vec!["DCCI 2x".to_owned()])].into());
    assert_eq!(listed[0].state, PluginState::Ready, "nothing is loaded yet");
    let shown = daemon.command(&["plugins", "list"]).output().expect("ran");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("upscaler 'DCCI 2x'"), "{shown:?}");

    let drawn = draw(&daemon, &hires("DCCI 2x")).await;
    assert!(drawn.plugin_timings.contains_key("upscale2x"), "{:?}", drawn.plugin_timings);
    let text = drawn.images[0].infotext.as_deref().expect("told");
    assert!(text.contains("Hires upscaler: DCCI 2x,"), "{text}");
    assert!(
        text.contains("Engines: ") && text.contains("\\\"upscale2x\\\",\\\"version\\\":\\\"1.0.0\\\""),
        "{text}"
    );
    let client = daemon.client().await;
    let info = within(client.image_info(ImageIn::png(png(&drawn.images[0]).to_vec()))).await.expect("read");
    assert!(info.others.is_empty(), "{:?}", info.others);
    let again = draw(&daemon, &info.request.expect("a request").into_drawing()).await;
    assert_eq!(png(&again.images[0]), png(&drawn.images[0]));
    assert_eq!(again.images[0].infotext, drawn.images[0].infotext);
    // The pictures of the first pass have nothing of it.
    let both = Txt2ImgParams { save_images_before_highres_fix: true, ..hires("DCCI 2x") };
    let both = draw(&daemon, &both).await.images;
    let told = both.iter().map(|image| image.infotext.as_ref().expect("told").contains("Engines"));
    assert_eq!(told.collect::<Vec<_>>(), [false, true]);
    // As does a request that goes without.
    let plain = draw(&daemon, &hires("Lanczos")).await;
    assert!(
        plain.plugin_timings.is_empty()
            && !plain.images[0].infotext.as_ref().expect("told").contains("Engines")
    );
    let output = daemon.command(&[
        "generate",
        "a circle",
        "--checkpoint",
        "tiny-sd1",
        "--steps",
        "2",
        "--width",
        "64",
        "--height",
        "64",
        "--enable-hr",
        "--hr-upscaler",
        "DCCI 2x",
        "-o",
        "out.png",
    ]);
    let mut output = output;
    let output = output.output().expect("ran");
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn what_is_not_there_is_refused_as_the_request_comes() {
    let daemon = Daemon::start();
    let text = fails(&daemon, &hires("DCCI 2x"), ErrorName::NotFound).await;
    assert!(text.starts_with("hr_upscaler: 'DCCI 2x' is not known; known: Latent, "), "{text}");
    assert!(text.contains("engines of kind 'upscaler'"), "{text}");
    install(&daemon, "upscale2x.so", &upscale2x());
    install(&daemon, "engines.so", &faults(&[]));
    let text = fails(&daemon, &hires("DCCI 2"), ErrorName::NotFound).await;
    assert!(text.contains("did you mean 'DCCI 2x'?"), "{text}");
    for (name, class, words) in [
        (
            "refuse",
            ErrorName::InvalidParams,
            "plugin 'engines', upscaler 'refuse': this one is not to be had",
        ),
        ("no scale", ErrorName::Plugin, "upscaler 'no scale': describe says scale 0; 1 to 16"),
        ("huge scale", ErrorName::Plugin, "describe says scale 1000; 1 to 16"),
        ("stage", ErrorName::Plugin, "upscaler 'stage': describe wants stages"),
    ] {
        let client = daemon.client().await;
        let submitted = within(client.submit("txt2img", &hires(name), None)).await;
        let text = refused(submitted, class);
        assert!(text.contains(words), "{name}: {text}");
    }
    // Of two of one name neither is taken.
    let manifest =
        "name = 'other'\nversion = '1'\nabi = '0.1'\nengines = {upscaler = {entries = ['DCCI 2x']}}\n";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other.toml");
    fs::write(&path, manifest).expect("written");
    let define = format!("-DMANIFEST=\"{}\"", path.display());
    install(&daemon, "other.so", &faults(&[&define]));
    let text = fails(&daemon, &hires("DCCI 2x"), ErrorName::Plugin).await;
    assert!(text.contains("plugins 'other' and 'upscale2x' both have the upscaler 'DCCI 2x'"), "{text}");
    fs::remove_file(folder_of(&daemon).join("other.so")).expect("removed");
    draw(&daemon, &hires("DCCI 2x")).await;
}

#[tokio::test]
async fn a_fault_costs_one_job_which_names_plugin_and_engine() {
    let daemon = Daemon::start();
    install(&daemon, "engines.so", &faults(&[]));
    let expected = pixels(&draw(&daemon, &hires("Nearest")).await);
    // Each pixel made four, tile by tile, is what the filter makes.
    for name in ["good", "float", "notice"] {
        let drawn = draw(&daemon, &hires(name)).await;
        assert!(pixels(&drawn) == expected, "{name}");
        let notices: &[&str] = if name == "notice" { &["plugin 'engines': from the engine"] } else { &[] };
        assert_eq!(drawn.notices, notices);
    }
    let strict = Txt2ImgParams { strict: true, ..hires("notice") };
    let text = fails(&daemon, &strict, ErrorName::Plugin).await;
    assert!(text.contains("from the engine"), "{text}");
    // What is not made larger is left to Lanczos.
    assert!(pixels(&draw(&daemon, &hires("as it is")).await) == pixels(&draw(&daemon, &hires("None")).await));
    for (name, words) in [
        ("fail", "as asked"),
        ("nothing", "it gave no image in slot 0"),
        ("slot", "slot 1 is none of its slots"),
        ("skip", "it answered SKIP"),
        ("small", "an image [1, 3, 48, 47] where an image [1, 3, 48, 48] was wanted"),
        ("kind", "a tensor [1, 3, 48, 48] where an image [1, 3, 48, 48] was wanted"),
        ("dead", "12345 is no handle"),
        ("nan", "number 7 of [3, 3, 32, 32] is NaN"),
    ] {
        let text = fails(&daemon, &hires(name), ErrorName::Plugin).await;
        assert!(text.starts_with(&format!("plugin 'engines', upscaler '{name}': ")), "{name}: {text}");
        assert!(text.contains(words), "{name}: {text}");
        assert!(pixels(&draw(&daemon, &hires("good")).await) == expected, "{name}");
    }
    install(&daemon, "engines.so", &faults(&["-DFAULT_CREATE"]));
    let text = fails(&daemon, &hires("good"), ErrorName::Plugin).await;
    assert_eq!(text, "plugin 'engines', create: create fails, as asked");
}

#[tokio::test]
async fn tiles_are_told_one_by_one_and_a_job_is_cancelled_within_one() {
    let daemon = Daemon::start();
    install(&daemon, "engines.so", &faults(&[]));
    let client = daemon.client().await;
    let mut told = vec![];
    within(client.txt2img_with(&hires("good"), |event| {
        if let EventKind::Progress { stage: Some(stage), step, steps, .. } = &event.kind
            && stage == "upscaling"
        {
            told.push((*step, *steps));
        }
    }))
    .await
    .expect("drawn");
    // Tiles of 24 that fade over 4: three times three of 64. What is not read yet makes place for what is newer.
    assert!(told.is_sorted() && told.iter().all(|(tile, of)| (1..=9).contains(tile) && *of == 9), "{told:?}");
    assert_eq!(told.last(), Some(&(9, 9)));
    let job = within(client.submit("txt2img", &hires("wait"), None)).await.expect("submitted");
    daemon.wait_log("waits in an engine");
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    draw(&daemon, &hires("good")).await;
    // More than any picture may have is refused at once.
    let large = Txt2ImgParams { hr_scale: 200.0, ..hires("good") };
    fails(&daemon, &large, ErrorName::InvalidParams).await;
}
