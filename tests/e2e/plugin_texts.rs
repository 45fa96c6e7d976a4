//! What plugins add to the texts of pictures, and what they read in those of others, through the socket: a plugin in C that says what
//! to do.

use latentd_client::protocol::{
    ErrorName, ImageIn, ImageInfo, OutputFormat, OutputParams, PluginParams, RepeatRequest, Txt2ImgParams,
};
use latentd_models::image::{RgbImage, encode_png};
use serde_json::json;

use crate::harness::{Daemon, refused, small, within};
use crate::plugin_library::{build, install};

const WRITES: &str = "infotext.write/draft-1";

fn texts() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "texts.so", &build("tests/fixtures/plugins/texts.c", &["-std=gnu99"]));
    daemon
}

fn with(act: &str, request: Txt2ImgParams) -> Txt2ImgParams {
    let params = PluginParams::from_json(json!({"act": act}).as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [("texts".to_owned(), params)].into(), ..request }
}

async fn drawn(daemon: &Daemon, request: &Txt2ImgParams) -> Vec<latentd_client::protocol::ImageOut> {
    within(daemon.client().await.txt2img(request)).await.expect("drawn").images
}

/// What is read in a picture with this text.
async fn info(daemon: &Daemon, text: &str) -> ImageInfo {
    let white = RgbImage { width: 8, height: 8, pixels: vec![255; 192] };
    let png = encode_png(&white, text).expect("encodes");
    within(daemon.client().await.image_info(ImageIn::png(png))).await.expect("read")
}

fn params_of(info: &ImageInfo) -> Option<&PluginParams> {
    info.request.as_ref().and_then(|request| request.drawing().plugins.get("texts"))
}

#[tokio::test]
async fn pairs_stand_in_the_text_and_the_picture_is_repeated_from_it() {
    let daemon = texts();
    let client = daemon.client().await;
    for format in [OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::Webp] {
        let output = OutputParams { format, dir: None };
        let two = Txt2ImgParams { batch_size: 2, output, ..small(5) };
        for (number, image) in drawn(&daemon, &with("write", two.clone())).await.into_iter().enumerate() {
            let text = image.infotext.clone().expect("a text");
            let pairs = format!(
                r#", Texts picture: seed {}, Texts trap: "a, Steps: 7, \"b\"\nSeed: 9", Version: latentd v"#,
                5 + number
            );
            assert!(text.contains(&pairs), "{text}");
            let file = match format {
                OutputFormat::Jpeg => ImageIn { jpeg: image.jpeg.clone(), ..ImageIn::default() },
                OutputFormat::Webp => ImageIn { webp: image.webp.clone(), ..ImageIn::default() },
                _ => ImageIn { png: image.png.clone(), ..ImageIn::default() },
            };
            let info = within(client.image_info(file)).await.expect("read");
            assert_eq!(info.others["Texts picture"], format!("seed {}", 5 + number));
            assert_eq!(info.others["Texts trap"], "a, Steps: 7, \"b\"\nSeed: 9");
            assert_eq!(info.notices, Vec::<String>::new());
            let Some(RepeatRequest::Txt2Img(again)) = info.request else { panic!("no request") };
            assert_eq!(
                drawn(&daemon, &Txt2ImgParams { output: two.output.clone(), ..*again }).await,
                [image]
            );
        }
    }
    let plain = drawn(&daemon, &small(5)).await.remove(0).infotext.expect("a text");
    let skipped = drawn(&daemon, &with("skip", small(5))).await.remove(0).infotext.expect("a text");
    assert!(!plain.contains("Texts") && !skipped.contains("Texts picture"));
    // What a JPEG has no room for is left out, and that is told; the picture is not lost.
    let long = "a ".repeat(13_500);
    let jpeg = OutputParams { format: OutputFormat::Jpeg, dir: None };
    let request =
        with("long", Txt2ImgParams { prompt: long.as_str().into(), output: jpeg, steps: 1, ..small(5) });
    let result = within(client.txt2img(&request)).await.expect("drawn");
    let text = result.images[0].infotext.as_ref().expect("a text");
    let is_told = result
        .notices
        .iter()
        .any(|notice| notice == "jpeg: no room for Texts long in the picture's text; use png or webp");
    assert!(text.contains("Texts long") != is_told, "{:?}", result.notices);
}

#[tokio::test]
async fn what_is_no_pair_is_refused_and_costs_that_job_alone() {
    let daemon = texts();
    let client = daemon.client().await;
    let plain = drawn(&daemon, &small(5)).await;
    for (act, words) in [
        ("own", "slot 0: the key 'cfg scale' is the daemon's own; give another"),
        ("short", "slot 0: the key 'x' cannot be read back: give 2 to 64 letters"),
        ("number", "slot 0: the value of 'Texts picture' is no text of 1 to 2048 bytes"),
        ("list", "slot 0: it gives no map of pairs"),
        ("cut", "slot 0: what it gives cannot be read"),
        ("far", "slot 9: there is no such picture"),
        ("image", "slot 0 is none of its slots"),
        ("fail", "as asked"),
    ] {
        let text = refused(within(client.txt2img(&with(act, small(5)))).await, ErrorName::Plugin);
        assert!(text.starts_with(&format!("plugin 'texts', {WRITES}: ")) && text.contains(words), "{text}");
        assert_eq!(drawn(&daemon, &small(5)).await, plain, "{act}");
    }
}

#[tokio::test]
async fn texts_of_others_are_read_as_the_plugins_parameters() {
    let daemon = texts();
    let a1111 = "a cat\nSteps: 2, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 64x64, ADetailer model: face_yolov8n.pt";
    let found = info(&daemon, &format!("{a1111}, ADetailer confidence: 0.5")).await;
    let expected = json!({"model": "face_yolov8n.pt", "confidence": 0.5});
    assert_eq!(params_of(&found).and_then(PluginParams::to_json), expected.as_object().cloned());
    assert_eq!((found.notices.len(), found.others["ADetailer model"].as_str()), (0, "face_yolov8n.pt"));
    assert_eq!(found.read_by, ["texts"]);
    // It can be drawn with.
    let request = found.request.expect("a request").into_drawing();
    let text = drawn(&daemon, &request).await.remove(0).infotext.expect("a text");
    assert!(text.contains("Plugins: ") && text.contains("face_yolov8n.pt"), "{text}");
    // What it says is told; where it says nothing there is nothing, nor where the text names it already.
    let said = info(&daemon, &format!("{a1111}, Act: say")).await;
    assert_eq!(said.notices, ["plugin 'texts': one model of several"]);
    let own = format!("{a1111}, Plugins: {}", json!(r#"{"texts":{"params":{"act":"skip"}}}"#));
    let expected = json!({"act": "skip"});
    assert_eq!(
        params_of(&info(&daemon, &own).await).and_then(PluginParams::to_json),
        expected.as_object().cloned()
    );
    let none = info(&daemon, "a cat\nSteps: 2, Sampler: Euler a, CFG scale: 7, Seed: 3, Other: 5").await;
    assert!(params_of(&none).is_none() && none.notices.is_empty());
    for (act, words) in [
        ("list", "it gives no map of parameters"),
        ("schema", "confidence"),
        ("slot", "it replies in slot 1, of 0 alone"),
        ("fail", "as asked"),
        ("slow", "s, 5 are allowed"),
    ] {
        let wrong = info(&daemon, &format!("{a1111}, ADetailer confidence: 0.5, Act: {act}")).await;
        let [notice] = wrong.notices.as_slice() else { panic!("{act}: {:?}", wrong.notices) };
        assert!(
            notice.starts_with("plugin 'texts', infotext.parse/draft-1: ") && notice.contains(words),
            "{notice}"
        );
        assert!(params_of(&wrong).is_none() && wrong.request.is_some(), "{act}");
    }
}
