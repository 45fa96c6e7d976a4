//! "Denoise x at sigma": the UNet under guidance, with the hooks around it.

use candle_core::Tensor;

use super::times::Times;
use super::{Hooks, Model, Progress, Stage};
use crate::files::Prediction;
use crate::image::latent_preview;
use crate::networks::unet::Context;
use crate::sampling::Denoise;
use crate::{Error, Result};

pub(super) struct Denoiser<'a> {
    pub(super) model: &'a Model,
    pub(super) hooks: &'a mut dyn Hooks,
    pub(super) cond: &'a Context,
    pub(super) uncond: &'a Context,
    pub(super) times: &'a mut Times,
    pub(super) cfg_scale: f64,
    /// Latents that go through the UNet together. Kernels give each the same bits whatever stands beside it, so
    /// this never shows in the picture.
    pub(super) samples_at_once: usize,
    pub(super) noise: Box<dyn FnMut() -> Result<Tensor> + 'a>,
    /// Where the request stood when this pass began.
    pub(super) progress: Progress,
    /// Steps done in this pass.
    pub(super) step: usize,
}

impl Denoise for Denoiser<'_> {
    fn denoise(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        if self.hooks.cancelled() {
            return Err(Error::Cancelled);
        }
        let mut x = x.clone();
        self.hooks.denoise_before(&mut x, sigma)?;
        let scaled = x.affine(1.0 / (sigma * sigma + 1.0).sqrt(), 0.0)?;
        let timestep = self.model.sigmas.sigma_to_t(sigma);
        let batch = x.dim(0)?;
        let residuals = self
            .hooks
            .control_residuals(&Tensor::cat(&[&scaled, &scaled], 0)?, &vec![timestep; 2 * batch])?;
        let predicted = self.predict(&scaled, timestep, residuals.as_deref())?;
        // x0 = of_x · x − of_output · output.
        let (of_x, of_output) = match self.model.prediction {
            Prediction::Epsilon => (1.0, sigma),
            Prediction::Velocity => (1.0 / (sigma * sigma + 1.0), sigma / (sigma * sigma + 1.0).sqrt()),
        };
        let kept = x.affine(of_x, 0.0)?;
        let denoised = |output: &Tensor| -> Result<Tensor> { Ok((&kept - output.affine(of_output, 0.0)?)?) };
        let mut cond = denoised(&predicted.narrow(0, 0, batch)?)?;
        let mut uncond = denoised(&predicted.narrow(0, batch, batch)?)?;
        self.hooks.denoise_pre_cfg(&mut cond, &mut uncond, sigma)?;
        let mut guided = (&uncond + ((&cond - &uncond)? * self.cfg_scale)?)?;
        self.hooks.denoise_post_cfg(&mut guided, sigma)?;
        Ok(guided)
    }

    fn noise(&mut self) -> Result<Tensor> {
        (self.noise)()
    }

    fn step(&mut self, _x: &Tensor, denoised: &Tensor) -> Result<()> {
        self.step += 1;
        self.hooks.progress(Progress {
            stage: Stage::Denoising,
            step: self.progress.step + self.step,
            steps: self.progress.steps,
        });
        if self.hooks.wants_preview(self.step) {
            self.hooks.preview(self.step, latent_preview(denoised)?);
        }
        Ok(())
    }
}

impl Denoiser<'_> {
    /// The UNet's prediction for conditional, then unconditional samples: `(2 · batch, 4, height, width)`.
    fn predict(&mut self, scaled: &Tensor, timestep: f32, residuals: Option<&[Tensor]>) -> Result<Tensor> {
        let time = self.times.get(&self.model.unet, timestep)?;
        let batch = scaled.dim(0)?;
        let samples: Vec<usize> = (0..2 * batch).collect();
        let mut parts = vec![];
        for samples in samples.chunks(self.samples_at_once.max(1)) {
            let x: Vec<Tensor> =
                samples.iter().map(|i| scaled.narrow(0, i % batch, 1)).collect::<Result<_, _>>()?;
            let contexts: Vec<&Context> =
                samples.iter().map(|i| if *i < batch { self.cond } else { self.uncond }).collect();
            let (start, count) = (samples.first().copied().unwrap_or_default(), samples.len());
            let residuals: Option<Vec<Tensor>> = residuals
                .map(|residuals| residuals.iter().map(|residual| residual.narrow(0, start, count)).collect())
                .transpose()?;
            let times = vec![time; count];
            parts.push(self.model.unet.denoise(
                &Tensor::cat(&x, 0)?,
                &times,
                &contexts,
                residuals.as_deref(),
            )?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }
}
