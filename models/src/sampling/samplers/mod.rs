//! Samplers: each a short function over "denoise x at sigma", in a file of its own.

mod dpmpp_2m;
mod euler;
mod heun;

use candle_core::Tensor;

use super::{Sampler, Sigmas};
use crate::Result;

/// What a sampler needs of the world.
pub trait Denoise {
    /// The model's prediction of the noise-free latents for `x`, whose noise has the standard deviation `sigma`.
    fn denoise(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor>;

    /// Fresh unit noise in the shape of the latents.
    fn noise(&mut self) -> Result<Tensor>;

    /// A step is done: `x` is the state after it, `denoised` the prediction it was made with.
    fn step(&mut self, x: &Tensor, denoised: &Tensor) -> Result<()>;
}

/// Takes unit noise `(batch, 4, height, width)` through all steps to latents.
pub fn sample(sampler: Sampler, noise: &Tensor, sigmas: &Sigmas, model: &mut dyn Denoise) -> Result<Tensor> {
    let x = noise.affine(sigmas.initial_scale, 0.0)?;
    let levels = &sigmas.levels;
    let x = match sampler {
        // On the state that `Sigmas` describes for it, a DDIM step with eta 0 is Euler's.
        Sampler::Euler | Sampler::Ddim => euler::euler(x, levels, model),
        Sampler::EulerAncestral => euler::euler_ancestral(x, levels, model),
        Sampler::DpmPp2M => dpmpp_2m::dpmpp_2m(x, levels, model),
        Sampler::Heun => heun::heun(x, levels, model),
    }?;
    Ok(x.affine(sigmas.final_scale, 0.0)?)
}

/// `a · x + b · y`.
fn mix(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    Ok((x.affine(a, 0.0)? + y.affine(b, 0.0)?)?)
}

/// Steps as pairs of levels, from and to.
fn steps(levels: &[f32]) -> impl Iterator<Item = (f64, f64)> + '_ {
    levels.windows(2).map(|pair| (f64::from(pair[0]), f64::from(pair[1])))
}
