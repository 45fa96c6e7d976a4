//! What samplers are written in.

use crate::Result;
use crate::tensor::Tensor;

/// What a sampler needs of the world.
pub trait Denoise {
    /// The model's prediction of the noise-free latents for `x`, whose noise has the standard deviation `sigma`.
    fn denoise(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor>;

    /// Fresh unit noise in the shape of the latents, for a step from one level to the next.
    fn noise(&mut self, from: f64, to: f64) -> Result<Tensor>;

    /// A step is done: `x` is the state after it, `denoised` the prediction it was made with.
    fn step(&mut self, x: &Tensor, denoised: &Tensor) -> Result<()>;
}

/// `a · x + b · y`.
pub(super) fn mix(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    let (a, b) = (a as f32, b as f32);
    x.zip(y, |x, y| (x * a + 0.0) + (y * b + 0.0))
}

/// Steps as pairs of levels, from and to.
pub(super) fn steps(levels: &[f32]) -> impl Iterator<Item = (f64, f64)> + '_ {
    levels.windows(2).map(|pair| (f64::from(pair[0]), f64::from(pair[1])))
}
