//! A checkpoint of the real size: how long it takes to load, and how far its networks are from diffusers' in
//! float32. `tests/bench/real_size.py` makes the folder this takes.
#![allow(clippy::print_stdout, reason = "the report is what this is for")]

use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, Result, Tensor};
use latentd_models::nn::Precision;
use latentd_models::pipeline::Model;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let Some(folder) = folder.map(PathBuf::from) else {
        println!("real_size: no folder given, nothing measured; see tests/bench/real_size.py");
        return Ok(());
    };
    let start = Instant::now();
    let model = Model::open(&folder.join("Stable-diffusion/sd15-random.safetensors"), Precision::F32)?;
    let summary = model.summary();
    println!(
        "loaded in {:.2} s: {} bytes of {}",
        start.elapsed().as_secs_f64(),
        summary.weight_bytes,
        summary.dtype
    );
    let golden = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu)?;
    let get = |name: &str| golden.get(name).ok_or_else(|| format!("golden.safetensors has no {name}"));
    let ids: Vec<Vec<i64>> = get("ids")?.to_vec2()?;
    let ids: Vec<Vec<u32>> =
        ids.into_iter().map(|row| row.into_iter().map(|id| id as u32).collect()).collect();
    let states = model.clip().hidden_states(&ids)?;
    let last = states.last().ok_or("no states")?;
    report("CLIP", &model.clip().final_norm(last)?, get("context")?)?;
    let eps = model.unet().forward(get("x")?, &get("t")?.to_vec1::<f32>()?, get("context")?, None)?;
    report("UNet", &eps, get("eps")?)?;
    report("VAE decode", &model.vae().decode(get("latents")?)?, get("image")?)?;
    Ok(())
}

fn report(name: &str, found: &Tensor, wanted: &Tensor) -> Result<()> {
    let norm = |t: &Tensor| -> Result<f64> { Ok(f64::from(t.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt()) };
    println!("{name}: relative error {:.1e}", norm(&(found - wanted)?)? / norm(wanted)?);
    Ok(())
}
