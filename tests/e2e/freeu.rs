//! What plugins do within the UNet, through the socket: the example freeu against diffusers on the same weights
//! (`tests/fixtures/freeu_reference.py` made it), and a plugin in C that tells what goes by.

use latentd_client::protocol::{
    ErrorName, OutputFormat, OutputParams, Precision, Txt2ImgParams, Txt2ImgResult,
};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, refused, small, within};
use crate::plugin_library::{build, build_crate, install};
use crate::reference::{pixels, reaches, request, rows, with};

/// With the example in C, which maps all that it works on, and the one in Rust, whose host computes.
fn freeu() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "freeu.so", &build("plugin-api/examples/freeu/freeu.c", &["-std=gnu99"]));
    install(&daemon, "libfreeu_rust.so", &build_crate("plugin-api/examples/freeu-rust"));
    daemon
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

#[tokio::test]
async fn pictures_are_those_of_diffusers() {
    let daemon = freeu();
    reaches(&daemon, "freeu").await;
    for row in rows("freeu").0 {
        let drawn = async |plugin| pixels(&daemon, &with(plugin, &row["params"], request(&row))).await;
        assert!(
            drawn("freeu").await == drawn("freeu-rust").await,
            "another language makes other bytes: {row}"
        );
    }
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
    // What shorter elements of a list do not know is zero.
    let (notices, _) = told(json!({"part": 4, "index": 5, "stride": 4}), &two).await;
    assert_eq!(notices, [notice(0, "4.0 64+64", " 0/0 0/1"), notice(1, "4.0 64+64", " 0/0 0/1")]);
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
        (json!({"part": 4, "stride": 0}), "1 sites of 0 bytes each"),
        (json!({"part": 4, "act": "stage"}), "image.post/draft-1 has no sites"),
    ] {
        let failed = within(daemon.client().await.txt2img(&with("blocks", &params, plain(3)))).await;
        let text = refused(failed, ErrorName::Plugin);
        assert!(text.contains("plugin 'blocks', job.plan") && text.contains(words), "{text}");
    }
    assert_eq!(pixels(&daemon, &plain(3)).await, expected, "and the daemon goes on");
}
