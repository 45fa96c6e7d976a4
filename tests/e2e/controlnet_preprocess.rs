//! The ControlNet plugin's preprocessors through the socket: OpenCV's bytes (`tests/fixtures/preprocessors.py`) wherever the plugin
//! runs, for clients and for other plugins, and what cannot be is refused as it is submitted.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use latentd_client::Client;
use latentd_client::protocol::{ErrorName, ImageIn};
use latentd_models::image::Picture;
use rmpv::Value;
use serde::Serialize;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::harness::{Daemon, Options, fixtures, program, refused, within};
use crate::plugin_library::{build_crate, build_rust, install};

fn library() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        build_rust(&workspace.join("plugins/controlnet"))
    })
}

fn start(isolation: &str) -> Daemon {
    let config = format!("[plugins.controlnet]\nisolation = \"{isolation}\"\n");
    let daemon = Daemon::with(Options { config, ..Options::default() });
    install(&daemon, "controlnet.so", library());
    daemon
}

#[derive(Clone, Serialize)]
struct Request {
    image: ImageIn,
    module: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<ImageIn>,
    processor_res: i64,
    threshold_a: f64,
    threshold_b: f64,
    seed: u64,
    width: u32,
    height: u32,
    resize_mode: String,
    pixel_perfect: bool,
}

fn request(module: &str, image: Vec<u8>) -> Request {
    Request {
        image: ImageIn::png(image),
        module: module.to_owned(),
        mask: None,
        processor_res: -1,
        threshold_a: -1.0,
        threshold_b: -1.0,
        seed: 0,
        width: 0,
        height: 0,
        resize_mode: "Crop and Resize".into(),
        pixel_perfect: false,
    }
}

/// `picture("gradient", …)` of the recipe, as a PNG.
fn gradient(width: u32, height: u32) -> Vec<u8> {
    let pixel =
        |x: u32, y: u32| [x * 255 / (width - 1).max(1), y * 255 / (height - 1).max(1), (x + 2 * y) % 256];
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let pixels = places.flat_map(|(x, y)| pixel(x, y).map(|value| value as u8)).collect();
    Picture::from_raw(pixels, width, height, 3).and_then(|picture| picture.to_png()).expect("a PNG")
}

fn white(width: u32, height: u32) -> ImageIn {
    let picture = Picture::from_raw(vec![255; (width * height) as usize], width, height, 1);
    ImageIn::png(picture.and_then(|picture| picture.to_png()).expect("a PNG"))
}

async fn made(client: &Client, request: &Request) -> Picture {
    let result = within(client.call_value("controlnet.preprocess", request)).await.expect("made");
    let Value::Binary(png) = &result["images"][0]["png"] else { panic!("no PNG: {result}") };
    Picture::decode(png, 1 << 26).expect("a picture")
}

/// Of red, green and blue.
fn digest(picture: &Picture) -> String {
    let channels = picture.pixels.len() / (picture.width * picture.height);
    let colours: Vec<u8> =
        picture.pixels.chunks_exact(channels).flat_map(|pixel| &pixel[..3]).copied().collect();
    Sha256::digest(&colours)[..10].iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("written");
        text
    })
}

#[tokio::test]
async fn it_gives_opencvs_bytes_in_a_process_and_inline() {
    let (isolated, inline) = (start("process"), start("inline"));
    let (isolated, inline) = (isolated.client().await, inline.client().await);
    let told = fs::read(fixtures().join("../preprocessors.json")).expect("read");
    let told: Json = serde_json::from_slice(&told).expect("JSON");
    let rows = told["modules"].as_array().expect("rows");
    let mut count = 0;
    for row in rows.iter().filter(|row| row[1] == "gradient") {
        let (name, number) =
            (row[0].as_str().expect("a name"), |index: usize| row[index].as_f64().expect("a number"));
        let (width, height) = (number(2) as u32, number(3) as u32);
        let request = Request {
            mask: name.contains("inpaint").then(|| white(width, height)),
            // 0 stands for what a module has no use for.
            processor_res: if number(4) == 0.0 { -1 } else { number(4) as i64 },
            threshold_a: number(5),
            threshold_b: number(6),
            seed: number(7) as u64,
            ..request(name, gradient(width, height))
        };
        let apart = made(&isolated, &request).await;
        assert_eq!((apart.width as f64, apart.height as f64), (number(8), number(9)), "{row}");
        assert_eq!(digest(&apart), row[10].as_str().expect("a digest"), "{row}");
        assert!(made(&inline, &request).await.pixels == apart.pixels, "{row}");
        count += 1;
    }
    assert!(count > 50, "{count}");
}

#[tokio::test]
async fn modules_are_told_and_a_hint_comes_in_the_wanted_size() {
    let daemon = start("process");
    let client = daemon.client().await;
    let told = within(client.call_value("controlnet.modules", &serde_json::json!({}))).await.expect("told");
    let modules = told["modules"].as_array().expect("a list");
    assert_eq!(modules[0]["name"], "none".into());
    let canny = modules.iter().find(|module| module["name"] == "canny".into()).expect("there");
    assert_eq!(
        (&canny["threshold_a"]["default"], &canny["resolution"]["max"]),
        (&100.0.into(), &2048.into())
    );
    let listed = within(client.plugins()).await.expect("listed").plugins;
    let own = listed.iter().find(|plugin| plugin.name.as_deref() == Some("controlnet")).expect("there");
    assert_eq!(own.engines["preprocessor"].len() + 1, modules.len());

    let picture = gradient(160, 200);
    let shorter = made(&client, &request("invert (from white bg & black line)", picture.clone())).await;
    assert!(shorter.pixels == made(&client, &request("invert", picture.clone())).await.pixels);
    for mode in ["Just Resize", "Crop and Resize", "Resize and Fill"] {
        let sized = Request {
            width: 128,
            height: 64,
            resize_mode: mode.into(),
            pixel_perfect: true,
            ..request("canny", picture.clone())
        };
        let hint = made(&client, &sized).await;
        assert_eq!((hint.width, hint.height), (128, 64), "{mode}");
        assert!(hint.pixels.iter().all(|value| [0, 255].contains(value)), "{mode}");
    }
    // What a CLIP sees is no picture.
    let seen = request("ip-adapter_clip_h", picture.clone());
    let text =
        refused(within(client.call_value("controlnet.preprocess", &seen)).await, ErrorName::Unsupported);
    assert!(text.contains("makes no picture"), "{text}");
    let masked = Request { mask: Some(white(160, 200)), ..request("inpaint_only", picture) };
    let shown = made(&client, &masked).await;
    assert!(shown.pixels.chunks_exact(4).all(|pixel| pixel[3] == 128));
    let drawn = daemon.command(&["call", "controlnet.modules", "{}"]).output().expect("ran");
    assert!(String::from_utf8_lossy(&drawn.stdout).contains("scribble_xdog"), "{drawn:?}");
}

#[derive(Serialize)]
struct Outline {
    image: ImageIn,
    preprocessor: &'static str,
    threshold: f64,
}

/// bright-spots has a preprocessor run, whoever's it is, and draws around what is bright in the picture.
#[tokio::test]
async fn other_plugins_run_them_by_name() {
    let daemon = start("process");
    install(&daemon, "bright-spots.so", &build_crate("plugin-api/examples/bright-spots"));
    let client = daemon.client().await;
    let picture = gradient(160, 200);
    let outline = Outline { image: ImageIn::png(picture.clone()), preprocessor: "invert", threshold: 1.0 };
    let result = within(client.call_value("bright-spots.outline", &outline)).await.expect("drawn");
    let Value::Binary(png) = &result["images"][0]["png"] else { panic!("no PNG: {result}") };
    let drawn = Picture::decode(png, 1 << 24).expect("a picture");
    assert!(drawn.pixels == made(&client, &request("invert", picture)).await.pixels);
}

#[tokio::test]
async fn what_cannot_be_is_refused_as_it_is_submitted() {
    let daemon = start("process");
    let client = daemon.client().await;
    let good = request("canny", gradient(9, 7));
    let asking = |change: fn(&mut Request)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (request, expected) in [
        (asking(|asked| asked.module = "cany".into()), "'cany' is none of 'none', 'canny', "),
        (asking(|asked| asked.processor_res = 63), "canny takes 64 to 2048"),
        (asking(|asked| asked.processor_res = -2), "processor_res"),
        (asking(|asked| asked.threshold_a = 256.0), "canny takes 1 to 255 (Low Threshold)"),
        (asking(|asked| asked.threshold_b = f64::NAN), "threshold_b"),
        (asking(|asked| asked.threshold_b = f64::INFINITY), "threshold_b"),
        (asking(|asked| asked.width = 64), "64x0 cannot be; give both"),
        (asking(|asked| (asked.width, asked.height) = (16384, 16384)), "16384x16384"),
        (asking(|asked| asked.pixel_perfect = true), "needs a width and a height"),
        (asking(|asked| asked.resize_mode = "Stretch".into()), "Crop and Resize"),
        (
            asking(|asked| (asked.module, asked.mask) = ("inpaint".into(), Some(white(9, 8)))),
            "9x8 is not the image's 9x7",
        ),
        // Their pixels are not there, and not looked for.
        (
            asking(|asked| asked.image = ImageIn::png(header(10_000, 10_000))),
            "10000x10000 takes 300000000 bytes",
        ),
        (asking(|asked| asked.image = ImageIn::png(header(9_000, 8_000))), "9000x8000 is too large"),
        (asking(|asked| asked.image = ImageIn::png(header(0, 7))), "image"),
        (asking(|asked| asked.image = ImageIn::png(header(60_000, 1))), "by which it has no more than"),
    ] {
        let answer = within(client.call_value("controlnet.preprocess", &request)).await;
        let text = refused(answer, ErrorName::InvalidParams);
        assert!(text.contains(expected), "{expected}: {text}");
    }
    made(&client, &good).await;
}

/// A PNG of these sides, with nothing in it.
fn header(width: u32, height: u32) -> Vec<u8> {
    let sides = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", &sides[..]), (b"IDAT", &[0x78, 0x01]), (b"IEND", &[])] {
        let checked = [&kind[..], data].concat();
        let sum = checked.iter().fold(!0_u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 }
            })
        });
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(checked);
        png.extend((!sum).to_be_bytes());
    }
    png
}

#[test]
fn it_passes_validate() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("controlnet.so");
    fs::write(&path, library()).expect("written");
    let output =
        program(folder.path()).args(["plugins", "validate", "--seed", "1"]).arg(&path).output().expect("ran");
    assert!(output.status.success(), "{output:?}");
}
