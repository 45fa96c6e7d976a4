//! Pictures that the example plugins change, through the socket, against a reference: torch's networks, k-diffusion's samplers, the
//! rescaling of diffusers and the thresholding of sd-dynamic-thresholding, on the same weights. `tests/fixtures/plugins_reference.py`
//! made it.

use std::fs;

use latentd_client::protocol::{OutputFormat, OutputParams, Precision, Txt2ImgParams};
use serde_json::json;

use crate::harness::{Daemon, Options, fixtures, small};
use crate::plugin_library::{build, install};
use crate::reference::{pixels, reaches, with};

const EXAMPLES: [&str; 2] = ["cfg-rescale", "dynamic-thresholding"];

/// With the examples, tiny-sd1, and the same weights taken for a model that predicts v.
fn start() -> (Daemon, tempfile::TempDir) {
    let models = tempfile::tempdir().expect("a folder");
    let folder = models.path().join("Stable-diffusion");
    fs::create_dir_all(&folder).expect("made");
    for name in ["tiny-sd1", "tiny-v"] {
        let to = folder.join(name).with_extension("safetensors");
        fs::copy(fixtures().join("Stable-diffusion/tiny-sd1.safetensors"), to).expect("copied");
    }
    let config = "model:\n  params:\n    parameterization: \"v\"\n";
    fs::write(folder.join("tiny-v.yaml"), config).expect("written");
    let daemon = Daemon::with(Options { models: Some(models.path().to_owned()), ..Options::default() });
    for name in EXAMPLES {
        let library = build(&format!("plugin-api/examples/{name}/{name}.cpp"), &[]);
        install(&daemon, &format!("{name}.so"), &library);
    }
    (daemon, models)
}

#[tokio::test]
async fn pictures_are_those_of_the_formulas() {
    let (daemon, _models) = start();
    reaches(&daemon, "pictures").await;
}

/// None of it taken, or nothing steered away from: the bytes of the picture without.
#[tokio::test]
async fn settings_that_change_nothing_change_no_byte() {
    let (daemon, _models) = start();
    for (sampler, model) in [("Euler", "tiny-sd1"), ("DPM++ 2M", "tiny-v"), ("DDIM", "tiny-sd1")] {
        for cfg_scale in [1.0, 15.0] {
            let plain = Txt2ImgParams {
                checkpoint: Some(model.into()),
                sampler_name: sampler.into(),
                steps: 4,
                cfg_scale,
                precision: Precision::F32,
                output: OutputParams { format: OutputFormat::Raw, dir: None },
                ..small(5)
            };
            let expected = pixels(&daemon, &plain).await;
            for (plugin, nothing, something) in [
                (EXAMPLES[0], json!({"phi": 0}), json!({"phi": 1})),
                (EXAMPLES[0], json!({"phi": 0, "space": "sample"}), json!({"phi": 1, "space": "sample"})),
                (EXAMPLES[1], json!({"interpolate_phi": 0}), json!({"mimic_scale": 4})),
            ] {
                let drawn = pixels(&daemon, &with(plugin, &nothing, plain.clone())).await;
                assert!(drawn == expected, "{plugin} {nothing} {sampler} at {cfg_scale}");
                let drawn = pixels(&daemon, &with(plugin, &something, plain.clone())).await;
                assert_eq!(
                    drawn == expected,
                    cfg_scale == 1.0,
                    "{plugin} {something} {sampler} at {cfg_scale}"
                );
            }
        }
    }
}
