//! Seconds that an upscaler of a file takes for a picture, in f32: `cargo bench -p latentd-models --bench upscalers -- FILE SIDE
//! ROUNDS`. `tests/bench/upscalers.py` runs it in turns with PyTorch.
#![allow(clippy::print_stdout, reason = "the report is what this is for")]

use std::path::PathBuf;
use std::time::Instant;

use latentd_models::networks::known::KnownNetwork;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Precision, Run};
use latentd_models::{Tensor, files};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let Some(path) = arguments.next().map(PathBuf::from) else {
        println!("upscalers: no file given, nothing measured; see tests/bench/upscalers.py");
        return Ok(());
    };
    let mut number = |usual: usize| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (side, rounds) = (number(256)?, number(1)?);
    let file = files::open(&path)?;
    let known = KnownNetwork::of(&file)?.ok_or("it holds no upscaler that is known")?;
    let entry = known.described().entry("")?.clone();
    let network = known.open(&file, &cpu(), Precision::F32)?;
    let values = (0..3 * side * side).map(|at| (at * 7919 % 1009) as f32 / 1009.0).collect();
    let image = Tensor::new(values, [1, 3, side, side])?;
    // Once for nothing: pages that were never touched.
    network.run(&entry, std::slice::from_ref(&image), &Run::WHOLE)?;
    for _ in 0..rounds {
        let start = Instant::now();
        network.run(&entry, std::slice::from_ref(&image), &Run::WHOLE)?;
        println!("seconds {:.4}", start.elapsed().as_secs_f64());
    }
    Ok(())
}
