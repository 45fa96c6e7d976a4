//! DPM-Solver's steps of first, second and third order (Lu et al. 2022), in t = −ln σ.

use crate::Result;
use crate::sampling::denoise::{Denoise, mix, weighted};
use crate::tensor::Tensor;

/// A step from one time to another that has asked the model once.
pub(super) struct Step<'a> {
    x: &'a Tensor,
    t: f64,
    h: f64,
    /// The noise at the begin, of unit variance.
    eps: Tensor,
}

/// The level of a time.
pub(super) fn level(t: f64) -> f64 {
    (-t).exp()
}

/// `count + 1` levels, alike in the logarithm, from the model's highest to its lowest.
pub(super) fn levels((min, max): (f32, f32), count: usize) -> Vec<f32> {
    let (min, max) = (f64::from(min).ln(), f64::from(max).ln());
    (0..=count).map(|index| (max + (min - max) * index as f64 / count as f64).exp() as f32).collect()
}

impl<'a> Step<'a> {
    /// From `t` to `next`, with the prediction at `t`.
    pub(super) fn new(x: &'a Tensor, t: f64, next: f64, denoised: &Tensor) -> Result<Self> {
        Ok(Self { x, t, h: next - t, eps: noise(x, t, denoised)? })
    }

    pub(super) fn first(&self) -> Result<Tensor> {
        mix(1.0, self.x, -level(self.t + self.h) * self.h.exp_m1(), &self.eps)
    }

    /// Second order by the noise at a share `r` of the step.
    pub(super) fn second(&self, r: f64, inner: &Tensor) -> Result<Tensor> {
        let whole = level(self.t + self.h) * self.h.exp_m1();
        let half = whole / (2.0 * r);
        weighted(&[(1.0, self.x), (half - whole, &self.eps), (-half, inner)])
    }

    /// The noise at a share `r` of the step, for second order.
    pub(super) fn inner(&self, r: f64, model: &mut dyn Denoise) -> Result<Tensor> {
        let t = self.t + r * self.h;
        let there = mix(1.0, self.x, -level(t) * (r * self.h).exp_m1(), &self.eps)?;
        noise_at(&there, t, model)
    }

    /// Third order by the noise at a third, which is given, and at two thirds.
    pub(super) fn third(&self, inner: &Tensor, model: &mut dyn Denoise) -> Result<Tensor> {
        const R: f64 = 2.0 / 3.0;
        let t = self.t + R * self.h;
        let (grown, inner_grown) =
            (level(t) * (R * self.h).exp_m1(), (R * self.h).exp_m1() / (R * self.h) - 1.0);
        let bend = level(t) * 2.0 * inner_grown;
        let there = weighted(&[(1.0, self.x), (bend - grown, &self.eps), (-bend, inner)])?;
        let outer = noise_at(&there, t, model)?;
        let end = level(self.t + self.h);
        let whole = end * self.h.exp_m1();
        let bend = end / R * (self.h.exp_m1() / self.h - 1.0);
        weighted(&[(1.0, self.x), (bend - whole, &self.eps), (-bend, &outer)])
    }
}

/// The noise in a state, by what the model predicts of it.
fn noise_at(x: &Tensor, t: f64, model: &mut dyn Denoise) -> Result<Tensor> {
    let denoised = model.denoise(x, level(t))?;
    noise(x, t, &denoised)
}

fn noise(x: &Tensor, t: f64, denoised: &Tensor) -> Result<Tensor> {
    let sigma = level(t);
    mix(1.0 / sigma, x, -1.0 / sigma, denoised)
}
