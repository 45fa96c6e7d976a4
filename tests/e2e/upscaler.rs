//! The plugin that comes with latentd whose engines are the library's upscalers: named as A1111 names them, run by the host, held
//! against a reference (`tests/fixtures/upscaler_reference.py`), and refused by name where a file is none.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use latentd_client::protocol::{
    ErrorName, ImageIn, OutputFormat, OutputParams, Precision, Txt2ImgParams, Txt2ImgResult, UpscaleParams,
    UpscaleResult,
};
use latentd_models::image::{Channels, Picture};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Options, fixtures, program, refused, small, within};
use crate::plugin_library::{build_rust, folder_of, install};
use crate::reference::{LEAST_DECIBELS, decibels};
use crate::vae::{models, taesd, write};

pub(crate) fn library() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        build_rust(&workspace.join("plugins/upscaler"))
    })
}

const SETTINGS: &str = "[plugins.upscaler.settings]\ntile = 48\noverlap = 6\n";

/// A library with upscalers where A1111 has them, and elsewhere, and files that are none.
pub(crate) fn library_of_models() -> tempfile::TempDir {
    let folder = models();
    let copy = |from: &str, to: &str| {
        let to = folder.path().join(to);
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(fixtures().join(format!("../upscalers/{from}.pth")), to).expect("copied");
    };
    copy("averaged", "RealESRGAN/RealESRGAN_x2plus.pth");
    copy("quadruple", "ESRGAN/4x_Small.pth");
    // Told by what is in it.
    copy("parallel", "Lora/astray.pth");
    copy("nan", "ESRGAN/nan.pth");
    copy("scaleless", "SwinIR/scaleless.pth");
    write(&folder.path().join("ESRGAN/decoder.safetensors"), &taesd());
    let unknown = vec![("some.weight".to_owned(), "F32".into(), json!([1]), vec![0; 4])];
    write(&folder.path().join("DAT/unknown.safetensors"), &unknown);
    folder
}

pub(crate) fn start(models: &Path, environment: &[(&str, &str)]) -> Daemon {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let daemon = Daemon::with(Options {
        models: Some(models.to_owned()),
        config: SETTINGS.into(),
        environment: environment.collect(),
        ..Options::default()
    });
    install(&daemon, "upscaler.so", library());
    daemon
}

/// In a process of its own, within the daemon, and on a device with memory of its own.
pub(crate) fn everywhere(models: &Path) -> [(&'static str, Daemon); 3] {
    let inline = Daemon::with(Options {
        models: Some(models.to_owned()),
        config: format!("{SETTINGS}[plugins.upscaler]\nisolation = \"inline\"\n"),
        ..Options::default()
    });
    install(&inline, "upscaler.so", library());
    [
        ("apart", start(models, &[])),
        ("inline", inline),
        ("device", start(models, &[("LATENTD_DEVICE", "fake")])),
    ]
}

fn hires(upscaler: &str) -> Txt2ImgParams {
    Txt2ImgParams {
        enable_hr: true,
        hr_upscaler: upscaler.into(),
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(5)
    }
}

async fn draw(daemon: &Daemon, params: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(params)).await.expect("drawn")
}

fn pixels(result: &Txt2ImgResult) -> &[u8] {
    &result.images[0].raw.as_ref().expect("pixels").0
}

#[tokio::test]
#[allow(clippy::print_stderr)]
async fn hires_fix_by_a_network_is_a1111s_order_of_work_over_spandrel() {
    let folder = fixtures().join("../plugins");
    let index = fs::read(folder.join("network_upscaled.json")).expect("read");
    let index: Json = serde_json::from_slice(&index).expect("JSON");
    let all = fs::read(folder.join("network_upscaled.png")).expect("read");
    let all = latentd_models::image::Picture::decode(&all, 1 << 22).expect("decodes").pixels;
    let (mut rest, mut worst) = (&all[..], f64::INFINITY);
    let models = library_of_models();
    let daemon = start(models.path(), &[]);
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
            ..hires(row["upscaler"].as_str().expect("a name"))
        };
        let drawn = draw(&daemon, &params).await;
        let of_row = |key: &str| row[key].as_u64().expect("a side");
        let image = &drawn.images[0];
        assert_eq!((u64::from(image.width), u64::from(image.height)), (of_row("width"), of_row("height")));
        let found = pixels(&drawn);
        let wanted;
        (wanted, rest) = rest.split_at(found.len());
        let reached = decibels(found, wanted);
        eprintln!("{reached:5.1} dB: {row}");
        worst = worst.min(reached);
    }
    eprintln!("the worst: {worst:.1} dB");
    assert!(worst >= LEAST_DECIBELS, "{worst:.1} dB");
}

#[tokio::test]
async fn files_are_listed_as_a1111_shows_them_and_named_either_way() {
    let models = library_of_models();
    let daemon = start(models.path(), &[]);
    let client = daemon.client().await;
    let listed = within(client.plugins()).await.expect("listed").plugins;
    let own = listed.iter().find(|plugin| plugin.name.as_deref() == Some("upscaler")).expect("there");
    let names = ["4x_Small", "R-ESRGAN 2x+", "astray", "nan", "scaleless", "unknown"].map(str::to_owned);
    let mut found = own.engines["upscaler"].clone();
    found.sort_unstable();
    assert_eq!(found, names);
    let drawn = draw(&daemon, &hires("R-ESRGAN 2x+")).await;
    let infotext = drawn.images[0].infotext.as_ref().expect("a text");
    assert!(infotext.contains("Hires upscaler: R-ESRGAN 2x+,"), "{infotext}");
    assert_eq!(pixels(&draw(&daemon, &hires("RealESRGAN_x2plus")).await), pixels(&drawn));
    // The same weights in another folder, under another name.
    assert_eq!(pixels(&draw(&daemon, &hires("astray")).await), pixels(&drawn));
    assert!(drawn.plugin_timings.contains_key("upscaler"), "{:?}", drawn.plugin_timings);
}

#[tokio::test]
async fn what_is_no_upscaler_is_refused_as_it_is_submitted() {
    let models = library_of_models();
    let daemon = start(models.path(), &[]);
    let client = daemon.client().await;
    for (name, error, expected) in [
        ("nan", ErrorName::Model, "tensor body.0.bias holds NaN or infinite weights"),
        (
            "scaleless",
            ErrorName::Model,
            "tensor body.4.weight has 10 outputs, which are no picture of 1, 3 or 4 colours",
        ),
        (
            "unknown",
            ErrorName::Model,
            "upscaler 'unknown' is no network that this version of latentd runs by itself; of upscalers it runs RRDBNet",
        ),
        ("decoder", ErrorName::NotFound, "hr_upscaler: 'decoder' is not known; known: Latent, "),
        ("4x_Smal", ErrorName::NotFound, "did you mean '4x_Small'?"),
    ] {
        let text = refused(within(client.txt2img(&hires(name))).await, error);
        assert!(text.contains(expected), "{name}: {text}");
    }
    draw(&daemon, &hires("4x_Small")).await;
}

#[tokio::test]
async fn wherever_the_plugin_and_the_network_run_they_give_the_same_bytes() {
    let models = library_of_models();
    let daemons = everywhere(models.path());
    let [(_, here), others @ ..] = &daemons;
    for name in ["R-ESRGAN 2x+", "4x_Small"] {
        let drawn = draw(here, &hires(name)).await;
        assert!(pixels(&draw(here, &hires("Lanczos")).await) != pixels(&drawn), "{name}");
        let larger = enlarged(here, name, Channels::Rgba).await;
        for (place, daemon) in others {
            assert!(
                pixels(&draw(daemon, &hires(name)).await) == pixels(&drawn),
                "{name}: hr_upscaler, {place}"
            );
            let there = enlarged(daemon, name, Channels::Rgba).await;
            assert!(there.images[0].raw == larger.images[0].raw, "{name}: image.upscale, {place}");
        }
    }
}

/// A picture of 40x24 made four times as large.
async fn enlarged(daemon: &Daemon, name: &str, channels: Channels) -> UpscaleResult {
    let pixels = (0..40 * 24 * channels.count()).map(|at| (at * 7919 % 251) as u8).collect();
    let picture = Picture { width: 40, height: 24, channels, pixels };
    let params = UpscaleParams {
        scale: Some(4.0),
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..UpscaleParams::new(ImageIn::png(picture.to_png().expect("encodes")), name)
    };
    within(daemon.client().await.upscale(&params)).await.expect("made")
}

#[tokio::test]
async fn image_upscale_runs_networks_and_tells_whose_they_are() {
    let models = library_of_models();
    let daemon = start(models.path(), &[]);
    for channels in [Channels::Grey, Channels::Rgb, Channels::Rgba] {
        let made = enlarged(&daemon, "4x_Small", channels).await;
        let image = &made.images[0];
        assert_eq!((image.width, image.height), (160, 96));
        assert_eq!(image.channels, Some(channels.count() as u32));
        assert!(made.plugin_timings.contains_key("upscaler"), "{:?}", made.plugin_timings);
        let text = image.infotext.as_deref().expect("told");
        for words in [
            "Postprocess upscaler: 4x_Small",
            "Postprocess engines: ",
            "\\\"name\\\":\\\"4x_Small\\\"",
            "\\\"plugin\\\":\\\"upscaler\\\",\\\"version\\\":\\\"1.0.0\\\"",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
    // What needs no plugin tells none.
    let made = enlarged(&daemon, "Lanczos", Channels::Rgb).await;
    assert!(!made.images[0].infotext.as_ref().expect("told").contains("engines"));
    // Files that are none are refused here as elsewhere.
    let client = daemon.client().await;
    let image = || ImageIn::raw(vec![0; 8 * 8 * 3], 8, 8, 3);
    for (name, error, words) in [
        ("nan", ErrorName::Model, "tensor body.0.bias holds NaN or infinite weights"),
        ("unknown", ErrorName::Model, "is no network that this version of latentd runs by itself"),
        (
            "decoder",
            ErrorName::NotFound,
            "upscaler_1: 'decoder' is not known; known: None, Lanczos, Nearest, 4x_Small",
        ),
    ] {
        let text = refused(within(client.upscale(&UpscaleParams::new(image(), name))).await, error);
        assert!(text.contains(words), "{name}: {text}");
    }
}

#[tokio::test]
async fn settings_say_how_pictures_are_cut() {
    let models = library_of_models();
    let daemon = start(models.path(), &[]);
    let cut = draw(&daemon, &hires("4x_Small")).await;
    let whole = Daemon::with(Options {
        models: Some(models.path().to_owned()),
        config: "[plugins.upscaler.settings]\ntile = 0\n".into(),
        ..Options::default()
    });
    install(&whole, "upscaler.so", library());
    assert!(pixels(&draw(&whole, &hires("4x_Small")).await) != pixels(&cut), "borders of tiles are seen");
    assert!(folder_of(&whole).join("upscaler.so").exists());
}

#[test]
fn it_passes_validate() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("upscaler.so");
    fs::write(&path, library()).expect("written");
    let output = program(folder.path())
        .args(["plugins", "validate", "--seed", "1", "--params", r#"{"upscaler_1": "4x_Small"}"#])
        .arg(&path)
        .output()
        .expect("ran");
    assert!(output.status.success(), "{output:?}");
    // Of what it could not run it says so.
    let report = String::from_utf8_lossy(&output.stdout);
    for (check, kind) in [("upscaler/library-files", "upscaler"), ("restorer/library-files", "restorer")] {
        let told =
            format!("each {kind} of the library is an entry, and there is no library here: none was run");
        let is_it = |line: &str| line.contains(check) && line.contains(&told);
        assert!(report.lines().any(is_it), "{report}");
    }
}
