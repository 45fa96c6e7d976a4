//! Networks of library files that plugins run in the host, through the socket: TAESD, whose numbers are those of the host's own.

use std::sync::OnceLock;

use latentd_client::protocol::{
    ErrorName, OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams, VaeDecodeMethod,
};
use rmpv::Value;

use crate::harness::{Daemon, Options, refused, small, within};
use crate::plugin_library::{build_crate, install};
use crate::vae::{daemon, models, taesd, write};

fn networks() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| build_crate("tests/fixtures/plugins/networks"))
}

fn plain(batch_size: u32, precision: Precision) -> Txt2ImgParams {
    Txt2ImgParams {
        batch_size,
        precision,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(3)
    }
}

fn with(request: Txt2ImgParams, params: &[(&str, Value)]) -> Txt2ImgParams {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Txt2ImgParams { plugins: [("networks".to_owned(), PluginParams(params))].into(), ..request }
}

async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

/// A library with tiny-sd1, a TAESD, and a file of its kind that is none.
fn start() -> (Daemon, tempfile::TempDir) {
    let folder = models();
    write(&folder.path().join("VAE-approx/taesd_decoder.safetensors"), &taesd());
    let zeros = |name: &str, shape: [usize; 4]| {
        let bytes = vec![0; 4 * shape.iter().product::<usize>()];
        (name.to_owned(), "F32".into(), serde_json::json!(shape), bytes)
    };
    let other = vec![zeros("conv1.weight", [8, 4, 7, 7]), zeros("conv8.weight", [3, 8, 3, 3])];
    write(&folder.path().join("VAE-approx/model.safetensors"), &other);
    let daemon = daemon(folder.path());
    install(&daemon, "networks.so", networks());
    (daemon, folder)
}

#[tokio::test]
async fn a_plugins_taesd_gives_the_numbers_of_the_hosts_own() {
    let (daemon, _models) = start();
    let name = ("model", Value::from("taesd_decoder"));
    for precision in [Precision::F32, Precision::Bf16] {
        for batch_size in [1, 2] {
            let request = plain(batch_size, precision);
            let by_taesd = Txt2ImgParams { sd_vae_decode_method: VaeDecodeMethod::Taesd, ..request.clone() };
            let expected = pixels(&daemon, &by_taesd).await;
            let found = pixels(&daemon, &with(request.clone(), std::slice::from_ref(&name))).await;
            assert!(found == expected, "{precision:?}, {batch_size} at once");
            assert!(found != pixels(&daemon, &request).await, "the VAE's are others");
        }
    }
}

/// Told by the memory that is left once it is run so often; within the daemon, for a process of its own is counted by what it grows to.
#[tokio::test]
async fn numbers_of_a_plugins_own_leave_nothing_behind() {
    let folder = models();
    write(&folder.path().join("VAE-approx/taesd_decoder.safetensors"), &taesd());
    let config = format!("memory_bytes = {}\n[plugins.networks]\nisolation = \"inline\"\n", 256 << 20);
    let models = Some(folder.path().to_owned());
    let daemon = Daemon::with(Options { models, config, ..Options::default() });
    install(&daemon, "networks.so", networks());
    let client = daemon.client().await;
    let mut left = vec![];
    // The first of all loads what the others find.
    for times in [1, 1, 20] {
        let params = [("model", Value::from("taesd_decoder")), ("times", times.into())];
        let drawn = within(client.txt2img(&with(plain(1, Precision::F32), &params))).await.expect("drawn");
        let told = drawn.notices.iter().find(|notice| notice.contains("parts are left"));
        left.push(told.unwrap_or_else(|| panic!("{:?}", drawn.notices)).clone());
    }
    assert_eq!(left[1], left[2]);
}

#[tokio::test]
async fn what_is_no_network_or_has_no_room_is_refused_as_the_request_comes() {
    let (daemon, _models) = start();
    for (params, name, words) in [
        (vec![("model", "model".into())], ErrorName::Model, "taesd 'model' is no network that this version"),
        (
            vec![("model", "taesd".into())],
            ErrorName::NotFound,
            "plugins.networks/model: taesd 'taesd' is not",
        ),
        (
            vec![("model", "taesd_decoder".into()), ("entry", "hint".into())],
            ErrorName::InvalidParams,
            "taesd has no part 'hint'; it has ''",
        ),
        (vec![("model", "taesd_decoder".into()), ("side", 100_000.into())], ErrorName::Memory, "needs about"),
    ] {
        let request = with(plain(1, Precision::F32), &params);
        let text = refused(within(daemon.client().await.txt2img(&request)).await, name);
        assert!(text.contains(words), "{text}");
    }
}
