//! Engines of all kinds, run by whoever names them: by methods and stages of other plugins, by names in parameters.

use latentd_client::Client;
use latentd_client::protocol::{ErrorName, ImageIn, PluginParams, Txt2ImgParams};
use latentd_models::image::{Channels, Picture};
use rmpv::Value;
use serde::Serialize;
use serde_json::json;

use crate::harness::{Daemon, Options, refused, small, within};
use crate::plugin_library::{build, build_crate, install};

const UPSCALER: u32 = 1;
const RESTORER: u32 = 2;
const PREPROCESSOR: u32 = 3;
const DETECTOR: u32 = 4;
const TAGGER: u32 = 5;

fn installed() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "finders.so", &build("tests/fixtures/plugins/finders.c", &["-std=gnu99"]));
    daemon
}

/// A picture of 6 by 4.
fn picture(channels: u32) -> Vec<u8> {
    let pixels = (0..24 * channels).map(|number| (number * 2) as u8).collect();
    Picture::from_raw(pixels, 6, 4, channels).and_then(|picture| picture.to_png()).expect("a PNG")
}

#[derive(Serialize)]
struct OfImage {
    image: ImageIn,
}

#[derive(Clone, Serialize)]
struct Ask {
    kind: u32,
    name: &'static str,
    image: ImageIn,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<ImageIn>,
    width: u32,
    height: u32,
    strength: f64,
    threshold: f64,
    plan: bool,
}

fn ask(kind: u32, name: &'static str) -> Ask {
    let (image, mask) = (ImageIn::png(picture(3)), None);
    Ask { kind, name, image, mask, width: 0, height: 0, strength: 1.0, threshold: 0.0, plan: true }
}

async fn asked(client: &Client, ask: &Ask) -> Value {
    within(client.call_value("finders.ask", ask)).await.expect(ask.name)
}

async fn fails(client: &Client, ask: &Ask, name: ErrorName) -> String {
    refused(within(client.call_value("finders.ask", ask)).await, name)
}

fn decoded(image: &Value) -> Picture {
    let Value::Binary(png) = &image["png"] else { panic!("no PNG: {image}") };
    Picture::decode(png, 1 << 20).expect("a picture")
}

#[tokio::test]
async fn each_kind_answers_what_it_makes_of_a_picture() {
    let daemon = installed();
    let client = daemon.client().await;
    let all = Picture::decode(&picture(3), 1 << 20).expect("a picture").pixels;
    let negative: Vec<u8> = all.iter().map(|value| 255 - value).collect();

    let found = asked(&client, &ask(DETECTOR, "good")).await;
    assert!(found["image"].is_nil() && found["found"].as_array().is_some_and(|found| found.len() == 2));
    let first = &found["found"][0];
    assert_eq!(
        (&first["label"], &first["score"], &first["right"]),
        (&"thing".into(), &0.75.into(), &6.0.into())
    );
    assert_eq!(first["last point"], 4.0.into());
    let mask = decoded(&first["mask"]);
    assert_eq!((mask.channels, mask.width, mask.pixels[0]), (Channels::Grey, 6, 200));
    assert_eq!(first["embedding"]["shape"], Value::Array(vec![2.into()]));
    assert_eq!(first["data"], Value::Binary(vec![0x81, 0xa3, b'a', b'g', b'e', 7]));
    assert_eq!(found["found"][1]["label"], "faint".into());
    // What scores below is left out, also where the engine forgets it.
    let above = asked(&client, &Ask { threshold: 0.5, ..ask(DETECTOR, "good") }).await;
    assert_eq!(above["found"].as_array().map(Vec::len), Some(1));

    let tagged = asked(&client, &ask(TAGGER, "good")).await;
    assert_eq!(tagged["found"][0]["label"], "thing".into());
    assert_eq!(tagged["data"], Value::Binary(b"\x81\xa7caption\xa3any".to_vec()));

    for name in ["good", "float"] {
        let made = decoded(&asked(&client, &ask(PREPROCESSOR, name)).await["image"]);
        assert_eq!((made.width, made.height, &made.pixels), (6, 4, &negative), "{name}");
    }
    let made = asked(&client, &Ask { width: 5, height: 9, ..ask(PREPROCESSOR, "good") }).await;
    let made = decoded(&made["image"]);
    assert_eq!((made.width, made.height, made.channels, made.pixels[0]), (5, 9, Channels::Grey, 7));

    let made = decoded(&asked(&client, &ask(RESTORER, "negative")).await["image"]);
    assert_eq!(made.pixels, negative);
    // Opacity is kept; grey is three colours.
    let with_alpha = Ask { image: ImageIn::png(picture(4)), ..ask(RESTORER, "negative") };
    let made = decoded(&asked(&client, &with_alpha).await["image"]);
    let expected: Vec<u8> =
        (0..96u8).map(|number| if number % 4 == 3 { number * 2 } else { 255 - number * 2 }).collect();
    assert_eq!((made.channels, made.pixels), (Channels::Rgba, expected));

    let made = decoded(&asked(&client, &ask(UPSCALER, "twice")).await["image"]);
    assert_eq!((made.width, made.height, made.pixels[0]), (12, 8, 99));
    let masked = Ask { mask: Some(ImageIn::png(picture(1))), ..ask(DETECTOR, "good") };
    asked(&client, &masked).await;
    // One that runs another, which is planned with it.
    assert_eq!(asked(&client, &ask(DETECTOR, "nested")).await["found"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn what_is_not_there_or_not_planned_is_refused() {
    let daemon = installed();
    let client = daemon.client().await;
    let submitted = within(client.submit("finders.ask", &ask(DETECTOR, "goood"), None)).await;
    let text = refused(submitted, ErrorName::NotFound);
    assert!(
        text.starts_with("plugin 'finders': 'goood' is not known; known: endless, fail, good,"),
        "{text}"
    );
    assert!(text.contains("did you mean 'good'?"), "{text}");
    let text = fails(&client, &ask(RESTORER, "good"), ErrorName::NotFound).await;
    assert!(text.contains("known: fail, negative, nothing, small, wait"), "{text}");
    for name in ["ring", "other ring"] {
        let text = fails(&client, &ask(DETECTOR, name), ErrorName::Plugin).await;
        assert!(text.contains("engines run each other in a circle: detector"), "{text}");
    }
    let unplanned = Ask { plan: false, ..ask(DETECTOR, "good") };
    let text = fails(&client, &unplanned, ErrorName::NotFound).await;
    assert!(text.contains("the detector 'good' was not planned"), "{text}");
    let text = fails(&client, &ask(DETECTOR, "unplanned"), ErrorName::NotFound).await;
    assert!(text.contains("detector 'unplanned': the restorer 'negative' was not planned"), "{text}");
    let text = fails(&client, &ask(9, "good"), ErrorName::InvalidParams).await;
    assert!(text.contains("9 is no kind of engines"), "{text}");
    for (wrong, words) in [
        (Ask { strength: 2.0, ..ask(RESTORER, "negative") }, "strength is 2; 0 to 1 is meant"),
        (Ask { threshold: -1.0, ..ask(DETECTOR, "good") }, "threshold is -1"),
    ] {
        let text = fails(&client, &wrong, ErrorName::InvalidParams).await;
        assert!(text.contains(words), "{text}");
    }
    let other_mask = Picture::from_raw(vec![1; 4], 2, 2, 1).and_then(|mask| mask.to_png()).expect("a PNG");
    let wrong = Ask { mask: Some(ImageIn::png(other_mask)), ..ask(DETECTOR, "good") };
    let text = fails(&client, &wrong, ErrorName::InvalidParams).await;
    assert!(text.contains("the mask is 2x2 of 1 channels, of an image of 6x4"), "{text}");
    // A quick method has none at hand, but their names.
    let image = json!({"kind": DETECTOR});
    let names = within(client.call_value("finders.names", &image)).await.expect("named");
    assert_eq!(names["names"][0], "endless".into());
    let at_once = OfImage { image: ImageIn::png(picture(3)) };
    let text = refused(within(client.call_value("finders.at-once", &at_once)).await, ErrorName::Unsupported);
    assert!(text.contains("there are no engines at hand in this function"), "{text}");
}

#[tokio::test]
async fn a_fault_costs_one_job_which_names_plugin_and_engine() {
    let daemon = installed();
    let client = daemon.client().await;
    let good = asked(&client, &ask(DETECTOR, "good")).await["found"].clone();
    for (kind, name, class, words) in [
        (DETECTOR, "no number", ErrorName::InvalidParams, "detector 'no number': a box [NaN"),
        (DETECTOR, "no score", ErrorName::InvalidParams, "a score of 1.5"),
        (DETECTOR, "upside down", ErrorName::InvalidParams, "left, top, right and bottom are meant"),
        (DETECTOR, "picture", ErrorName::Plugin, "slot 0 is none of its slots"),
        (DETECTOR, "mask of another size", ErrorName::Plugin, "'thing': its mask is 7x4"),
        (DETECTOR, "mask of colours", ErrorName::InvalidParams, "a mask that is no image of one channel"),
        (DETECTOR, "fail", ErrorName::Model, "plugin 'finders', detector 'fail': as asked"),
        (DETECTOR, "endless", ErrorName::Plugin, "more than 16384 things"),
        (PREPROCESSOR, "nan", ErrorName::Plugin, "preprocessor 'nan': number 0 of [1, 3, 4, 6] is NaN"),
        (PREPROCESSOR, "nothing", ErrorName::Plugin, "it gave no image in slot 0"),
        (
            RESTORER,
            "small",
            ErrorName::Plugin,
            "an image [1, 3, 4, 4] where an image [1, 3, 4, 6] was wanted",
        ),
        (TAGGER, "boxes", ErrorName::Plugin, "a tagger's things have no boxes"),
        (TAGGER, "no map", ErrorName::Plugin, "reply 0 is no map"),
    ] {
        let text = fails(&client, &ask(kind, name), class).await;
        assert!(
            text.starts_with("plugin 'finders', method 'ask': ") && text.contains(words),
            "{name}: {text}"
        );
        assert_eq!(asked(&client, &ask(DETECTOR, "good")).await["found"], good, "{name}");
    }
    let sized = Ask { width: 8, height: 8, ..ask(PREPROCESSOR, "another size") };
    let text = fails(&client, &sized, ErrorName::Plugin).await;
    assert!(text.contains("an image [1, 3, 4, 4] where an image [1, 3, 8, 8] was wanted"), "{text}");
    for (kind, entry, waits) in [
        (UPSCALER, "waits", "waits in an upscaler"),
        (RESTORER, "wait", "waits in a restorer"),
        (PREPROCESSOR, "wait", "waits in a preprocessor"),
        (DETECTOR, "wait", "waits in a detector"),
        (TAGGER, "wait", "waits in a tagger"),
    ] {
        let job = within(client.submit("finders.ask", &ask(kind, entry), None)).await.expect("submitted");
        daemon.wait_log(waits);
        let beside =
            within(client.submit("finders.ask", &ask(DETECTOR, "good"), None)).await.expect("submitted");
        within(client.cancel(&job)).await.expect("cancelled");
        refused(within(client.wait_for::<Value>(&job)).await, ErrorName::Cancelled);
        let beside: Value = within(client.wait_for(&beside)).await.expect("done");
        assert_eq!(beside["found"], good, "beside {waits}");
        assert_eq!(asked(&client, &ask(DETECTOR, "good")).await["found"], good, "{waits}");
    }
}

#[tokio::test]
async fn what_is_found_is_counted_until_somebody_has_it() {
    // A process of its own would be counted, too, and ended where there is no room for it.
    let config = "[plugins.finders]\nisolation = \"inline\"\n".to_owned();
    let flags = vec!["--memory-bytes".to_owned(), (32 << 20).to_string()];
    let daemon = Daemon::with(Options { flags, config, ..Options::default() });
    install(&daemon, "finders.so", &build("tests/fixtures/plugins/finders.c", &["-std=gnu99"]));
    let client = daemon.client().await;
    // Of 64 KiB each: 4096 of them, which the plugin lets go of at once, are 256 MiB.
    let square = Picture::from_raw(vec![7; 256 * 256 * 3], 256, 256, 3).expect("a picture");
    let square = square.to_png().expect("a PNG");
    let of = |name| Ask { image: ImageIn::png(square.clone()), ..ask(DETECTOR, name) };
    let text = fails(&client, &of("masks"), ErrorName::Memory).await;
    assert!(text.contains("detector 'masks'"), "{text}");
    asked(&client, &of("good")).await;
}

#[tokio::test]
async fn parameters_name_engines_and_pictures_tell_of_them() {
    let daemon = installed();
    let client = daemon.client().await;
    let with = |detector: &str| {
        let params = json!({"detector": detector}).as_object().expect("a map").clone();
        Txt2ImgParams {
            plugins: [("finders".to_owned(), PluginParams::from_json(params))].into(),
            ..small(1)
        }
    };
    let drawn = within(client.txt2img(&with("good"))).await.expect("drawn");
    assert_eq!(drawn.notices, ["plugin 'finders': found 2"]);
    let text = drawn.images[0].infotext.as_deref().expect("told");
    assert!(text.contains("Engines: ") && text.contains("\\\"detector\\\""), "{text}");
    let png = drawn.images[0].png.as_ref().expect("a PNG").0.clone();
    let info = within(client.image_info(ImageIn::png(png))).await.expect("read");
    let again =
        within(client.txt2img(&info.request.expect("a request").into_drawing())).await.expect("drawn");
    assert_eq!(again.images[0].png, drawn.images[0].png);
    let text = refused(within(client.txt2img(&with("goo"))).await, ErrorName::NotFound);
    assert!(text.starts_with("plugins.finders/detector: 'goo' is not known"), "{text}");
    let text = refused(within(client.txt2img(&with("fail"))).await, ErrorName::Model);
    assert!(
        text.contains("plugin 'finders', image.post/draft-1: plugin 'finders', detector 'fail': as asked"),
        "{text}"
    );
    // What there is to choose from.
    let schema = within(client.plugin_schema("finders")).await.expect("told").parameters;
    let choices = &schema["properties"]["detector"]["x-choices"];
    assert!(choices.as_array().is_some_and(|choices| choices.contains(&"nested".into())), "{choices}");
}

#[derive(Serialize)]
struct Outline {
    image: ImageIn,
    threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    detector: Option<&'static str>,
}

#[tokio::test]
async fn library_files_are_engines_by_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("finders.toml");
    let manifest = std::fs::read_to_string("../tests/fixtures/plugins/finders.toml").expect("read");
    let manifest = manifest.replace("[engines.detector]\n", "[engines.detector]\nlibrary = 'checkpoint'\n");
    std::fs::write(&path, manifest).expect("written");
    let define = format!("-DMANIFEST=\"{}\"", path.display());
    let daemon = Daemon::start();
    install(&daemon, "finders.so", &build("tests/fixtures/plugins/finders.c", &["-std=gnu99", &define]));
    let client = daemon.client().await;
    let params = latentd_client::protocol::LibraryListParams::default();
    let files = within(client.library(&params)).await.expect("listed").entries;
    let is_one = |kind| kind == latentd_client::protocol::LibraryKind::Checkpoint;
    let file = files.into_iter().find(|entry| is_one(entry.kind) && entry.name == "tiny-sd1");
    let file = file.expect("a checkpoint").name;
    let listed = within(client.plugins()).await.expect("listed").plugins;
    let names = &listed[0].engines["detector"];
    assert!(names.contains(&file) && names.contains(&"good".to_owned()), "{names:?}");
    let name: &'static str = file.clone().leak();
    let found = asked(&client, &ask(DETECTOR, name)).await;
    assert_eq!(found["found"][0]["label"], file.into());
    let text = fails(&client, &ask(DETECTOR, "none of them"), ErrorName::NotFound).await;
    assert!(text.contains("'none of them' is not known"), "{text}");
}

/// 32 by 24, black but for two squares.
fn with_squares() -> Vec<u8> {
    let mut pixels = vec![0; 32 * 24 * 3];
    for (left, top, side, value) in [(4, 6, 8, 255), (20, 10, 4, 180)] {
        for y in top..top + side {
            for x in left..left + side {
                pixels[(y * 32 + x) * 3..][..3].fill(value);
            }
        }
    }
    Picture::from_raw(pixels, 32, 24, 3).and_then(|picture| picture.to_png()).expect("a PNG")
}

#[tokio::test]
async fn a_plugin_in_rust_has_engines_and_methods_that_run_them() {
    let daemon = installed();
    install(&daemon, "bright-spots.so", &build_crate("plugin-api/examples/bright-spots"));
    let client = daemon.client().await;
    let outline = |threshold, detector| Outline { image: ImageIn::png(with_squares()), threshold, detector };
    let call = async |params: &Outline| within(client.call_value("bright-spots.outline", params)).await;
    let result = call(&outline(0.5, None)).await.expect("outlined");
    let spots = result["spots"].as_array().expect("spots");
    let boxes: Vec<Vec<f64>> = spots
        .iter()
        .map(|spot| spot["box"].as_array().expect("a box").iter().filter_map(Value::as_f64).collect())
        .collect();
    assert_eq!(boxes, [[4.0, 6.0, 12.0, 14.0], [20.0, 10.0, 24.0, 14.0]]);
    let score = spots[1]["score"].as_f64().expect("a score");
    assert!((score - 180.0 / 255.0).abs() < 1e-6, "{score}");
    let mask = decoded(&spots[0]["mask"]);
    assert_eq!(mask.pixels.iter().map(|value| usize::from(*value)).sum::<usize>(), 64 * 255);
    let drawn = decoded(&result["images"][0]);
    let at = |x: usize, y: usize| drawn.pixels[(y * 32 + x) * 3];
    // The box is white; Sobel's gradient beside the square, within it nothing.
    assert_eq!((at(4, 6), at(11, 13), at(3, 10), at(8, 10), at(0, 0)), (255, 255, 255, 0, 0));
    assert_eq!(at(25, 12), 0);
    assert_eq!(at(24, 12), 180);
    // Brighter ones alone; and what another plugin finds.
    assert_eq!(call(&outline(0.8, None)).await.expect("outlined")["spots"].as_array().map(Vec::len), Some(1));
    let other = call(&outline(0.5, Some("good"))).await.expect("outlined");
    assert_eq!(other["spots"][0]["label"], "thing".into());
    let text = refused(call(&outline(0.5, Some("goo"))).await, ErrorName::NotFound);
    assert!(text.starts_with("bright-spots.outline/detector: 'goo' is not known"), "{text}");
    let info = within(client.api_info()).await.expect("told").methods;
    let detector = &info["bright-spots.outline"].params["properties"]["detector"];
    assert!(detector["x-choices"].as_array().is_some_and(|all| all.contains(&"bright spots".into())));

    let of = OfImage { image: ImageIn::png(with_squares()) };
    let brightness = within(client.call_value("bright-spots.brightness", &of)).await.expect("looked at");
    let mean = (64.0 * 255.0 + 16.0 * 180.0) / 768.0 / 255.0;
    assert!((brightness["mean"].as_f64().expect("a mean") - mean).abs() < 1e-6, "{brightness}");
    assert!((brightness["histogram"][15].as_f64().expect("a share") - 64.0 / 768.0).abs() < 1e-9);
}
