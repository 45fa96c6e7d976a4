//! Pictures are, byte for byte, those of the versions before: for each sampler, precision and set of kernels that has
//! drawn them once. What was drawn is kept in `tests/fixtures/images/hashes.json`, as SHA-256 of the pixels.
//!
//! A set of kernels that nobody has recorded yet is passed over. `LATENTD_RECORD_HASHES=1 cargo test -p latentd --test
//! e2e same_bytes` adds what this machine can draw and changes nothing that is there.

use std::collections::BTreeMap;

use latentd_client::protocol::{OutputFormat, OutputParams, Precision, Txt2ImgParams};
use sha2::{Digest, Sha256};

use crate::harness::{Daemon, Options, fixtures, small, within};

/// By kernels, precision, and what was drawn.
type Hashes = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

const KERNELS: [&str; 5] = ["portable", "avx2", "avx512", "avx512bf16", "amx"];
const SAMPLERS: [&str; 5] = ["Euler", "Euler a", "DPM++ 2M", "DDIM", "Heun"];

async fn draw(daemon: &Daemon, precision: Precision) -> BTreeMap<String, String> {
    let client = daemon.client().await;
    let base = Txt2ImgParams {
        prompt: "a (red:1.3) circle on a [blue] background".into(),
        negative_prompt: "blurry".into(),
        steps: 4,
        precision,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(11)
    };
    let mut requests: Vec<(String, Txt2ImgParams)> = SAMPLERS
        .iter()
        .map(|name| ((*name).to_owned(), Txt2ImgParams { sampler_name: (*name).into(), ..base.clone() }))
        .collect();
    // An odd size, prompts of different lengths, a batch, a network of other depths and widths.
    let long = "a red circle, ".repeat(30);
    requests.push((
        "batch of two, 72x56, long prompt".into(),
        Txt2ImgParams {
            prompt: long.into(),
            batch_size: 2,
            width: Some(72),
            height: Some(56),
            ..base.clone()
        },
    ));
    requests.push((
        "another network".into(),
        Txt2ImgParams { checkpoint: Some("tiny-sd1-ema".into()), ..base.clone() },
    ));
    let mut hashes = BTreeMap::new();
    for (name, request) in requests {
        let drawn = within(client.txt2img(&request)).await.expect("drawn");
        let mut digest = Sha256::new();
        for image in &drawn.images {
            digest.update(&image.raw.as_ref().expect("pixels").0);
        }
        let hex = digest.finalize().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        hashes.insert(name, hex);
    }
    hashes
}

#[tokio::test]
async fn pictures_are_those_of_the_versions_before() {
    let file = fixtures().join("../images/hashes.json");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|_| "{}".into());
    let mut known: Hashes = serde_json::from_str(&text).expect("hashes.json");
    let record = std::env::var_os("LATENTD_RECORD_HASHES").is_some();
    let mut compared = 0;
    for kernels in KERNELS {
        let environment = vec![("LATENTD_KERNELS".to_owned(), kernels.to_owned())];
        let daemon = Daemon::with(Options { environment, ..Options::default() });
        // One that this processor lacks is none: a lesser set draws then.
        if kernels_in_use(&daemon) != kernels {
            continue;
        }
        for (precision, name) in [(Precision::F32, "f32"), (Precision::Bf16, "bf16")] {
            let drawn = draw(&daemon, precision).await;
            match known.get(kernels).and_then(|of_kernels| of_kernels.get(name)) {
                Some(wanted) => {
                    assert_eq!(&drawn, wanted, "{kernels}, {name}");
                    compared += 1;
                }
                None if record => {
                    known.entry(kernels.to_owned()).or_default().insert(name.to_owned(), drawn);
                }
                None => (),
            }
        }
    }
    if record {
        let text = serde_json::to_string_pretty(&known).expect("JSON");
        std::fs::write(&file, text + "\n").expect("written");
    } else {
        assert!(compared >= 2, "portable kernels run everywhere and are recorded");
    }
}

/// What `latentd bench` says that a process with the daemon's environment computes with.
fn kernels_in_use(daemon: &Daemon) -> String {
    let arguments = ["bench", "--runs", "1", "--steps", "0", "--width", "64", "--height", "64", "--json"];
    let models = fixtures().display().to_string();
    let output = daemon
        .command(&arguments)
        .args(["--checkpoint", "tiny-sd1", "--models-dir", &models])
        .envs(daemon.environment().iter().cloned())
        .output()
        .expect("ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report["kernels"].as_str().expect("kernels").to_owned()
}
