//! What plugins do within the UNet, through the socket: the example freeu against diffusers on the same weights
//! (`tests/fixtures/freeu_reference.py` made it), and a plugin in C that tells what goes by.

use std::fs;

use latentd_client::protocol::{
    ErrorName, OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams, Txt2ImgResult,
};
use latentd_models::image::Picture;
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, fixtures, refused, small, within};
use crate::plugin_library::{build, build_crate, install};

/// A mean square error of 0.065: one value of 16 may be off by one. Values are cut off and not rounded, so the last bits of f32 turn
/// some of them; a formula that is another one shows at 40 and less, as the reference's script sees to.
pub(crate) const LEAST_DECIBELS: f64 = 60.0;

/// With the example in C, which maps all that it works on, and the one in Rust, whose host computes.
fn freeu() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "freeu.so", &build("plugin-api/examples/freeu/freeu.c", &["-std=gnu99"]));
    install(&daemon, "libfreeu_rust.so", &build_crate("plugin-api/examples/freeu-rust"));
    daemon
}

pub(crate) fn with(plugin: &str, params: &Json, request: Txt2ImgParams) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [(plugin.to_owned(), params)].into(), ..request }
}

pub(crate) fn plain(seed: i64) -> Txt2ImgParams {
    Txt2ImgParams {
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(seed)
    }
}

async fn drawn(daemon: &Daemon, params: &Txt2ImgParams) -> Txt2ImgResult {
    within(daemon.client().await.txt2img(params)).await.expect("drawn")
}

/// Pixels of all pictures of a request.
pub(crate) async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
    let drawn = drawn(daemon, params).await;
    assert_eq!(drawn.notices, Vec::<String>::new());
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

/// A row's request, without its plugin.
pub(crate) fn request(row: &Json) -> Txt2ImgParams {
    let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key}")).to_owned();
    let number = |key: &str| row[key].as_u64().and_then(|number| u32::try_from(number).ok());
    Txt2ImgParams {
        prompt: text("prompt").into(),
        negative_prompt: text("negative_prompt").into(),
        checkpoint: Some(text("model")),
        sampler_name: text("sampler"),
        steps: number("steps").expect("steps"),
        cfg_scale: row["cfg_scale"].as_f64().expect("a scale"),
        width: number("width"),
        height: number("height"),
        batch_size: number("batch_size").expect("a size"),
        ..plain(row["seed"].as_i64().expect("a seed"))
    }
}

pub(crate) fn decibels(found: &[u8], wanted: &[u8]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let squares: f64 = found.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) / (squares / found.len() as f64).max(1e-9)).log10()
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "how near they are, with --nocapture")]
async fn pictures_are_those_of_diffusers() {
    let folder = fixtures().join("../plugins");
    let index: Json =
        serde_json::from_slice(&fs::read(folder.join("freeu.json")).expect("read")).expect("JSON");
    let png = fs::read(folder.join("freeu.png")).expect("read");
    let all = Picture::decode(&png, 1 << 20).expect("decodes").pixels;
    let (mut rest, mut worst) = (&all[..], (f64::INFINITY, String::new()));
    let daemon = freeu();
    for row in index["rows"].as_array().expect("rows") {
        let in_c = pixels(&daemon, &with("freeu", &row["params"], request(row))).await;
        let in_rust = pixels(&daemon, &with("freeu-rust", &row["params"], request(row))).await;
        assert!(in_c == in_rust, "the same arithmetic in another language makes other bytes: {row}");
        for found in in_c {
            let wanted;
            (wanted, rest) = rest.split_at(found.len());
            let reached = decibels(&found, wanted);
            if reached < worst.0 {
                worst = (reached, row.to_string());
            }
        }
    }
    assert!(rest.is_empty(), "pictures that no row tells of");
    eprintln!("the least is {:.1} dB: {}", worst.0, worst.1);
    assert!(worst.0 >= LEAST_DECIBELS, "{:.1} dB: {}", worst.0, worst.1);
}

#[tokio::test]
async fn freeu_that_changes_nothing_changes_no_byte() {
    let daemon = freeu();
    let expected = pixels(&daemon, &plain(5)).await;
    let ones = |more: Json| {
        let mut params = json!({"b1": 1, "b2": 1, "s1": 1, "s2": 1});
        params.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        params
    };
    for (params, is_same) in [
        (ones(json!({})), true),
        (json!({"start": 0.5, "end": 0.5}), true),
        (json!({"start": 0, "end": 0}), true),
        (ones(json!({"b2": 1.01})), false),
        (ones(json!({"s1": 0.9})), false),
        (json!({"start": 0.5}), false),
    ] {
        let found = pixels(&daemon, &with("freeu", &params, plain(5))).await;
        assert_eq!(found == expected, is_same, "{params}");
    }
    // In a batch as alone.
    let batch =
        pixels(&daemon, &with("freeu", &json!({}), Txt2ImgParams { batch_size: 3, ..plain(5) })).await;
    for (index, found) in batch.iter().enumerate() {
        let alone = pixels(&daemon, &with("freeu", &json!({}), plain(5 + index as i64))).await;
        assert_eq!(&alone[0], found, "{index}");
    }
}

fn blocks() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "blocks.so", &build("tests/fixtures/plugins/blocks.c", &["-std=gnu99"]));
    daemon
}

#[tokio::test]
async fn a_plugin_is_told_what_goes_by_where_it_wants_to_be() {
    let daemon = blocks();
    let two = Txt2ImgParams { steps: 2, ..plain(3) };
    let before = drawn(&daemon, &two).await;
    let told = async |params: Json, request: &Txt2ImgParams| {
        let drawn = drawn(&daemon, &with("blocks", &params, request.clone())).await;
        (
            drawn.notices,
            drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect::<Vec<_>>(),
        )
    };
    let notice = |step: u32, place: &str, rows: &str| {
        format!("plugin 'blocks': step {step}: {place}, group 0 of 1:{rows}")
    };
    // (32, 64, 64) channels, one residual block a level: `tests/fixtures/reference/checkpoints.py`.
    let input = [32, 32, 32, 64, 64, 64];
    let output = [(64, 64), (64, 64), (64, 64), (64, 32), (64, 32), (32, 32)];
    let mut places = vec![];
    for (index, channels) in input.into_iter().enumerate() {
        places.extend([format!("1.{index} {channels}+0"), format!("2.{index} {channels}+0")]);
    }
    places.push("3.0 64+0".into());
    places.extend(output.iter().enumerate().map(|(index, (h, skip))| format!("4.{index} {h}+{skip}")));
    let all: Vec<String> =
        (0..2).flat_map(|step| places.iter().map(move |place| notice(step, place, " 0/0 0/1"))).collect();
    let (notices, pictures) = told(json!({}), &two).await;
    assert_eq!(notices, all);
    assert_eq!(
        pictures[0],
        before.images[0].raw.as_ref().expect("pixels").0,
        "who only looks changes nothing"
    );
    // Where and when it says.
    let (notices, _) = told(json!({"part": 4}), &two).await;
    assert_eq!(notices, all.iter().filter(|line| line.contains(": 4.")).cloned().collect::<Vec<_>>());
    let (notices, _) = told(json!({"part": 3, "index": 0, "from": 0.5, "until": 1}), &two).await;
    assert_eq!(notices, [notice(1, "3.0 64+0", " 0/0 0/1")]);
    for nowhere in [json!({"part": 3, "index": 1}), json!({"part": 4, "index": 6}), json!({"part": 77})] {
        assert_eq!(told(nowhere, &two).await.0, Vec::<String>::new());
    }
    let (notices, _) = told(json!({"part": 3}), &Txt2ImgParams { batch_size: 2, steps: 1, ..plain(3) }).await;
    assert_eq!(notices, [notice(0, "3.0 64+0", " 0/0 1/0 0/1 1/1")]);
}

#[tokio::test]
async fn what_a_plugin_puts_into_the_network_is_looked_at() {
    let daemon = blocks();
    let expected = pixels(&daemon, &plain(3)).await;
    let asked = |act: &str, part: u32| with("blocks", &json!({"act": act, "part": part}), plain(3));
    assert_eq!(pixels(&daemon, &asked("same", 0)).await, expected);
    let doubled = pixels(&daemon, &asked("double", 3)).await;
    assert_ne!(doubled, expected);
    assert_ne!(pixels(&daemon, &asked("double", 4)).await, doubled);
    for (act, part, words) in [
        ("shape", 3, "slot 0: a tensor"),
        ("nan", 1, "number 0 of"),
        ("slot", 4, "slot 2 is none of its slots"),
        ("rank", 3, "slot 1 is none of its slots"),
    ] {
        let failed = within(daemon.client().await.txt2img(&asked(act, part))).await;
        let text = refused(failed, ErrorName::Plugin);
        assert!(
            text.contains("plugin 'blocks', unet.block/draft-1") && text.contains(words),
            "{act}: {text}"
        );
    }
    for (params, words) in [
        (json!({"part": 4, "stride": 4}), "1 sites of 4 bytes each"),
        (json!({"part": 4, "act": "stage"}), "image.post/draft-1 has no sites"),
    ] {
        let failed = within(daemon.client().await.txt2img(&with("blocks", &params, plain(3)))).await;
        let text = refused(failed, ErrorName::Plugin);
        assert!(text.contains("plugin 'blocks', job.plan") && text.contains(words), "{text}");
    }
    assert_eq!(pixels(&daemon, &plain(3)).await, expected, "and the daemon goes on");
}
