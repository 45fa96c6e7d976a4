//! Pictures made larger and faces restored, through the socket: `image.upscale` and the command.

use std::fs;

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, ImageOut, OutputFormat, OutputParams, UpscaleParams, UpscaleResult,
};
use latentd_models::image::{
    Beside, Channels, Filter, Picture, PictureFormat, PictureHeader, Sample, read_icc, read_infotext,
    read_texts,
};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::harness::{Daemon, Options, fixtures, refused, small, within};
use crate::plugin_library::{build, install};

fn engines() -> Vec<u8> {
    build("tests/fixtures/plugins/engines.c", &["-std=gnu99"])
}

/// The picture that tests/fixtures/extras.py has: numbers that a linear congruence gives.
fn noise(width: usize, height: usize, channels: Channels) -> Picture {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345) & 0x7fff_ffff;
        (state >> 16) as u8
    };
    let pixels = (0..width * height * channels.count()).map(|_| next()).collect();
    Picture { width, height, channels, pixels }
}

fn png<S: Sample>(picture: &Picture<S>) -> ImageIn {
    ImageIn::png(picture.encode(PictureFormat::Png, "").expect("encodes"))
}

fn file(image: &ImageOut) -> &[u8] {
    &image.png.as_ref().expect("a PNG").0
}

fn decoded(image: &ImageOut) -> Picture {
    Picture::decode(file(image), 1 << 30).expect("decodes")
}

async fn upscale(daemon: &Daemon, params: &UpscaleParams) -> UpscaleResult {
    within(daemon.client().await.upscale(params)).await.expect("made")
}

async fn fails(daemon: &Daemon, params: &UpscaleParams, name: ErrorName) -> String {
    refused(within(daemon.client().await.upscale(params)).await, name)
}

#[tokio::test]
async fn pictures_are_those_of_the_extras() {
    let daemon = Daemon::start();
    install(&daemon, "engines.so", &engines());
    let index = fs::read(fixtures().join("../plugins/extras.json")).expect("read");
    let index: Json = serde_json::from_slice(&index).expect("JSON");
    for row in index["rows"].as_array().expect("rows") {
        let params: UpscaleParams = serde_json::from_value(row["params"].clone()).expect("parameters");
        let params = UpscaleParams { image: Some(png(&noise(40, 24, Channels::Rgb))), ..params };
        let made = upscale(&daemon, &params).await;
        let picture = decoded(&made.images[0]);
        let sha256 = Sha256::digest(&picture.pixels);
        let sha256 = sha256.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let side = |index: usize| row["size"][index].as_u64().expect("a side") as usize;
        assert_eq!((picture.width, picture.height), (side(0), side(1)), "{row}");
        assert_eq!(row["sha256"], sha256, "{row}");
        assert_eq!(made.notices, Vec::<String>::new(), "{row}");
    }
    // What A1111 leaves black is none.
    let filled = UpscaleParams {
        width: Some(100),
        height: Some(100),
        ..UpscaleParams::new(
            png(&Picture { pixels: vec![200; 20 * 20 * 3], ..noise(20, 20, Channels::Rgb) }),
            "good",
        )
    };
    let filled = decoded(&upscale(&daemon, &filled).await.images[0]);
    assert_eq!((filled.width, filled.height), (100, 100));
    assert!(filled.pixels.iter().all(|value| *value == 200));
}

#[tokio::test]
async fn opacity_bits_profile_and_texts_are_kept() {
    let daemon = Daemon::start();
    install(&daemon, "engines.so", &engines());
    let of = |image: ImageIn, upscaler: &str| UpscaleParams::new(image, upscaler);
    // Opacity is upscaled by itself, of each kind of pixels.
    for channels in [Channels::Grey, Channels::Rgb, Channels::Rgba] {
        let picture = noise(32, 20, channels);
        for (name, tile, overlap) in [
            ("good", None, None),
            ("good", Some(16), Some(8)),
            ("float", Some(0), Some(3)),
            ("float", Some(20), Some(0)),
        ] {
            let params = UpscaleParams { tile, overlap, scale: Some(4.0), ..of(png(&picture), name) };
            let made = decoded(&upscale(&daemon, &params).await.images[0]);
            assert_eq!(made, picture.resized(128, 80, Filter::Nearest).expect("made"), "{name} {channels:?}");
        }
    }
    // 16 bits stay 16, all of them where the engine has them.
    let pixels = noise(32, 24, Channels::Rgba).pixels;
    let deep = Picture {
        width: 32,
        height: 24,
        channels: Channels::Rgba,
        pixels: pixels
            .iter()
            .enumerate()
            .map(|(at, value)| u16::from(*value) << 8 | at as u16 & 255)
            .collect(),
    };
    for (name, wanted) in [
        ("float", deep.resized(64, 48, Filter::Nearest).expect("made")),
        ("Lanczos", deep.resized(64, 48, Filter::Lanczos).expect("made")),
    ] {
        let made = upscale(&daemon, &of(png(&deep), name)).await;
        assert_eq!(PictureHeader::bits(file(&made.images[0])).expect("read"), 16);
        assert_eq!(Picture::decode_deep(file(&made.images[0]), 1 << 24).expect("decodes"), wanted, "{name}");
    }
    let made = upscale(&daemon, &of(png(&deep), "good")).await;
    let made = Picture::decode_deep(file(&made.images[0]), 1 << 24).expect("decodes");
    let worst = deep.resized(64, 48, Filter::Nearest).expect("made").pixels.into_iter().zip(&made.pixels);
    assert!(worst.map(|(a, b)| a.abs_diff(*b)).max().expect("some") <= 129);
    for format in [OutputFormat::Jpeg, OutputFormat::Webp, OutputFormat::Raw] {
        let params = UpscaleParams { output: OutputParams { format, dir: None }, ..of(png(&deep), "float") };
        let made = upscale(&daemon, &params).await.images.remove(0);
        let [narrow] = [made.jpeg, made.webp, made.raw]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .try_into()
            .expect("one");
        if format == OutputFormat::Webp {
            let wanted = deep.resized(64, 48, Filter::Nearest).expect("made").to_8_bits();
            assert_eq!(Picture::decode(&narrow.0, 1 << 24).expect("decodes"), wanted);
        }
    }
    // What a file tells, and its colours.
    let mut profile = vec![3; 500];
    profile[16..20].copy_from_slice(b"RGB ");
    profile[36..40].copy_from_slice(b"acsp");
    let infotext = "a cat, sitting\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 7, Size: 40x24";
    let texts = [("workflow".to_owned(), "{\"雪\": 1}".to_owned()), ("extras".to_owned(), "old".to_owned())];
    let beside = Beside { infotext, texts: &texts, icc: Some(&profile) };
    let done = "Postprocess upscale by: 2, Postprocess upscaler: Lanczos";
    for format in [PictureFormat::Png, PictureFormat::Jpeg, PictureFormat::WebP] {
        let bytes = noise(40, 24, Channels::Rgb).encode_with(format, &beside).expect("encodes");
        let path = daemon.folder.path().join("given");
        fs::write(&path, &bytes).expect("written");
        let made = upscale(&daemon, &of(ImageIn::path(path.display().to_string()), "Lanczos")).await;
        let image = &made.images[0];
        assert_eq!(image.infotext, Some(format!("{infotext}, {done}")));
        assert_eq!(read_infotext(file(image)).expect("read"), image.infotext);
        assert_eq!(read_icc(file(image)).as_ref(), Some(&profile), "{format:?}");
        let others = read_texts(file(image)).expect("read").others;
        let text = |key: &str| others.iter().find(|(other, _)| other == key).map(|(_, text)| text.as_str());
        assert_eq!((text("extras"), text("postprocessing")), (Some(done), Some(done)));
        assert_eq!(text("workflow").is_some(), format == PictureFormat::Png);
        let client = daemon.client().await;
        let info = within(client.image_info(ImageIn::png(file(image).to_vec()))).await.expect("read");
        assert_eq!(info.others["Postprocess upscaler"], "Lanczos");
        assert_eq!(info.request.expect("a request").drawing().seed, 7);
    }
    // One without a text gets none of parameters.
    let made = upscale(&daemon, &of(png(&noise(8, 8, Channels::Rgb)), "Lanczos")).await;
    assert_eq!(made.images[0].infotext.as_deref(), Some(done));
    assert_eq!(read_infotext(file(&made.images[0])).expect("read"), None);
}

#[tokio::test]
async fn what_cannot_be_is_refused_as_it_is_submitted() {
    let daemon = Daemon::with(Options { config: "message_bytes = 16777216\n".into(), ..Options::default() });
    install(&daemon, "engines.so", &engines());
    let image = || png(&noise(64, 48, Channels::Rgb));
    let good = || UpscaleParams::new(image(), "good");
    let side = |width, height| UpscaleParams { width, height, ..good() };
    // 100 megapixels of one colour, whose file is small.
    let large =
        Picture { width: 10_000, height: 10_000, channels: Channels::Grey, pixels: vec![0; 100_000_000] };
    let path = daemon.folder.path().join("large.png");
    fs::write(&path, large.to_png().expect("encodes")).expect("written");
    drop(large);
    let large = ImageIn::path(path.display().to_string());
    for (params, class, words) in [
        (UpscaleParams::default(), ErrorName::InvalidParams, "image: is missing; give a picture"),
        (UpscaleParams { images: vec![image()], ..good() }, ErrorName::InvalidParams, "give one of both"),
        (
            UpscaleParams { image: Some(large), ..good() },
            ErrorName::InvalidParams,
            "10000x10000 takes 100000000 bytes",
        ),
        (
            UpscaleParams { image: Some(ImageIn::png(b"GIF89a".to_vec())), ..good() },
            ErrorName::InvalidParams,
            "image: picture: 'GIF89a",
        ),
        (
            UpscaleParams { image: Some(ImageIn::raw(vec![], 0, 0, 3)), ..good() },
            ErrorName::InvalidParams,
            "image: raw: 0x0 has no pixels",
        ),
        (
            UpscaleParams { scale: Some(0.0), ..good() },
            ErrorName::InvalidParams,
            "scale: 0.0 is out of range; give 0.01 to 64",
        ),
        (
            UpscaleParams { scale: Some(-2.0), ..good() },
            ErrorName::InvalidParams,
            "scale: -2.0 is out of range",
        ),
        (
            UpscaleParams { scale: Some(f64::NAN), ..good() },
            ErrorName::InvalidParams,
            "scale: NaN must be a finite number",
        ),
        (UpscaleParams { scale: Some(0.1), ..good() }, ErrorName::InvalidParams, "give at least 0.167"),
        (
            UpscaleParams { scale: Some(3.0), ..side(Some(64), Some(64)) },
            ErrorName::InvalidParams,
            "give scale, or these",
        ),
        (side(Some(64), None), ErrorName::InvalidParams, "height: is missing beside width"),
        (side(Some(0), Some(64)), ErrorName::InvalidParams, "width: 0 is out of range"),
        (
            side(Some(60_000), Some(60_000)),
            ErrorName::InvalidParams,
            "width: image of 64x48 would become 80000x60000",
        ),
        (
            UpscaleParams { extras_upscaler_2_visibility: 2.0, ..good() },
            ErrorName::InvalidParams,
            "extras_upscaler_2_visibility: 2.0 is out of range",
        ),
        (
            UpscaleParams { overlap: Some(200), tile: Some(64), ..good() },
            ErrorName::InvalidParams,
            "overlap: 200 of tiles of 64",
        ),
        (
            UpscaleParams::new(image(), "None"),
            ErrorName::InvalidParams,
            "upscaler_1: nothing is asked for; name an upscaler (Lanczos, Nearest, ",
        ),
        (
            UpscaleParams { upscaler_2: "good".into(), ..UpscaleParams::new(image(), "None") },
            ErrorName::InvalidParams,
            "name 'good' there",
        ),
        (
            UpscaleParams { upscaler_2: "good".into(), strict: true, ..good() },
            ErrorName::InvalidParams,
            "raise extras_upscaler_2_visibility",
        ),
        (
            UpscaleParams::new(image(), "Lanzcos"),
            ErrorName::NotFound,
            "upscaler_1: 'Lanzcos' is not known; known: None, Lanczos, Nearest, as it is",
        ),
        (UpscaleParams::new(image(), "goood"), ErrorName::NotFound, "did you mean 'good'?"),
        (
            UpscaleParams { upscaler_2: "x".into(), ..good() },
            ErrorName::NotFound,
            "upscaler_2: 'x' is not known",
        ),
        (UpscaleParams::new(image(), "refuse"), ErrorName::InvalidParams, "this one is not to be had"),
        (
            UpscaleParams { gfpgan_visibility: 1.0, ..good() },
            ErrorName::NotFound,
            "gfpgan_visibility: 'GFPGAN' is not known; a plugin with engines of kind 'restorer'",
        ),
        (
            UpscaleParams { codeformer_visibility: 0.5, ..good() },
            ErrorName::NotFound,
            "codeformer_visibility: 'CodeFormer' is not known",
        ),
        (
            UpscaleParams { scale: Some(64.0), image: None, images: vec![image(); 8], ..good() },
            ErrorName::InvalidParams,
            "bytes of pixels",
        ),
    ] {
        let text = fails(&daemon, &params, class).await;
        assert!(text.contains(words), "{words}: {text}");
    }
    let unknown = serde_json::json!({"image": {"path": "/x.png"}, "upscaler": "good"});
    let client = daemon.client().await;
    let text =
        refused(within(client.submit("image.upscale", &unknown, None)).await, ErrorName::InvalidParams);
    assert!(text.contains("did you mean 'upscaler_1'?"), "{text}");
    // The budget counts it.
    let tight = Daemon::with(Options { config: "memory_bytes = 67108864\n".into(), ..Options::default() });
    let large = UpscaleParams { scale: Some(64.0), ..UpscaleParams::new(image(), "Lanczos") };
    let text = fails(&tight, &large, ErrorName::Memory).await;
    assert!(text.contains("'image.upscale' needs") && text.contains("the budget is 67108864"), "{text}");
}

#[tokio::test]
async fn restorers_of_plugins_are_those_that_a1111_names() {
    let daemon = Daemon::start();
    install(&daemon, "restorers.so", &build("tests/fixtures/plugins/restorers.c", &[]));
    let picture = noise(16, 8, Channels::Rgba);
    let none = || UpscaleParams { image: Some(png(&picture)), ..UpscaleParams::default() };
    let turned = |value: u8| 255 - value;
    let made = |of: &dyn Fn(u8) -> u8| {
        let each = |(at, value): (usize, &u8)| if at % 4 == 3 { *value } else { of(*value) };
        Picture { pixels: picture.pixels.iter().enumerate().map(each).collect(), ..picture.clone() }
    };
    let whole = upscale(&daemon, &UpscaleParams { gfpgan_visibility: 1.0, ..none() }).await;
    assert_eq!(decoded(&whole.images[0]), made(&turned));
    let told = |made: &UpscaleResult| {
        let text = made.images[0].infotext.clone().expect("told");
        let (text, engines) = text.split_once(", Postprocess engines: ").expect("engines");
        assert!(engines.contains(r#"\"plugin\":\"restorers\",\"version\":\""#), "{engines}");
        text.to_owned()
    };
    assert_eq!(told(&whole), "GFPGAN visibility: 1");
    assert!(whole.plugin_timings.contains_key("restorers"));
    let quarter = upscale(&daemon, &UpscaleParams { gfpgan_visibility: 0.25, ..none() }).await;
    assert_eq!(decoded(&quarter.images[0]), made(&|value| value.blended(255 - value, 0.25)));
    // One after the other, over what was made larger.
    let both = UpscaleParams {
        upscaler_1: "Nearest".into(),
        gfpgan_visibility: 1.0,
        codeformer_visibility: 0.5,
        codeformer_weight: 0.2,
        ..none()
    };
    let both = upscale(&daemon, &both).await;
    let wanted =
        made(&|value| turned(value).blended(51, 0.5)).resized(32, 16, Filter::Nearest).expect("made");
    assert_eq!(decoded(&both.images[0]), wanted);
    let wanted = "Postprocess upscale by: 2, Postprocess upscaler: Nearest, GFPGAN visibility: 1, CodeFormer visibility: 0.5, \
                  CodeFormer weight: 0.2";
    assert_eq!(told(&both), wanted);
    // Grey comes back in colours, and 16 bits stay where nothing was changed.
    let grey =
        UpscaleParams { image: Some(png(&noise(8, 8, Channels::Grey))), gfpgan_visibility: 1.0, ..none() };
    assert_eq!(decoded(&upscale(&daemon, &grey).await.images[0]).channels, Channels::Rgb);
    let deep = Picture {
        width: 2,
        height: 1,
        channels: Channels::Rgb,
        pixels: vec![0x3301_u16, 0x3302, 0x4400, 0, 1, 2],
    };
    let weighed = UpscaleParams {
        image: Some(png(&deep)),
        codeformer_visibility: 1.0,
        codeformer_weight: 0.2,
        ..none()
    };
    let weighed = upscale(&daemon, &weighed).await;
    let weighed = Picture::decode_deep(file(&weighed.images[0]), 1 << 20).expect("decodes");
    assert_eq!(weighed.pixels, [0x3301, 0x3302, 0x3333, 0x3333, 0x3333, 0x3333]);
}

#[tokio::test]
async fn tiles_are_told_one_by_one_and_faults_cost_one_job() {
    let daemon = Daemon::start();
    install(&daemon, "engines.so", &engines());
    let client = daemon.client().await;
    let of = |name: &str| UpscaleParams {
        images: vec![png(&noise(64, 64, Channels::Rgb)); 2],
        image: None,
        ..UpscaleParams::new(ImageIn::default(), name)
    };
    let mut told = vec![];
    let made = within(client.upscale_with(&of("good"), |event| {
        if let EventKind::Progress { stage: Some(stage), step, steps, eta_s, .. } = &event.kind
            && stage == "upscaling"
        {
            assert!(eta_s.is_some_and(|eta| eta >= 0.0));
            told.push((*step, *steps));
        }
    }))
    .await
    .expect("made");
    assert_eq!(made.images.len(), 2);
    // Tiles of 24 that fade over 4: three times three of each.
    assert!(
        told.is_sorted() && told.iter().all(|(tile, of)| (1..=18).contains(tile) && *of == 18),
        "{told:?}"
    );
    assert_eq!(told.last(), Some(&(18, 18)));
    let wanted = decoded(&made.images[0]);
    for (name, words) in [
        ("fail", "as asked"),
        ("nothing", "it gave no image in slot 0"),
        ("nan", "number 7 of [3, 3, 32, 32] is NaN"),
        ("small", "where an image [1, 3, 48, 48] was wanted"),
    ] {
        let text = refused(within(client.upscale(&of(name))).await, ErrorName::Plugin);
        assert!(
            text.starts_with(&format!("plugin 'engines', upscaler '{name}': ")) && text.contains(words),
            "{text}"
        );
        assert_eq!(decoded(&upscale(&daemon, &of("good")).await.images[1]), wanted);
    }
    let noted = upscale(&daemon, &of("notice")).await;
    assert_eq!(noted.notices, ["plugin 'engines': from the engine"]);
    let strict = UpscaleParams { strict: true, ..of("notice") };
    let text = refused(within(client.upscale(&strict)).await, ErrorName::Plugin);
    assert!(text.contains("from the engine"), "{text}");
    let job = within(client.submit("image.upscale", &of("wait"), None)).await.expect("submitted");
    daemon.wait_log("waits in an engine");
    within(client.cancel(&job)).await.expect("cancelled");
    refused(within(client.wait(&job)).await, ErrorName::Cancelled);
    // What is drawn goes on as before.
    within(client.txt2img(&small(1))).await.expect("drawn");
}

#[tokio::test]
async fn a_large_result_takes_little_more_than_itself() {
    let daemon = Daemon::start();
    install(&daemon, "engines.so", &engines());
    let picture = noise(2000, 1250, Channels::Rgb);
    let output = OutputParams { format: OutputFormat::File, dir: None };
    // Twice over, to 8000 x 5000: 40 megapixels.
    let params = UpscaleParams {
        scale: Some(4.0),
        tile: Some(256),
        overlap: Some(64),
        output,
        ..UpscaleParams::new(png(&picture), "good")
    };
    let client = daemon.client().await;
    let job = client.submit("image.upscale", &params, None).await.expect("submitted");
    let made: UpscaleResult = client.wait_for(&job).await.expect("made");
    assert_eq!((made.images[0].width, made.images[0].height), (8000, 5000));
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process.id())).expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("there");
    let mib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10;
    // The file, its source, the pixels as given and twice and four times as large, and three strips of those.
    assert!(mib < 600, "{mib} MiB");
}

#[tokio::test]
async fn the_command_writes_files_and_shows_how_far_it_is() {
    let daemon = Daemon::start();
    install(&daemon, "engines.so", &engines());
    let write = |name: &str, picture: &Picture| {
        fs::write(daemon.folder.path().join(name), picture.to_png().expect("encodes")).expect("written");
    };
    write("one.png", &noise(32, 32, Channels::Rgb));
    write("two.png", &noise(40, 16, Channels::Rgba));
    let run = |arguments: &[&str]| daemon.command(&[&["upscale"], arguments].concat()).output().expect("ran");
    let read = |name: &str| {
        Picture::decode(&fs::read(daemon.folder.path().join(name)).expect("read"), 1 << 24).expect("decodes")
    };
    let output = run(&["one.png", "-o", "out.png", "--upscaler", "good", "--scale", "4"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out.png\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("upscaling 13/13"), "{output:?}");
    assert_eq!(
        read("out.png"),
        noise(32, 32, Channels::Rgb).resized(128, 128, Filter::Nearest).expect("made")
    );
    // Several, into a folder, numbered, and beside.
    fs::create_dir(daemon.folder.path().join("folder")).expect("made");
    for (to, names) in [
        (&["-o", "folder"][..], ["folder/one.png", "folder/two.png"]),
        (&["-o", "all.png"], ["all-1.png", "all-2.png"]),
        (&[], ["one-upscaled.png", "two-upscaled.png"]),
    ] {
        let flags = ["one.png", "two.png", "-u", "Lanczos", "--width", "64", "--height", "64"];
        let output = run(&[&flags[..], to].concat());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n{}\n", names[0], names[1]));
        assert!(names.iter().all(|name| (read(name).width, read(name).height) == (64, 64)));
    }
    let output = run(&["one.png", "-o", "both.webp", "-u", "Nearest", "--upscaler-2", "good", "--no-crop"]);
    assert!(output.status.success(), "{output:?}");
    let file = fs::read(daemon.folder.path().join("both.webp")).expect("read");
    assert!(file.starts_with(b"RIFF"));
    for (arguments, code, words) in [
        (&["one.png", "-o", "x.png", "--upscaler", "goood"][..], 1, "did you mean 'good'?"),
        (&["one.png", "-o", "x.png"], 2, "upscaler_1: nothing is asked for"),
        (&["one.png", "-o", "x.png", "-u", "good", "--scale", "0"], 2, "scale: 0.0 is out of range"),
        (&["none.png", "-o", "x.png", "-u", "good"], 2, "cannot be read"),
        (&["one.png", "-o", "x.gif", "-u", "good"], 2, "'.gif' is none of"),
        (&[], 2, "FILE"),
    ] {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && text.contains(words), "{arguments:?}: {output:?}");
    }
}
