//! What samplers are written in.

use crate::Result;
use crate::tensor::Tensor;

/// What the model makes of a state.
pub struct Denoised {
    /// The noise-free latents under guidance.
    pub guided: Tensor,
    /// The noise-free latents as the model predicts them for what is steered away from. Where nothing is, or that was left
    /// out, those of what is wanted first.
    pub uncond: Tensor,
}

/// What a sampler needs of the world.
pub trait Denoise {
    /// The model's prediction for `x`, whose noise has the standard deviation `sigma`. The model is told `timestep`, which
    /// is that of the level if `None`.
    fn predict(&mut self, x: &Tensor, sigma: f64, timestep: Option<f32>) -> Result<Denoised>;

    /// The prediction of the noise-free latents.
    fn denoise(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok(self.predict(x, sigma, None)?.guided)
    }

    /// Fresh unit noise in the shape of the latents, for a step from one level to another.
    fn noise(&mut self, from: f64, to: f64) -> Result<Tensor>;

    /// Steps are done: `x` is the state after them, `denoised` the last prediction it was made with. 0 of a step that is
    /// still to be tried anew.
    fn advance(&mut self, steps: usize, x: &Tensor, denoised: &Tensor) -> Result<()>;

    /// One step is done.
    fn step(&mut self, x: &Tensor, denoised: &Tensor) -> Result<()> {
        self.advance(1, x, denoised)
    }
}

/// `a · x + b · y`.
pub(super) fn mix(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    let (a, b) = (a as f32, b as f32);
    x.zip(y, |x, y| (x * a + 0.0) + (y * b + 0.0))
}

/// The sum of `a · x` over all terms, of at least one; summed up in f64, rounded once.
pub(super) fn weighted(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let [(first, x), rest @ ..] = terms else {
        return Err(crate::Error::Compute("a sum of nothing".to_owned()));
    };
    let mut sum: Vec<f64> = x.values().iter().map(|x| first * f64::from(*x)).collect();
    for (factor, y) in rest {
        if y.dims() != x.dims() {
            let text = format!("tensors {:?} and {:?} have different shapes", x.dims(), y.dims());
            return Err(crate::Error::Compute(text));
        }
        sum.iter_mut().zip(y.values()).for_each(|(sum, y)| *sum += factor * f64::from(*y));
    }
    // A −0 becomes 0.
    Tensor::new(sum.into_iter().map(|sum| sum as f32 + 0.0).collect(), x.dims())
}

/// Steps as pairs of levels, from and to.
pub(super) fn steps(levels: &[f32]) -> impl Iterator<Item = (f64, f64)> + '_ {
    levels.windows(2).map(|pair| (f64::from(pair[0]), f64::from(pair[1])))
}
