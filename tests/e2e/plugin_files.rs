//! Pictures and library files in plugins' parameters, and ONNX graphs of the library, through the socket.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use latentd_client::protocol::{
    ErrorName, ImageIn, ImageOut, OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams,
};
use latentd_models::image::Picture;
use rmpv::Value;
use serde_json::Value as Json;

use crate::harness::{Daemon, Options, fixtures, refused, small, within};
use crate::plugin_library::{build, build_crate, install};
use crate::reference::{LEAST_DECIBELS, decibels};

fn filter() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| build_crate("plugin-api/examples/onnx-filter"))
}

fn paste() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| build("tests/fixtures/plugins/paste.c", &[]))
}

fn graphs() -> std::path::PathBuf {
    fixtures().join("../onnx")
}

/// With tiny-sd1, the graphs among the annotators, and the plugins.
fn start() -> (Daemon, tempfile::TempDir) {
    let models = tempfile::tempdir().expect("a folder");
    let copy = |from: &Path, to: &str| {
        let to = models.path().join(to);
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(from, to).expect("copied");
    };
    copy(&fixtures().join("Stable-diffusion/tiny-sd1.safetensors"), "Stable-diffusion/tiny-sd1.safetensors");
    for name in ["sharper", "softer", "grey", "unknown"] {
        copy(&graphs().join(name).with_extension("onnx"), &format!("annotators/{name}.onnx"));
    }
    let daemon = Daemon::with(Options { models: Some(models.path().to_owned()), ..Options::default() });
    install(&daemon, "onnx_filter.so", filter());
    install(&daemon, "paste.so", paste());
    (daemon, models)
}

fn with(plugin: &str, params: &[(&str, Value)]) -> Txt2ImgParams {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Txt2ImgParams { plugins: [(plugin.to_owned(), PluginParams(params))].into(), ..plain() }
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams {
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Png, dir: None },
        ..small(3)
    }
}

async fn image(daemon: &Daemon, params: &Txt2ImgParams) -> ImageOut {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    assert_eq!(drawn.notices, Vec::<String>::new());
    drawn.images.into_iter().next().expect("a picture")
}

fn png(image: &ImageOut) -> &[u8] {
    &image.png.as_ref().expect("a PNG").0
}

fn pixels(image: &ImageOut) -> Vec<u8> {
    Picture::decode(png(image), 1 << 24).expect("decodes").pixels
}

async fn fails(daemon: &Daemon, params: &Txt2ImgParams, name: ErrorName) -> String {
    refused(within(daemon.client().await.txt2img(params)).await, name)
}

/// Against onnxruntime on the same graphs: `tests/fixtures/onnx_filters.py`.
#[tokio::test]
#[allow(clippy::print_stderr)]
async fn an_onnx_graph_filters_pictures() {
    let (daemon, models) = start();
    let index: Json =
        serde_json::from_slice(&fs::read(graphs().join("filters.json")).expect("read")).expect("JSON");
    let all = fs::read(graphs().join("filters.png")).expect("read");
    let all = Picture::decode(&all, 1 << 24).expect("decodes").pixels;
    let names = index["pictures"].as_array().expect("names");
    for (name, wanted) in names.iter().zip(all.chunks(all.len() / names.len())) {
        let name = name.as_str().expect("a name");
        let params = if name == "begun" { plain() } else { with("onnx-filter", &[("model", name.into())]) };
        let found = decibels(&pixels(&image(&daemon, &params).await), wanted);
        eprintln!("{name}: {found:.1} dB");
        assert!(found >= LEAST_DECIBELS, "{name}: {found:.1} dB");
    }
    // The same by its path, which the picture does not tell.
    let path = models.path().join("annotators/sharper.onnx").to_str().expect("UTF-8").to_owned();
    let by_path = image(&daemon, &with("onnx-filter", &[("model", path.as_str().into())])).await;
    let by_name = image(&daemon, &with("onnx-filter", &[("model", "sharper".into())])).await;
    assert_eq!((png(&by_path), &by_path.infotext), (png(&by_name), &by_name.infotext));
    let nothing = with("onnx-filter", &[("model", "sharper".into()), ("amount", 0.into())]);
    assert_eq!(pixels(&image(&daemon, &nothing).await), pixels(&image(&daemon, &plain()).await));
}

#[tokio::test]
async fn a_wrong_graph_is_refused_as_the_request_comes() {
    let (daemon, models) = start();
    for (model, name, words) in [
        (
            "sharpr",
            ErrorName::NotFound,
            "plugins.onnx-filter/model: annotator 'sharpr' is not in the library; known: sharper",
        ),
        ("grey", ErrorName::InvalidParams, "job.plan: the graph takes no picture of (1, 3, h, w)"),
        ("unknown", ErrorName::Model, "annotator 'unknown' cannot be run as ONNX"),
    ] {
        let text = fails(&daemon, &with("onnx-filter", &[("model", model.into())]), name).await;
        assert!(text.contains(words), "{text}");
    }
    let whole = fs::read(graphs().join("sharper.onnx")).expect("read");
    for (name, bytes, words) in [
        ("short", &whole[..whole.len() / 2], "cut short"),
        ("none", &b"not a graph at all"[..], "cannot be run as ONNX"),
    ] {
        fs::write(models.path().join(format!("annotators/{name}.onnx")), bytes).expect("written");
        let text = fails(&daemon, &with("onnx-filter", &[("model", name.into())]), ErrorName::Model).await;
        assert!(text.contains(words), "{text}");
    }
    // Its neighbours draw on.
    image(&daemon, &with("onnx-filter", &[("model", "sharper".into())])).await;
}

/// `paste` lays one picture over each that was drawn, where a mask says so.
#[tokio::test]
async fn pictures_in_parameters_are_seen_told_and_drawn_with_again() {
    let (daemon, _models) = start();
    let drawn = image(&daemon, &plain()).await;
    let old = Picture::decode(png(&drawn), 1 << 24).expect("decodes");
    let (width, height) = (old.width, old.height);
    let colours: Vec<u8> = (0..width * height * 3).map(|index| (index * 7 % 256) as u8).collect();
    let left: Vec<u8> =
        (0..width * height).map(|index| if index % width < width / 2 { 255 } else { 0 }).collect();
    let raw = |pixels: &[u8], channels: u32| {
        Value::Map(vec![
            ("raw".into(), Value::Binary(pixels.to_vec())),
            ("width".into(), (width as u32).into()),
            ("height".into(), (height as u32).into()),
            ("channels".into(), channels.into()),
        ])
    };
    let request = with("paste", &[("image", raw(&colours, 3)), ("mask", raw(&left, 1))]);
    let pasted = image(&daemon, &request).await;
    let mut expected = old.pixels.clone();
    for (index, value) in expected.iter_mut().enumerate() {
        if index / 3 % width < width / 2 {
            *value = colours[index];
        }
    }
    assert_eq!(pixels(&pasted), expected);
    // What the picture tells has no pixels, and draws it again.
    let text = pasted.infotext.as_deref().expect("told");
    assert!(text.contains("\\\"blob\\\"") && text.len() < 4000, "{text}");
    let client = daemon.client().await;
    let info = within(client.image_info(ImageIn::png(png(&pasted).to_vec()))).await.expect("read");
    let again = image(&daemon, &info.request.expect("a request").into_drawing()).await;
    assert_eq!((png(&again), &again.infotext), (png(&pasted), &pasted.infotext));
    // A file by its path, grey: seen in colours. Without a mask all of it is laid over.
    let grey = Picture::from_raw(left.clone(), width as u32, height as u32, 1).expect("a picture");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("grey.png");
    fs::write(&path, grey.to_png().expect("encodes")).expect("written");
    let path = Value::Map(vec![("path".into(), path.to_str().expect("UTF-8").into())]);
    let expected: Vec<u8> = left.iter().flat_map(|value| [*value; 3]).collect();
    assert_eq!(pixels(&image(&daemon, &with("paste", &[("image", path)])).await), expected);
    assert_eq!(png(&image(&daemon, &with("paste", &[])).await), png(&drawn), "nothing to paste");
}

#[tokio::test]
async fn pictures_that_are_none_are_refused_with_their_place() {
    let (daemon, _models) = start();
    let map = |name: &str, value: Value| Value::Map(vec![(name.into(), value)]);
    let small = Picture::from_raw(vec![9; 12], 2, 2, 3).expect("a picture").to_png().expect("encodes");
    for (field, value, words) in [
        (
            "image",
            map("png", Value::Binary(b"none".to_vec())),
            "plugins.paste/image: picture: 'none…' begins no PNG",
        ),
        (
            "image",
            map("jpeg", Value::Binary(small.clone())),
            "plugins.paste/image.jpeg: is png; give it as png",
        ),
        (
            "image",
            map("pgn", Value::Binary(small.clone())),
            "plugins.paste/image: is no picture: unknown field `pgn`",
        ),
        ("image", map("path", "x.png".into()), "plugins.paste/image.path: 'x.png' must be an absolute path"),
        ("image", 5.into(), "plugins.paste/image: is no picture"),
        ("image", Value::Binary(small.clone()), "plugins.paste/image: is no picture"),
        ("mask", map("png", Value::Binary(small[..40].to_vec())), "plugins.paste/mask: "),
        ("text", Value::Binary(vec![1]), "/text: a value of bytes is not taken"),
        // What the plugin itself says of a size, before anything is drawn.
        ("image", map("png", Value::Binary(small.clone())), "plugin 'paste', job.plan: the picture is 2x2"),
    ] {
        let text = fails(&daemon, &with("paste", &[(field, value)]), ErrorName::InvalidParams).await;
        assert!(text.contains(words), "{text}");
    }
    let gone = map("blob", "0".repeat(64).into());
    let text = fails(&daemon, &with("paste", &[("image", gone)]), ErrorName::NotFound).await;
    assert!(text.contains("plugins.paste/image.blob: 0000"), "{text}");
}
