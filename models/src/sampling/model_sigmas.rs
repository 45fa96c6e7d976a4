//! The model's noise levels: what it was trained on.
//!
//! f32 where A1111 has f32, f64 where it has Python floats.

/// The ᾱ at the last timestep of a schedule that ends without signal: not 0, so that its level is a number.
const ZERO_TERMINAL_ALPHA: f32 = 4.8973451890853435e-8;

/// Noise levels by timestep, from scaled-linear betas 0.00085 to 0.012.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSigmas {
    alphas_cumprod: Vec<f32>,
    sigmas: Vec<f32>,
    log_sigmas: Vec<f32>,
    /// Timesteps from one level to the next: level i is that of timestep `(i + 1) * stride − 1`.
    stride: usize,
}

/// The levels a sampler visits, falling, and how its state relates to unit noise.
#[derive(Clone, Debug, PartialEq)]
pub struct Sigmas {
    /// One more than there are steps; the last is mostly 0.
    pub levels: Vec<f32>,
    /// What unit noise is multiplied by at the start.
    pub initial_scale: f64,
    /// What the last state is multiplied by.
    pub final_scale: f64,
}

impl Default for ModelSigmas {
    fn default() -> Self {
        let (first, last) = (0.00085f64.sqrt(), 0.012f64.sqrt());
        let mut product = 1.0;
        let alphas_cumprod = (0..1000).map(|step| {
            let beta = first + (last - first) * f64::from(step) / 999.0;
            product *= 1.0 - beta * beta;
            product as f32
        });
        Self::of(alphas_cumprod.collect(), 1)
    }
}

impl ModelSigmas {
    fn of(alphas_cumprod: Vec<f32>, stride: usize) -> Self {
        let sigmas: Vec<f32> = alphas_cumprod.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect();
        let log_sigmas = sigmas.iter().map(|sigma| sigma.ln()).collect();
        Self { alphas_cumprod, sigmas, log_sigmas, stride }
    }

    /// The same, shifted and scaled so that nothing of the picture is left at the last timestep (Lin et al. 2023), as A1111
    /// does for models that were trained so.
    #[must_use]
    pub fn zero_terminal_snr(&self) -> Self {
        let roots: Vec<f32> = self.alphas_cumprod.iter().map(|alpha| alpha.sqrt()).collect();
        let (first, last) = (roots[0], roots[roots.len() - 1]);
        let scale = first / (first - last);
        let mut alphas: Vec<f32> = roots.iter().map(|root| ((root - last) * scale).powi(2)).collect();
        if let Some(last) = alphas.last_mut() {
            *last = ZERO_TERMINAL_ALPHA;
        }
        Self::of(alphas, self.stride)
    }

    /// Only each `stride`-th of its levels, the last among them. Timesteps between them are rounded to the nearest.
    #[must_use]
    pub fn coarse(&self, stride: usize) -> Self {
        let alphas = self.alphas_cumprod.iter().skip(stride - 1).step_by(stride).copied();
        Self::of(alphas.collect(), stride)
    }

    /// Products of 1 − beta, one per level.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// Noise levels, rising; one per timestep unless it is coarse.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The lowest of them.
    pub fn min(&self) -> f32 {
        self.sigmas[0]
    }

    /// The highest of them.
    pub fn max(&self) -> f32 {
        self.sigmas[self.sigmas.len() - 1]
    }

    /// The lowest and the highest timestep that have a level.
    pub(super) fn timesteps(&self) -> (f64, f64) {
        ((self.stride - 1) as f64, (self.sigmas.len() * self.stride - 1) as f64)
    }

    /// The noise level at a fractional timestep, by interpolation of logarithms; timesteps outside are clamped.
    pub fn t_to_sigma(&self, t: f64) -> f32 {
        let place = (t - (self.stride - 1) as f64) / self.stride as f64;
        let place = place.clamp(0.0, (self.log_sigmas.len() - 1) as f64);
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        let weight = (place - place.floor()) as f32;
        ((1.0 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[high]).exp()
    }

    /// The fractional timestep of a noise level; levels outside are clamped. Of a coarse one the timestep of the nearest
    /// level.
    pub fn sigma_to_t(&self, sigma: f64) -> f32 {
        let log_sigma = (sigma as f32).ln();
        let above = self.log_sigmas.partition_point(|each| *each <= log_sigma);
        let low = above.saturating_sub(1).min(self.log_sigmas.len() - 2);
        let (from, to) = (self.log_sigmas[low], self.log_sigmas[low + 1]);
        if self.stride > 1 {
            let nearest = if (log_sigma - from).abs() <= (to - log_sigma).abs() { low } else { low + 1 };
            return ((nearest + 1) * self.stride - 1) as f32;
        }
        let weight = ((from - log_sigma) / (from - to)).clamp(0.0, 1.0);
        (1.0 - weight) * low as f32 + weight * (low + 1) as f32
    }

    /// The timesteps DDIM visits, rising: every `1000 / steps`-th, rounded down, plus 1. There can be more than
    /// `steps`; the first is only the last one's target.
    pub fn ddim_timesteps(&self, steps: usize) -> Vec<usize> {
        let stride = (1000 / steps.max(1)).max(1);
        (0..1000).step_by(stride).map(|t| (t + 1).min(999)).collect()
    }
}
