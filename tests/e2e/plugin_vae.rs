//! The VAE of the pass for plugins, through the socket: a plugin in C that asks it.

use latentd_client::protocol::{
    ErrorName, OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams,
};

use crate::harness::{Daemon, refused, small, within};
use crate::plugin_library::{build, install};

fn coder() -> Daemon {
    let daemon = Daemon::start();
    install(&daemon, "coder.so", &build("tests/fixtures/plugins/coder.c", &["-std=gnu99"]));
    daemon
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams {
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(3)
    }
}

fn with(act: &str, request: Txt2ImgParams) -> Txt2ImgParams {
    let params = PluginParams([("act".to_owned(), act.into())].into());
    Txt2ImgParams { plugins: [("coder".to_owned(), params)].into(), ..request }
}

async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    assert_eq!(drawn.notices, Vec::<String>::new());
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

#[tokio::test]
async fn latents_are_decoded_as_the_requests_own_are() {
    let daemon = coder();
    let hires = Txt2ImgParams { enable_hr: true, ..plain() };
    let tiled = Txt2ImgParams { tiling: true, ..plain() };
    for request in [plain(), hires, tiled, Txt2ImgParams { batch_size: 1, n_iter: 2, ..plain() }] {
        let expected = pixels(&daemon, &request).await;
        for act in ["check", "misuse"] {
            assert!(pixels(&daemon, &with(act, request.clone())).await == expected, "{act}");
        }
    }
    // Of each of a batch what is of it alone.
    let batch = Txt2ImgParams { batch_size: 2, ..plain() };
    let expected = pixels(&daemon, &batch).await;
    let blended = pixels(&daemon, &with("blend", batch.clone())).await;
    let alone = pixels(&daemon, &with("blend", Txt2ImgParams { seed: 4, ..plain() })).await;
    assert!(blended != expected && blended[1] == alone[0]);
    for (act, words) in [
        (
            "elsewhere",
            "latent.final/draft-1: there is no VAE at hand in this function; in image.post/draft-1",
        ),
        ("large", "image.post/draft-1: a picture of 64 × 72 pixels; memory is there for the 4096"),
    ] {
        let failed = within(daemon.client().await.txt2img(&with(act, plain()))).await;
        let name = if act == "large" { ErrorName::InvalidParams } else { ErrorName::Unsupported };
        let text = refused(failed, name);
        assert!(text.contains(words), "{text}");
    }
    assert!(pixels(&daemon, &batch).await == expected, "and the daemon goes on");
}
