//! What the tests share: a small checkpoint, and drawing with it.

use std::path::PathBuf;
use std::sync::Arc;

use latentd_models::Result;
use latentd_models::model::{Checkpoint, Component, ComponentKind, Model};
use latentd_models::nn::{Device, Precision};
use latentd_models::pipeline::{
    Components, LatentDecoder, NoStages, NoWatch, Output, Stages, Txt2Img, txt2img,
};
use latentd_models::prompt::Reading;
use latentd_models::sampling::{NoiseSource, Sampler, Schedule};

pub fn checkpoint() -> Checkpoint {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/models/Stable-diffusion/tiny-sd1.safetensors");
    Checkpoint::open(&path).expect("opens")
}

/// Text encoder, UNet, VAE.
pub fn components(checkpoint: &Checkpoint, device: &Device, precision: Precision) -> [Component; 3] {
    ComponentKind::ALL.map(|kind| checkpoint.load(kind, device, precision, &|| false).expect("loads"))
}

pub fn model(device: &Device, precision: Precision) -> Model {
    Model::load(&checkpoint(), device, precision).expect("loads")
}

pub fn request() -> Txt2Img {
    Txt2Img {
        prompt: "a red circle on a blue background".into(),
        negative_prompt: "blurry".into(),
        reading: Reading::default(),
        embeddings: Arc::default(),
        seed: 11,
        steps: 3,
        cfg_scale: 7.0,
        width: 72,
        height: 64,
        sampler: Sampler::from_name("Euler a").expect("a sampler"),
        schedule: Schedule::Automatic,
        batch_size: 1,
        n_iter: 1,
        clip_skip: 1,
        rng: NoiseSource::Nv,
        pad_cond_uncond: false,
        pad_cond_uncond_v0: false,
        decoder: LatentDecoder::Vae,
        ..Txt2Img::default()
    }
}

pub fn draw(model: &Model, request: &Txt2Img) -> Result<Vec<Output>> {
    draw_with(model, &mut &*model, request, &mut NoStages)
}

pub fn draw_with(
    model: &Model,
    components: &mut dyn Components,
    request: &Txt2Img,
    stages: &mut dyn Stages,
) -> Result<Vec<Output>> {
    txt2img(&model.facts(), components, request, &mut NoWatch, stages)
}
