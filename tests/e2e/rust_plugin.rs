//! A plugin in Rust that takes part in each stage, through the safe wrapper: built outside of the workspace, as a stranger's is.

use std::path::Path;

use latentd_client::protocol::{ErrorName, PluginParams, Precision, Txt2ImgParams};
use latentd_models::image::Picture;

use crate::harness::{Daemon, refused, small, within};
use crate::plugin_library::{build_rust, install};

/// Builds it; gives the library's bytes.
fn built() -> Vec<u8> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let folder = tempfile::tempdir().expect("a folder");
    let sources = repository.join("tests/fixtures/plugins");
    for file in ["every_stage.rs", "every_stage.toml"] {
        std::fs::copy(sources.join(file), folder.path().join(file)).expect("copied");
    }
    let api = repository.join("plugin-api");
    let manifest = format!(
        "[package]\nname = \"every-stage\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\
         path = \"every_stage.rs\"\n\n[dependencies]\nlatentd-plugin-api = {{ path = '{}' }}\n\
         serde = {{ version = \"1\", features = [\"derive\"] }}\n\n[workspace]\n",
        api.display()
    );
    std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("written");
    build_rust(folder.path())
}

fn request(panic: &str) -> Txt2ImgParams {
    let params = PluginParams([("panic".to_owned(), panic.into())].into());
    let plugins = [("every-stage".to_owned(), params)].into();
    Txt2ImgParams { plugins, ..plain() }
}

fn plain() -> Txt2ImgParams {
    Txt2ImgParams { precision: Precision::F32, batch_size: 2, prompt: "a circle".into(), ..small(3) }
}

#[tokio::test]
async fn each_stage_is_had_through_the_wrapper_and_a_panic_costs_one_job() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let pixels = async |params: &Txt2ImgParams| -> Vec<Picture> {
        let drawn = within(client.txt2img(params)).await.expect("drawn");
        let png = drawn.images.iter().map(|image| &image.png.as_ref().expect("a PNG").0);
        // It gives them opacity, of which there is all.
        png.map(|png| Picture::decode(png, 1 << 24).expect("decodes").into_rgb().into()).collect()
    };
    let expected = pixels(&plain()).await;
    install(&daemon, "libevery_stage.so", &built());
    assert_eq!(pixels(&request("")).await, expected);
    for stage in [
        "request.rewrite/draft-1",
        "create",
        "conditioning/draft-1",
        "pass.begin/draft-1",
        "noise.init/draft-1",
        "denoise.before/draft-1",
        "control.residuals/draft-1",
        "unet.block/draft-1",
        "denoise.combine/draft-1",
        "latent.final/draft-1",
        "image.post/draft-1",
        "batch.post/draft-1",
    ] {
        let text = refused(within(client.txt2img(&request(stage))).await, ErrorName::Plugin);
        assert_eq!(text, format!("plugin 'every-stage', {stage}: it panicked: as asked"));
        assert_eq!(pixels(&request("")).await, expected, "{stage}");
    }
}
