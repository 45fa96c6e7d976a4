//! What a step takes outside the network at 512×512, for each sampler: `cargo bench -p latentd-models --bench samplers`.
//!
//! One image of 64×64×4 latents. The network is one that knows the picture, and its time is left out; noise, motions, the
//! sampler's own sums and guidance of two rows, as the pipeline has it, are all there.
#![allow(clippy::print_stdout, reason = "the times are what it is for")]

use std::time::{Duration, Instant};

use latentd_models::sampling::{
    BrownianTree, Denoise, Denoised, ModelSigmas, NoiseGenerator, NoiseSource, Sampler, SamplerOptions,
    Schedule, StepNoise, levels, sample,
};
use latentd_models::{Result, Tensor};

const LATENTS: [usize; 4] = [1, 4, 64, 64];
const STEPS: usize = 20;
const RUNS: usize = 15;

struct Network {
    picture: Tensor,
    generator: NoiseGenerator,
    tree: Option<BrownianTree>,
    /// Spent in the network.
    inside: Duration,
    calls: usize,
}

impl Denoise for Network {
    fn predict(&mut self, x: &Tensor, sigma: f64, _timestep: Option<f32>) -> Result<Denoised> {
        let scaled = x.scaled(1.0 / (sigma * sigma + 1.0).sqrt());
        let rows = Tensor::cat(&[&scaled, &scaled], 0)?;
        let started = Instant::now();
        let noise: Vec<Tensor> = (0..2).map(|row| rows.narrow(0, row, 1)).collect::<Result<_>>()?;
        self.inside += started.elapsed();
        self.calls += 1;
        let cond = x.minus(&noise[0].scaled(sigma))?.plus(&self.picture)?;
        let uncond = x.minus(&noise[1].scaled(sigma))?;
        let guided = uncond.plus(&cond.minus(&uncond)?.scaled(7.0))?.scaled(0.1);
        assert!(guided.values().iter().all(|value| value.is_finite()));
        Ok(Denoised { guided, uncond })
    }

    fn noise(&mut self, from: f64, to: f64) -> Result<Tensor> {
        let count = LATENTS.iter().product();
        let values = match &mut self.tree {
            Some(tree) => tree.noise(from, to),
            None => self.generator.normal(count),
        };
        Tensor::new(values, LATENTS)
    }

    fn advance(&mut self, _steps: usize, _x: &Tensor, _denoised: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// Model calls, and what a step took outside the network, in ascending order.
fn measure(sampler: Sampler, source: NoiseSource) -> Result<(usize, Vec<Duration>)> {
    let (model, options) = (ModelSigmas::default(), SamplerOptions::default());
    let sigmas = levels(&sampler, &model, Schedule::Automatic, STEPS, &options)?;
    let count = LATENTS.iter().product();
    let (mut took, mut calls) = (vec![], 0);
    for _ in 0..RUNS {
        let mut generator = NoiseGenerator::new(source, 42);
        let noise = Tensor::new(generator.normal(count), LATENTS)?;
        let range = (f64::from(model.min()), f64::from(model.max()));
        let is_brownian = sampler.noise == StepNoise::Brownian;
        let tree = is_brownian.then(|| BrownianTree::new(source, 42, range, count));
        let mut network =
            Network { picture: noise.map(f32::sin), generator, tree, inside: Duration::ZERO, calls: 0 };
        let started = Instant::now();
        sample(&sampler, &noise, &sigmas, &model, &options, &mut network)?;
        let outside = started.elapsed().saturating_sub(network.inside);
        calls = network.calls;
        // One that goes its own way makes three calls a step.
        let steps = if sampler.goes_alone { calls / 3 } else { sigmas.levels.len() - 1 };
        took.push(outside / steps.max(1) as u32);
    }
    took.sort();
    Ok((calls, took))
}

fn main() -> Result<()> {
    println!(
        "one step: the quickest and the median of {RUNS} runs in {STEPS} steps, with noise of \"nv\" and \"cpu\""
    );
    for sampler in Sampler::all() {
        let (calls, nv) = measure(sampler, NoiseSource::Nv)?;
        let (_, cpu) = measure(sampler, NoiseSource::Cpu)?;
        let [least, median, least_cpu, median_cpu] =
            [nv[0], nv[RUNS / 2], cpu[0], cpu[RUNS / 2]].map(|took| took.as_secs_f64() * 1e3);
        println!(
            "{:<18} {calls:>3} calls {least:>6.3} {median:>6.3} ms {least_cpu:>6.3} {median_cpu:>6.3} ms",
            sampler.name
        );
    }
    Ok(())
}
