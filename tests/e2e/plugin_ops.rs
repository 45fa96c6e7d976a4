//! Tensors that the host computes for a plugin, through the socket: a plugin in C whose noise is the host's own, whose negatives
//! are made of a picture's bytes and back, and whose wrong programs are told by their number. What each operation makes is
//! `tests/tensor_ops`' concern.

use latentd_client::protocol::{
    ErrorName, OutputFormat, OutputParams, PluginParams, Precision, Rng, Txt2ImgParams,
};
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, refused, small, within};
use crate::plugin_library::{build, install};

fn daemon() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "ops.so", &build("tests/fixtures/plugins/ops.c", &["-std=gnu99"]));
    daemon
}

fn plain(seed: i64) -> Txt2ImgParams {
    Txt2ImgParams {
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(seed)
    }
}

fn asked(params: &Json, request: Txt2ImgParams) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [("ops".to_owned(), params)].into(), ..request }
}

async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

#[tokio::test]
async fn noise_is_what_the_job_itself_draws() {
    let daemon = daemon();
    for rng in [Rng::Nv, Rng::Cpu] {
        for batch_size in [1, 3] {
            let request = Txt2ImgParams { rng, batch_size, ..plain(77) };
            let expected = pixels(&daemon, &request).await;
            let own = pixels(&daemon, &asked(&json!({"act": "noise"}), request.clone())).await;
            assert_eq!(own, expected, "{rng:?}");
            let other = asked(&json!({"act": "noise", "stream": 1}), request.clone());
            let others = pixels(&daemon, &other).await;
            assert!(others.iter().zip(&expected).all(|(a, b)| a != b), "another stream is other noise");
            assert_eq!(pixels(&daemon, &other).await, others, "and always the same");
            let third = pixels(&daemon, &asked(&json!({"act": "noise", "stream": 2}), request)).await;
            assert!(third.iter().zip(&others).all(|(a, b)| a != b), "a third is a third");
        }
    }
}

#[tokio::test]
async fn pictures_become_floats_and_back() {
    let daemon = daemon();
    let request = Txt2ImgParams { batch_size: 2, ..plain(5) };
    let expected = pixels(&daemon, &request).await;
    let inverted = pixels(&daemon, &asked(&json!({"act": "invert"}), request)).await;
    for (inverted, expected) in inverted.iter().zip(&expected) {
        assert!(inverted.iter().zip(expected).all(|(a, b)| *a == 255 - *b));
    }
}

#[tokio::test]
async fn results_are_handles_as_any_other() {
    let daemon = daemon();
    let expected = pixels(&daemon, &plain(3)).await;
    assert_eq!(pixels(&daemon, &asked(&json!({"act": "handles"}), plain(3))).await, expected);
}

#[tokio::test]
async fn a_wrong_program_is_told_by_its_operation_and_costs_one_job() {
    let daemon = daemon();
    let expected = pixels(&daemon, &plain(3)).await;
    for (act, name, words) in [
        ("later", ErrorName::InvalidParams, "op 1: no operation before it has the number 1"),
        ("code", ErrorName::InvalidParams, "op 1: this latentd has no operation 999"),
        ("dead", ErrorName::Plugin, "op 1: 77 is no handle"),
        ("no-b", ErrorName::InvalidParams, "op 1: it works on two, and b is 0"),
        ("cast", ErrorName::InvalidParams, "op 1: no tensor here is of code 2, 16 bits"),
        ("reduce", ErrorName::InvalidParams, "op 1: n[1] is 99, no reduction"),
        ("negative", ErrorName::InvalidParams, "op 1: n[0] is -1; numbers from 0 are meant"),
        ("take", ErrorName::InvalidParams, "op 1: axis 0 of [1, 4, 8, 8] has nothing from 0 until"),
        ("huge", ErrorName::Memory, "bytes"),
        ("uncountable", ErrorName::InvalidParams, "op 1: too large a border"),
        ("stride", ErrorName::Plugin, "2 operations of 0 bytes each"),
        ("many", ErrorName::InvalidParams, "a program of 5000 operations; 4096 are possible"),
        ("null", ErrorName::Plugin, "2 operations of"),
        ("no-results", ErrorName::Plugin, "results is null"),
    ] {
        let failed = within(daemon.client().await.txt2img(&asked(&json!({"act": act}), plain(3)))).await;
        let text = refused(failed, name);
        assert!(text.contains("plugin 'ops', noise.init/draft-1: ") && text.contains(words), "{act}: {text}");
    }
    assert_eq!(pixels(&daemon, &plain(3)).await, expected, "and the daemon goes on");
}
