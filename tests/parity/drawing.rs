//! Samplers step by step, and whole pictures, against k-diffusion and A1111's pipeline over diffusers' networks.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::image::{Picture, RgbImage, tensor_to_image};
use latentd_models::model::Model;
use latentd_models::nn::{Precision, Run};
use latentd_models::pipeline::{
    Components, DenoiseBefore, DenoiseCombine, Handles, LatentDecoder, LatentFinal, NoStages, NoWatch,
    Output, Stages, Txt2Img, Wants,
};
use latentd_models::prompt::Reading;
use latentd_models::sampling::{NoiseSource, Sampler, Schedule};
use serde_json::Value;

use crate::golden::{Golden, checkpoint, fixture, relative_error, values};

fn model() -> Model {
    Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens")
}

/// Collects what the model was asked, the guided predictions, and the last latents.
#[derive(Default)]
pub struct Trace {
    pub states: Vec<Tensor>,
    pub denoised: Vec<Tensor>,
    pub sigmas: Vec<f64>,
    pub timesteps: Vec<f32>,
    pub latents: Vec<Tensor>,
}

impl Stages for Trace {
    fn wants(&self) -> Wants {
        Wants { denoise_before: true, denoise_combine: true, latent_final: true, ..Wants::default() }
    }

    fn denoise_before(&mut self, stage: &DenoiseBefore, tensors: &mut Handles) -> latentd_models::Result<()> {
        self.states.push(tensors.read(stage.latents)?.clone());
        Ok(())
    }

    fn denoise_combine(
        &mut self,
        stage: &DenoiseCombine,
        tensors: &mut Handles,
    ) -> latentd_models::Result<()> {
        self.denoised.push(tensors.read(stage.guided)?.clone());
        self.sigmas.push(stage.evaluation.sigma);
        self.timesteps.push(stage.evaluation.timestep);
        Ok(())
    }

    fn latent_final(&mut self, stage: &LatentFinal, tensors: &mut Handles) -> latentd_models::Result<()> {
        self.latents.push(tensors.read(stage.latents)?.clone());
        Ok(())
    }
}

/// Draws with a model that is in memory.
pub fn txt2img(
    model: &Model,
    request: &Txt2Img,
    stages: &mut dyn Stages,
) -> latentd_models::Result<Vec<Output>> {
    latentd_models::pipeline::txt2img(&model.facts(), &mut &*model, request, &mut NoWatch, stages)
}

/// The sampler of this name.
pub fn sampler(name: &str) -> Sampler {
    Sampler::from_name(name).expect("a sampler")
}

/// The prediction of every model call, and the end. Guidance at 7 amplifies each call's 1e-6 about tenfold, and
/// steps carry it on: 1e-4 after 11 calls.
fn takes_the_path(golden: &Golden, model: &Model, sampler: Sampler, name: &str) {
    let request = Txt2Img {
        prompt: "a red circle".into(),
        negative_prompt: "blurry".into(),
        reading: Reading::default(),
        embeddings: Arc::default(),
        seed: 42,
        steps: 6,
        cfg_scale: 7.0,
        width: 64,
        height: 64,
        sampler,
        schedule: Schedule::Automatic,
        batch_size: 1,
        n_iter: 1,
        clip_skip: 1,
        rng: NoiseSource::Nv,
        pad_cond_uncond: false,
        pad_cond_uncond_v0: false,
        decoder: LatentDecoder::Vae,
        ..Txt2Img::default()
    };
    let mut trace = Trace::default();
    txt2img(model, &request, &mut trace).expect("draws");
    let part = if sampler.name == "DDIM" { "x0" } else { "call_denoised" };
    let wanted = golden.get(&format!("{name}.{part}"));
    assert_eq!(trace.denoised.len(), wanted.dims()[0], "{name}: model calls");
    for (call, denoised) in trace.denoised.iter().enumerate() {
        let wanted = values(&wanted.get(call).expect("call"));
        let error = relative_error(&values(denoised), &wanted);
        assert!(error < 1e-4, "{name}, call {call}: {error:.2e}");
    }
    let x = golden.get(&format!("{name}.x"));
    let wanted = values(&x.get(x.dims()[0] - 1).expect("last"));
    let error = relative_error(&values(&trace.latents[0]), &wanted);
    println!("{name}: latents {error:.2e}");
    assert!(error < 1e-4, "{name}: latents {error:.2e}");
}

#[test]
fn samplers_take_the_references_path() {
    let (golden, model) = (Golden::open("trajectory"), model());
    for (sampler, name) in [
        ("Euler", "euler"),
        ("Euler a", "euler_a"),
        ("DPM++ 2M", "dpmpp_2m"),
        ("Heun", "heun"),
        ("DDIM", "ddim"),
    ] {
        takes_the_path(&golden, &model, self::sampler(sampler), name);
    }
}

/// The same weights, taken for a model that predicts v because the configuration beside them says so.
#[test]
fn a_model_that_predicts_v_takes_its_references_path() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("v.safetensors");
    std::fs::copy(checkpoint("tiny-sd1"), &path).expect("copied");
    std::fs::write(path.with_extension("yaml"), "model:\n  params:\n    parameterization: \"v\"\n")
        .expect("written");
    let (golden, model) = (Golden::open("velocity"), Model::open(&path, Precision::F32).expect("opens"));
    for (sampler, name) in [("Euler a", "euler_a"), ("DPM++ 2M", "dpmpp_2m"), ("DDIM", "ddim")] {
        takes_the_path(&golden, &model, self::sampler(sampler), name);
    }
}

pub fn psnr(found: &RgbImage, wanted: &RgbImage) -> f64 {
    assert_eq!((found.width, found.height), (wanted.width, wanted.height));
    let squares =
        found.pixels.iter().zip(&wanted.pixels).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    10.0 * (255f64.powi(2) / (squares.sum::<f64>() / found.pixels.len() as f64).max(1e-10)).log10()
}

/// An entry's request.
pub fn request(entry: &Value) -> Txt2Img {
    let text = |key: &str| entry[key].as_str().unwrap_or_else(|| panic!("{key}")).to_owned();
    let number = |key: &str| entry[key].as_u64().unwrap_or_else(|| panic!("{key}"));
    Txt2Img {
        prompt: text("prompt").into(),
        negative_prompt: text("negative_prompt").into(),
        reading: Reading::default(),
        embeddings: Arc::default(),
        seed: number("seed"),
        steps: number("steps") as usize,
        cfg_scale: entry["cfg_scale"].as_f64().expect("cfg_scale"),
        width: number("width") as usize,
        height: number("height") as usize,
        sampler: Sampler::from_name(&text("sampler")).expect("sampler"),
        schedule: Schedule::from_name(&text("schedule")).expect("schedule"),
        batch_size: number("batch_size") as usize,
        n_iter: number("n_iter") as usize,
        clip_skip: number("clip_skip") as usize,
        rng: NoiseSource::from_name(&text("rng")).expect("rng"),
        pad_cond_uncond: entry["pad_conds"].as_bool().expect("pad_conds"),
        pad_cond_uncond_v0: false,
        decoder: LatentDecoder::Vae,
        ..Txt2Img::default()
    }
}

/// Fails unless an entry's one picture of `adapters/pictures.json` has latents within 1e-3 and pixels over 50 dB of the
/// reference's.
pub fn is_the_references(model: &Model, components: &mut dyn Components, request: &Txt2Img, entry: &Value) {
    let text = |key: &str| entry[key].as_str().unwrap_or_else(|| panic!("{key}"));
    let golden = Golden::read(&fixture("adapters/pictures.safetensors"));
    let mut trace = Trace::default();
    let outputs =
        latentd_models::pipeline::txt2img(&model.facts(), components, request, &mut NoWatch, &mut trace);
    let output = outputs.expect("draws").remove(0);
    let error = relative_error(&values(&trace.latents[0]), &values(golden.get(text("latents"))));
    assert!(error < 1e-3, "{}: latents {error:.2e}", text("name"));
    let png = std::fs::read(fixture("adapters").join(text("file"))).expect("png");
    let decibels = psnr(&output.image, &Picture::decode(&png, 1 << 20).expect("png").into_rgb());
    println!("{}: latents {error:.2e}, {decibels:.1} dB", text("name"));
    assert!(decibels > 50.0, "{}: {decibels:.1} dB", text("name"));
}

/// Every entry of `images.json`: latents within 1e-3 relative, PSNR over 50 dB against the reference's PNG, or,
/// where only its latents are kept, against those through our VAE, which has its own parity test.
#[test]
fn pictures_are_the_references() {
    let text = std::fs::read_to_string(fixture("images/images.json")).expect("images.json");
    let entries: Vec<Value> = serde_json::from_str(&text).expect("json");
    let latents = Golden::read(&fixture("images/latents.safetensors"));
    let model = model();
    let (mut pictures, mut worst) = (0, f64::INFINITY);
    for entry in &entries {
        let name = entry["name"].as_str().expect("name");
        let request = request(entry);
        let mut trace = Trace::default();
        let outputs = txt2img(&model, &request, &mut trace).expect("draws");
        let found = Tensor::cat(&trace.latents.iter().collect::<Vec<_>>(), 0).expect("latents");
        assert_eq!(outputs.len(), request.batch_size * request.n_iter, "{name}");
        for (index, output) in outputs.iter().enumerate() {
            assert_eq!(output.seed, request.seed + index as u64);
            let key = entry["latents"][index].as_str().expect("latents key");
            let error = relative_error(&values(&found.get(index).expect("one")), &values(latents.get(key)));
            assert!(error < 1e-3, "{name}, image {index}: latents {error:.2e}");
            let wanted = if let Some(file) = entry["files"][index].as_str() {
                let png = std::fs::read(fixture("images").join(file)).expect("png");
                Picture::decode(&png, 1 << 20).expect("png").into_rgb()
            } else {
                let latents = latents.get(key).scaled(1.0 / 0.18215);
                let dims = [&[1], latents.dims()].concat();
                let latents = latents.reshaped(dims).expect("one picture");
                tensor_to_image(&model.vae().decode(&latents, &Run::WHOLE).expect("decodes")).expect("image")
            };
            let decibels = psnr(&output.image, &wanted);
            worst = worst.min(decibels);
            pictures += 1;
            assert!(decibels > 50.0, "{name}, image {index}: {decibels:.1} dB");
        }
    }
    println!("{pictures} pictures, worst {worst:.1} dB");
    assert!(pictures >= entries.len() && entries.len() >= 75, "only {pictures} pictures were compared");
}

fn draw(model: &Model, request: &Txt2Img, threads: usize) -> Vec<Output> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    pool.install(|| txt2img(model, request, &mut NoStages)).expect("draws")
}

/// Promise 1: the same bytes whatever stands beside, ran before, how many threads there are, or how much memory.
#[test]
fn nothing_but_the_request_shows_in_the_picture() {
    let model = model();
    let alone = Txt2Img {
        prompt: "a red circle, ".repeat(30).into(),
        negative_prompt: "blurry".into(),
        reading: Reading::default(),
        embeddings: Arc::default(),
        seed: 8,
        steps: 3,
        cfg_scale: 7.5,
        width: 72,
        height: 56,
        sampler: sampler("Euler a"),
        schedule: Schedule::Karras,
        batch_size: 1,
        n_iter: 1,
        clip_skip: 2,
        rng: NoiseSource::Cpu,
        pad_cond_uncond: false,
        pad_cond_uncond_v0: false,
        decoder: LatentDecoder::Vae,
        ..Txt2Img::default()
    };
    let wanted = draw(&model, &alone, 1);
    assert_eq!(draw(&model, &alone, 2), wanted, "threads");
    assert_eq!(draw(&model, &alone, 5), wanted, "threads");
    let batch = Txt2Img { seed: 7, batch_size: 3, ..alone.clone() };
    assert_eq!(draw(&model, &batch, 2)[1].image, wanted[0].image, "in a batch");
    let passes = Txt2Img { seed: 6, n_iter: 3, ..alone.clone() };
    assert_eq!(draw(&model, &passes, 2)[2].image, wanted[0].image, "in a later pass");
    let tight = Txt2Img { samples_at_once: Some(1), ..batch };
    assert_eq!(draw(&model, &tight, 2)[1].image, wanted[0].image, "with little memory");
    let padded = Txt2Img { pad_cond_uncond: true, ..alone };
    let tight = Txt2Img { samples_at_once: tight.samples_at_once, ..padded.clone() };
    assert_eq!(draw(&model, &tight, 1), draw(&model, &padded, 2), "halves apart");
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = model();
    let request = request(&serde_json::json!({
        "prompt": "", "negative_prompt": "", "seed": 1, "steps": 1, "cfg_scale": 7.0, "width": 64, "height": 64,
        "sampler": "Euler", "schedule": "Automatic", "batch_size": 1, "n_iter": 1, "clip_skip": 1, "rng": "nv",
        "pad_conds": false,
    }));
    let error = |request: Txt2Img| txt2img(&model, &request, &mut NoStages).expect_err("refused").to_string();
    for (width, height) in [(0, 64), (64, 513), (usize::MAX & !7, 64)] {
        assert!(error(Txt2Img { width, height, ..request.clone() }).contains("multiple of 8"));
    }
    assert!(error(Txt2Img { steps: 0, ..request.clone() }).contains("steps is 0"));
    assert!(error(Txt2Img { steps: usize::MAX, ..request.clone() }).contains("steps is"));
    assert!(error(Txt2Img { batch_size: usize::MAX, ..request.clone() }).contains("batch_size is"));
    assert!(error(Txt2Img { n_iter: 0, ..request.clone() }).contains("n_iter is 0"));
    assert!(error(Txt2Img { cfg_scale: f64::NAN, ..request.clone() }).contains("cfg_scale is NaN"));
    assert!(error(Txt2Img { clip_skip: 9, ..request }).contains("clip_skip is 9"));
}
