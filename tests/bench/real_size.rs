//! A checkpoint of the real size, in f32 and in bf16: how long it takes to load, how far its networks are from
//! diffusers' in float32, and how far a picture in bf16 is from the one in f32. `tests/bench/real_size.py` makes the
//! folder this takes.
#![allow(clippy::print_stdout, reason = "the report is what this is for")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use latentd_models::Tensor;
use latentd_models::model::Model;
use latentd_models::nn::{Precision, Run};
use latentd_models::pipeline::{LatentDecoder, NoStages, NoWatch, Txt2Img, txt2img};
use latentd_models::prompt::Reading;
use latentd_models::sampling::{NoiseSource, Sampler, Schedule};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let Some(folder) = folder.map(PathBuf::from) else {
        println!("real_size: no folder given, nothing measured; see tests/bench/real_size.py");
        return Ok(());
    };
    let golden =
        candle_core::safetensors::load(folder.join("golden.safetensors"), &candle_core::Device::Cpu)?;
    let mut pictures = vec![];
    for precision in [Precision::F32, Precision::Bf16] {
        let start = Instant::now();
        let model = Model::open(&folder.join("Stable-diffusion/sd15-random.safetensors"), precision)?;
        let summary = model.summary();
        println!(
            "{precision:?}: loaded in {:.2} s, {} bytes of {}",
            start.elapsed().as_secs_f64(),
            summary.weight_bytes,
            summary.dtype
        );
        compare(&model, &golden)?;
        let drawn = txt2img(&model.facts(), &mut &model, &request()?, &mut NoWatch, &mut NoStages)?;
        pictures.extend(drawn.into_iter().map(|drawn| drawn.image));
    }
    let squares = pictures[0].pixels.iter().zip(&pictures[1].pixels);
    let error: f64 = squares.map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    let mean = error / pictures[0].pixels.len() as f64;
    println!(
        "picture of 256 × 256, 20 steps: {:.1} dB between both",
        10.0 * (255.0f64.powi(2) / mean).log10()
    );
    Ok(())
}

fn request() -> Result<Txt2Img, Box<dyn std::error::Error>> {
    Ok(Txt2Img {
        prompt: "a red circle on a blue background".into(),
        negative_prompt: "blurry".into(),
        reading: Reading::default(),
        embeddings: Arc::default(),
        seed: 11,
        steps: 20,
        cfg_scale: 7.0,
        width: 256,
        height: 256,
        sampler: Sampler::from_name("Euler a").ok_or("no such sampler")?,
        schedule: Schedule::Automatic,
        batch_size: 1,
        n_iter: 1,
        clip_skip: 1,
        rng: NoiseSource::Nv,
        pad_cond_uncond: false,
        pad_cond_uncond_v0: false,
        decoder: LatentDecoder::Vae,
        ..Txt2Img::default()
    })
}

fn compare(
    model: &Model,
    golden: &HashMap<String, candle_core::Tensor>,
) -> Result<(), Box<dyn std::error::Error>> {
    let get = |name: &str| golden.get(name).ok_or_else(|| format!("golden.safetensors has no {name}"));
    let tensor = |name: &str| -> Result<Tensor, Box<dyn std::error::Error>> {
        let found = get(name)?;
        Ok(Tensor::new(found.flatten_all()?.to_vec1()?, found.dims())?)
    };
    let ids: Vec<Vec<i64>> = get("ids")?.to_vec2()?;
    let ids: Vec<Vec<u32>> =
        ids.into_iter().map(|row| row.into_iter().map(|id| id as u32).collect()).collect();
    report("CLIP", &model.clip().encode(&ids, &[], 1, &Run::WHOLE)?, &tensor("context")?)?;
    let times = get("t")?.to_vec1::<f32>()?;
    let eps = model.unet().forward(&tensor("x")?, &times, &tensor("context")?, None)?;
    report("UNet", &eps, &tensor("eps")?)?;
    report("VAE decode", &model.vae().decode(&tensor("latents")?, &Run::WHOLE)?, &tensor("image")?)?;
    Ok(())
}

fn report(name: &str, found: &Tensor, wanted: &Tensor) -> latentd_models::Result<()> {
    let norm = |t: &Tensor| t.values().iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    println!("{name}: relative error {:.1e}", norm(&found.minus(wanted)?) / norm(wanted));
    Ok(())
}
