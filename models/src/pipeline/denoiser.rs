//! "Denoise x at sigma": the UNet under guidance, with the stages around it.

use std::sync::Arc;

use super::contexts::Contexts;
use super::decode::preview;
use super::evaluation::{Evaluation, PassKind, Region, Role, Row};
use super::guidance::Guidance;
use super::handles::{Handle, Handles};
use super::pass_plan::PassPlan;
use super::sampling_options::{Skipped, is_cond_alone};
use super::stages::{ControlResiduals, DenoiseBefore, DenoiseCombine, Stages, Wants};
use super::start::Start;
use super::time_embeddings::TimeEmbeddings;
use super::watch::{Phase, Progress, Watch};
use crate::files::Prediction;
use crate::image::{RgbImage, latent_preview};
use crate::model::ModelFacts;
use crate::networks::taesd::Taesd;
use crate::networks::unet::{RowContext, UNet, UNetCall};
use crate::nn::{KeyValueTransform, Run};
use crate::sampling::{BrownianTree, Denoise, Denoised, ModelSigmas, NoiseGenerator};
use crate::tensor::Tensor;
use crate::{Error, Result};

pub(super) struct Denoiser<'a> {
    pub(super) facts: &'a ModelFacts,
    pub(super) sigmas: &'a ModelSigmas,
    pub(super) unet: &'a UNet,
    pub(super) watch: &'a mut dyn Watch,
    pub(super) stages: &'a mut dyn Stages,
    pub(super) wants: Wants,
    pub(super) handles: &'a mut Handles,
    pub(super) plan: &'a PassPlan<'a>,
    /// One per image.
    pub(super) guidance: &'a [Guidance],
    pub(super) contexts: &'a Contexts,
    pub(super) transforms: &'a [Arc<dyn KeyValueTransform>],
    pub(super) times: &'a mut TimeEmbeddings,
    /// What previews are made by; of latents alone if `None`.
    pub(super) previews: Option<&'a Taesd>,
    /// One per image.
    pub(super) generators: &'a mut [NoiseGenerator],
    /// One per image, if the sampler takes its noise from them.
    pub(super) trees: &'a mut [BrownianTree],
    /// Why what is steered away from was left out.
    pub(super) skipped: &'a mut Skipped,
    /// How many parts the pass is sampled in, one after the other, and which this is.
    pub(super) part: (usize, usize),
    pub(super) start: &'a Start,
    /// Where the request stood when this pass began.
    pub(super) progress: Progress,
    /// Steps of this pass.
    pub(super) steps: usize,
    /// Steps done in this pass.
    pub(super) step: usize,
    /// Model calls made in this pass.
    pub(super) call: usize,
}

impl Denoise for Denoiser<'_> {
    fn predict(&mut self, x: &Tensor, sigma: f64, timestep: Option<f32>) -> Result<Denoised> {
        if self.watch.cancelled() {
            return Err(Error::Cancelled);
        }
        let evaluation = self.evaluation(x, sigma, timestep)?;
        self.call += 1;
        let mut x = x.clone();
        if self.wants.denoise_before {
            let latents = self.handles.insert(x);
            self.stages.denoise_before(&DenoiseBefore { evaluation: &evaluation, latents }, self.handles)?;
            x = self.handles.take(latents)?;
            self.handles.end_call();
        }
        let outputs = self.outputs(&x, sigma, &evaluation)?;
        // x0 = of_x · x − of_output · output.
        let (of_x, of_output) = match evaluation.prediction {
            Prediction::Epsilon => (1.0, sigma),
            Prediction::Velocity => match timestep {
                // As A1111 does for samplers that go by timesteps, by the whole one below.
                Some(timestep) if self.plan.sampler.goes_by_timesteps() => {
                    let alpha = self.sigmas.alphas_cumprod().get(timestep as usize).copied();
                    let alpha = f64::from(alpha.unwrap_or_default());
                    let of_state = sigma * (1.0 - alpha).sqrt() / (sigma * sigma + 1.0).sqrt();
                    (1.0 - of_state, sigma * alpha.sqrt())
                }
                _ => (1.0 / (sigma * sigma + 1.0), sigma / (sigma * sigma + 1.0).sqrt()),
            },
        };
        let kept = x.scaled(of_x);
        let mut denoised = vec![];
        for (row, output) in evaluation.rows.iter().zip(&outputs) {
            let kept = kept.narrow(0, row.image - self.plan.first_image, 1)?;
            denoised.push(kept.minus(&output.scaled(of_output))?);
        }
        let Denoised { guided, uncond } = self.combine(&evaluation, &denoised)?;
        if guided.values().iter().any(|value| !value.is_finite()) {
            let reason =
                "the UNet's output came out as NaN: the checkpoint's weights overflow, or are broken";
            return Err(Error::NotFinite(reason.to_owned()));
        }
        Ok(Denoised { guided: self.start.keep(guided)?, uncond })
    }

    fn noise(&mut self, from: f64, to: f64) -> Result<Tensor> {
        if self.trees.is_empty() {
            self.plan.draw(self.generators)
        } else {
            self.plan.increments(self.trees, from, to)
        }
    }

    fn advance(&mut self, steps: usize, _x: &Tensor, denoised: &Tensor) -> Result<()> {
        self.step += steps;
        let (part, parts) = self.part;
        self.watch.progress(Progress {
            phase: Phase::Denoising,
            step: self.progress.step + (part * self.steps + self.step) / parts,
            steps: self.progress.steps,
        });
        if steps > 0 && self.watch.wants_preview(self.step) {
            let images = self.previews_of(denoised)?;
            self.watch.preview(self.step, images);
        }
        Ok(())
    }
}

impl Denoiser<'_> {
    /// By TAESD where it is wanted and does it; a preview never fails what it is of.
    fn previews_of(&mut self, denoised: &Tensor) -> Result<Vec<RgbImage>> {
        let made = self.previews.map(|taesd| {
            let cancelled = || self.watch.cancelled();
            let run = Run::until(&cancelled);
            let one = |index| preview(taesd, &denoised.narrow(0, index, 1)?, &run);
            (0..denoised.dim(0)).map(one).collect::<Result<Vec<_>>>()
        });
        match made {
            Some(Err(Error::Cancelled)) => return Err(Error::Cancelled),
            Some(Ok(images)) => return Ok(images),
            Some(Err(error)) => {
                self.previews = None;
                self.watch.notice(&format!("previews are of latents alone: {error}"));
            }
            None => (),
        }
        latent_preview(denoised, self.facts.family.preview)
    }

    /// What the next evaluation is of: each branch of each image, all images' first branches first, but what is steered
    /// away from where it is left out.
    fn evaluation(&mut self, x: &Tensor, sigma: f64, timestep: Option<f32>) -> Result<Evaluation> {
        let (_, _, height, width) = x.dims4()?;
        let branches = self.guidance.iter().map(|guidance| guidance.branches.len()).max().unwrap_or_default();
        let region = Region::whole(self.plan.width, self.plan.height);
        let timestep = timestep.unwrap_or_else(|| self.sigmas.sigma_to_t(sigma));
        let level = if self.plan.sampler.goes_by_timesteps() { f64::from(timestep) } else { sigma };
        let skipped = self.plan.sampling.skip.at(self.call, self.plan.calls, level);
        self.skipped.add(skipped);
        let needs_uncond = |guidance: &Guidance| {
            let uses = self.plan.sampler.uses_uncond;
            !skipped.any() && (uses || !is_cond_alone(guidance, self.scale()))
        };
        let needs_uncond: Vec<bool> = self.guidance.iter().map(needs_uncond).collect();
        let (needed, first_image) = (&needs_uncond, self.plan.first_image);
        let rows = (0..branches).flat_map(|branch| {
            let images = self.guidance.iter().zip(&self.plan.seeds).enumerate();
            images.filter_map(move |(image, (guidance, seed))| {
                let of = guidance.branches.get(branch)?;
                (of.role != Role::Uncond || needed[image]).then_some(())?;
                Some(Row {
                    image: first_image + image,
                    seed: *seed,
                    branch,
                    role: of.role,
                    weight: of.weight,
                    mask: of.mask.clone(),
                    region,
                })
            })
        });
        Ok(Evaluation {
            rows: rows.collect(),
            depth: 0,
            pass: PassKind::Base,
            pass_index: self.plan.index,
            step: self.step,
            steps: self.steps,
            call: self.call,
            sigma,
            timestep,
            prediction: self.facts.prediction,
            tag: "",
            latents: (height, width),
        })
    }

    /// The UNet's output for each row, `(1, channels, height, width)`.
    fn outputs(&mut self, x: &Tensor, sigma: f64, evaluation: &Evaluation) -> Result<Vec<Tensor>> {
        let scaled = x.scaled(1.0 / (sigma * sigma + 1.0).sqrt());
        let latents: Vec<Tensor> = evaluation
            .rows
            .iter()
            .map(|row| scaled.narrow(0, row.image - self.plan.first_image, 1))
            .collect::<Result<_>>()?;
        let residuals = self.residuals(evaluation, &latents)?;
        let time = self.times.get(self.unet, evaluation.timestep)?;
        let watch = &*self.watch;
        let cancelled = || watch.cancelled();
        let mut outputs = vec![];
        let at_once = self.plan.samples_at_once.max(1);
        for (first, rows) in evaluation.rows.chunks(at_once).enumerate() {
            let range = first * at_once..first * at_once + rows.len();
            let contexts: Vec<RowContext> = rows
                .iter()
                .map(|row| {
                    let guidance = self.guidance.get(row.image - self.plan.first_image);
                    let branch = guidance.and_then(|guidance| guidance.branches.get(row.branch));
                    let conditioning = branch.map(|branch| branch.at(evaluation.step)).transpose()?;
                    let context = conditioning.and_then(|conditioning| self.contexts.get(conditioning));
                    context.map(RowContext::own).ok_or_else(|| Error::Compute("a row without context".into()))
                })
                .collect::<Result<_>>()?;
            let residuals: Option<Vec<Tensor>> = residuals
                .as_ref()
                .map(|all| all.iter().map(|each| each.narrow(0, range.start, range.len())).collect())
                .transpose()?;
            let call = UNetCall {
                times: &vec![time; rows.len()],
                contexts: &contexts,
                residuals: residuals.as_deref(),
                transforms: self.transforms,
            };
            let x = Tensor::cat(&latents[range].iter().collect::<Vec<_>>(), 0)?;
            let output = self.unet.denoise(&x, &call, &Run::until(&cancelled))?;
            for index in 0..rows.len() {
                outputs.push(output.narrow(0, index, 1)?);
            }
        }
        Ok(outputs)
    }

    /// What somebody wants to add in the UNet, for all rows.
    fn residuals(&mut self, evaluation: &Evaluation, latents: &[Tensor]) -> Result<Option<Vec<Tensor>>> {
        if !self.wants.control_residuals {
            return Ok(None);
        }
        let latents = self.handles.insert(Tensor::cat(&latents.iter().collect::<Vec<_>>(), 0)?);
        let stage = ControlResiduals { evaluation, latents };
        let given: Vec<Handle> = self.stages.control_residuals(&stage, self.handles)?;
        let residuals: Vec<Tensor> =
            given.into_iter().map(|handle| self.handles.read(handle).cloned()).collect::<Result<_>>()?;
        self.handles.end_call();
        let rows = evaluation.rows.len();
        if let Some(wrong) = residuals.iter().find(|residual| residual.dim(0) != rows) {
            return Err(Error::Stage(format!("residuals {:?} for {rows} rows", wrong.dims())));
        }
        Ok((!residuals.is_empty()).then_some(residuals))
    }

    /// What differences to what is steered away from are multiplied by.
    fn scale(&self) -> f64 {
        self.plan.cfg_scale * self.plan.sampler.guidance_factor
    }

    /// One prediction per image.
    fn combine(&mut self, evaluation: &Evaluation, denoised: &[Tensor]) -> Result<Denoised> {
        let (mut guided, mut unconds) = (vec![], vec![]);
        for (image, guidance) in self.guidance.iter().enumerate() {
            let of_image = evaluation.rows.iter().zip(denoised);
            let mut outputs: Vec<(&Row, &Tensor)> =
                of_image.filter(|(row, _)| row.image - self.plan.first_image == image).collect();
            outputs.sort_by_key(|(row, _)| row.branch);
            let has_uncond = outputs.iter().any(|(row, _)| row.role == Role::Uncond);
            if self.plan.sampler.uses_uncond {
                let stand_in = if has_uncond { Role::Uncond } else { Role::Cond };
                let found = outputs.iter().find(|(row, _)| row.role == stand_in);
                unconds.extend(found.map(|(_, output)| (*output).clone()));
            }
            let outputs: Vec<Tensor> = outputs.into_iter().map(|(_, output)| output.clone()).collect();
            guided.push(if has_uncond {
                guidance.combine(&outputs, self.scale())?
            } else {
                guidance.combine_without_uncond(&outputs)?
            });
        }
        let guided = Tensor::cat(&guided.iter().collect::<Vec<_>>(), 0)?;
        let uncond = if unconds.is_empty() {
            guided.clone()
        } else {
            Tensor::cat(&unconds.iter().collect::<Vec<_>>(), 0)?
        };
        if !self.wants.denoise_combine {
            return Ok(Denoised { guided, uncond });
        }
        let rows = self.handles.insert(Tensor::cat(&denoised.iter().collect::<Vec<_>>(), 0)?);
        let guided = self.handles.insert(guided);
        self.stages.denoise_combine(&DenoiseCombine { evaluation, rows, guided }, self.handles)?;
        let guided = self.handles.take(guided)?;
        self.handles.end_call();
        Ok(Denoised { guided, uncond })
    }
}
