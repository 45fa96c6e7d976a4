//! "Denoise x at sigma": the UNet under guidance, with the stages around it.

use std::ops::Range;
use std::sync::Arc;

use super::evaluation::{Evaluation, Region, Role, Row};
use super::evaluator::{Evaluator, Parts, not_finite};
use super::guidance::Guidance;
use super::networks::{PassNetworks, Surroundings};
use super::pass_context::{PassContext, nobodys_turn};
use super::pass_plan::PassPlan;
use super::sampling_options::{Skipped, is_cond_alone};
use super::stages::{DenoiseBefore, DenoiseCombine, DenoiseWrap, Stages};
use super::start::Start;
use super::watch::{Phase, Progress};
use crate::image::{RgbImage, latent_preview};
use crate::nn::Run;
use crate::sampling::{BrownianTree, Denoise, Denoised, NoiseGenerator};
use crate::tensor::Tensor;
use crate::{Error, Result};

pub(super) struct Denoiser<'a, 'pass> {
    pub(super) context: &'a mut PassContext<'pass>,
    pub(super) plan: &'a PassPlan<'a>,
    /// Which of the pass's.
    pub(super) images: Range<usize>,
    /// One per image.
    pub(super) generators: &'a mut [NoiseGenerator],
    /// One per image, if the sampler takes its noise from them.
    pub(super) trees: &'a mut [BrownianTree],
    /// How many parts the pass is sampled in, one after the other, and which this is.
    pub(super) part: (usize, usize),
    pub(super) start: &'a Start,
    /// Steps of this pass.
    pub(super) steps: usize,
    /// Steps done in this pass.
    pub(super) step: usize,
    /// Model calls made in this pass.
    pub(super) call: usize,
}

impl Denoise for Denoiser<'_, '_> {
    fn predict(&mut self, x: &Tensor, sigma: f64, timestep: Option<f32>) -> Result<Denoised> {
        if self.context.around.watch.cancelled() {
            return Err(Error::Cancelled);
        }
        if self.is_refiners_turn(sigma, timestep)? {
            self.context.refine()?;
        }
        let evaluation = self.evaluation(x, sigma, timestep)?;
        self.call += 1;
        let mut x = x.clone();
        if self.context.wants.denoise_before {
            let images = self.images_of(&x);
            let latents = self.context.around.handles.insert(x);
            self.context.around.stages.denoise_before(
                &DenoiseBefore { evaluation: &evaluation, images, seeds: &self.plan.seeds, latents },
                self.context.around.handles,
            )?;
            x = self.context.around.handles.take(latents)?;
            self.context.around.handles.end_call();
        }
        let denoised = self.samples(&evaluation, &x)?;
        let Denoised { guided, uncond } = self.combine(&evaluation, &x, &denoised)?;
        if guided.values().iter().any(|value| !value.is_finite()) {
            return Err(not_finite());
        }
        let by_timesteps = self.plan.sampler.goes_by_timesteps();
        let guided = if by_timesteps { guided } else { self.start.keep(guided, sigma)? };
        Ok(Denoised { guided, uncond })
    }

    fn noise(&mut self, from: f64, to: f64) -> Result<Tensor> {
        if self.trees.is_empty() {
            return self.plan.draw(self.generators);
        }
        let networks = self.context.networks.as_ref().ok_or_else(nobodys_turn)?;
        let (plan, trees) = (self.plan, &mut *self.trees);
        networks.unet.device().run(|| plan.increments(trees, from, to))
    }

    fn advance(&mut self, steps: usize, _x: &Tensor, denoised: &Tensor) -> Result<()> {
        self.step += steps;
        let (part, parts) = self.part;
        self.context.around.watch.progress(Progress {
            phase: Phase::Denoising,
            pass: self.plan.kind,
            step: self.context.progress.step + (part * self.steps + self.step) / parts,
            steps: self.context.progress.steps,
        });
        if steps > 0 && self.context.around.watch.wants_preview(self.step) {
            let images = self.previews_of(denoised)?;
            self.context.around.watch.preview(self.step, images);
        }
        Ok(())
    }
}

impl Denoiser<'_, '_> {
    /// By a decoder where it is wanted and does it; a preview never fails what it is of.
    fn previews_of(&mut self, denoised: &Tensor) -> Result<Vec<RgbImage>> {
        let made = self.context.previews.map(|previews| {
            let cancelled = || self.context.around.watch.cancelled();
            let run = Run::until(&cancelled);
            let one = |index| previews.picture(&denoised.narrow(0, index, 1)?, &run);
            (0..denoised.dim(0)).map(one).collect::<Result<Vec<_>>>()
        });
        match made {
            Some(Err(Error::Cancelled)) => return Err(Error::Cancelled),
            Some(Ok(images)) => return Ok(images),
            Some(Err(error)) => {
                self.context.previews = None;
                self.context.around.watch.notice(&format!("previews are of latents alone: {error}"));
            }
            None => (),
        }
        latent_preview(denoised, self.context.facts.family.preview)
    }

    fn networks(&self) -> Result<&PassNetworks> {
        self.context.networks.as_ref().ok_or_else(nobodys_turn)
    }

    /// Whether another checkpoint goes on from here: as A1111 tells it (`modules/sd_samplers_common.py: apply_refiner`), by the
    /// whole timestep nearest to the level, or for samplers that go by timesteps by the one below.
    fn is_refiners_turn(&self, sigma: f64, timestep: Option<f32>) -> Result<bool> {
        let networks = self.networks()?;
        let Some(share) = self.context.refiner_switch_at.filter(|_| !networks.is_refiner) else {
            return Ok(false);
        };
        let nearest = || {
            let off = |level: f32| (f64::from(level) - sigma).abs();
            let levels = networks.sigmas.sigmas().iter().enumerate();
            let nearest = levels.min_by(|(_, a), (_, b)| off(**a).total_cmp(&off(**b)));
            nearest.map_or(0, |(timestep, _)| timestep)
        };
        let below = timestep.filter(|_| self.plan.sampler.goes_by_timesteps());
        let timestep = below.map_or_else(nearest, |timestep| timestep as usize);
        Ok((999.0 - timestep as f64) / 1000.0 >= share)
    }

    /// What the next evaluation is of: each branch of each image, all images' first branches first, but what is steered
    /// away from where it is left out.
    fn evaluation(&mut self, x: &Tensor, sigma: f64, timestep: Option<f32>) -> Result<Evaluation> {
        let (_, _, height, width) = x.dims4()?;
        let networks = self.context.networks.as_ref().ok_or_else(nobodys_turn)?;
        let guidances = networks.guidance.get(self.images.clone()).unwrap_or_default();
        let branches = guidances.iter().map(|guidance| guidance.branches.len()).max().unwrap_or_default();
        let region = Region::whole(self.plan.width, self.plan.height);
        let timestep = timestep.unwrap_or_else(|| networks.sigmas.sigma_to_t(sigma));
        let level = if self.plan.sampler.goes_by_timesteps() { f64::from(timestep) } else { sigma };
        // A1111 leaves nothing out of three predictions below a level, and fails where it is to do so early.
        let is_edited = guidances.iter().any(|guidance| guidance.image_scale.is_some());
        let skip = self.plan.sampling.skip;
        let skipped = if is_edited { Skipped::default() } else { skip.at(self.call, self.plan.calls, level) };
        self.context.skipped.add(skipped);
        let needs_uncond = |guidance: &Guidance| {
            let uses = self.plan.sampler.uses_uncond;
            !skipped.any() && (uses || !is_cond_alone(guidance, self.scale()))
        };
        let needs_uncond: Vec<bool> = guidances.iter().map(needs_uncond).collect();
        let (needed, first_image) = (&needs_uncond, self.plan.first_image);
        let (tag, call): (&Arc<str>, usize) = (&Arc::from(""), self.call);
        let rows = (0..branches).flat_map(|branch| {
            let images = guidances.iter().zip(&self.plan.seeds).enumerate();
            images.filter_map(move |(image, (guidance, seed))| {
                let of = guidance.branches.get(branch)?;
                (of.role != Role::Uncond || needed[image]).then_some(())?;
                Some(of.at(call).map(|conditioning| Row {
                    image: first_image + image,
                    seed: *seed,
                    branch,
                    role: of.role,
                    weight: of.weight,
                    mask: of.mask.clone(),
                    region,
                    tag: Arc::clone(tag),
                    conditioning: Arc::clone(conditioning),
                }))
            })
        });
        Ok(Evaluation {
            rows: rows.collect::<Result<_>>()?,
            depth: self.plan.depth,
            pass: self.plan.kind,
            pass_index: self.plan.index,
            step: self.step,
            steps: self.steps,
            call: self.call,
            sigma,
            timestep,
            prediction: networks.facts.prediction,
            latents: (height, width),
        })
    }

    /// What evaluates the model, and the stages.
    fn evaluator(&mut self) -> Result<(Evaluator<'_>, &mut dyn Stages)> {
        let PassContext { around, networks, contexts, times, channels, wants, attention, .. } =
            &mut *self.context;
        let Surroundings { stages, handles, watch, .. } = around;
        let evaluator = Evaluator {
            networks: networks.as_ref().ok_or_else(nobodys_turn)?,
            contexts,
            times,
            channels: channels.as_ref(),
            handles,
            watch: &**watch,
            wants: *wants,
            attention,
            first_image: (self.plan.first_image, self.images.start),
            at_once: self.plan.samples_at_once,
            by_timesteps: self.plan.sampler.goes_by_timesteps(),
            latents: self.plan.latents(),
        };
        Ok((evaluator, &mut **stages))
    }

    /// A sample of each row, `(1, channels, height, width)`, of the state of its image.
    fn samples(&mut self, evaluation: &Evaluation, x: &Tensor) -> Result<Vec<Tensor>> {
        let shown = if self.plan.sampler.goes_by_timesteps() {
            self.start.shown(x, evaluation.sigma, evaluation.timestep)?
        } else {
            None
        };
        let first = self.plan.first_image;
        let of_rows = |x: &Tensor| -> Result<Vec<Tensor>> {
            evaluation.rows.iter().map(|row| x.narrow(0, row.image - first, 1)).collect()
        };
        let looked_at = of_rows(shown.as_ref().unwrap_or(x))?;
        let is_wrapped = self.context.wants.denoise_wrap;
        let (mut evaluator, stages) = self.evaluator()?;
        let wrapped = if is_wrapped {
            let x = Tensor::cat(&looked_at.iter().collect::<Vec<_>>(), 0)?;
            stages.denoise_wrap(&DenoiseWrap { evaluation, x: &x }, &mut evaluator)?
        } else {
            None
        };
        if let Some(samples) = wrapped {
            let samples = (0..evaluation.rows.len()).map(|row| samples.narrow(0, row, 1));
            let samples = samples.collect::<Result<Vec<_>>>()?;
            // What the model makes of what it is shown is taken off the state.
            let Some(shown) = shown else { return Ok(samples) };
            let more = of_rows(&x.minus(&shown)?)?;
            return samples.iter().zip(&more).map(|(sample, more)| sample.plus(more)).collect();
        }
        let Parts { of_x, of_output } = evaluator.parts(evaluation);
        let outputs = evaluator.outputs(stages, evaluation, &looked_at)?;
        let kept = match &shown {
            // As above.
            Some(shown) => x.minus(&shown.scaled(1.0 - of_x))?,
            None => x.scaled(of_x),
        };
        let kept = of_rows(&kept)?;
        kept.iter().zip(&outputs).map(|(kept, output)| kept.minus(&output.scaled(of_output))).collect()
    }

    /// Whose latents these are, one per image, counted over the request.
    fn images_of(&self, x: &Tensor) -> Range<usize> {
        self.plan.first_image..self.plan.first_image + x.dim(0)
    }

    /// What differences to what is steered away from are multiplied by.
    fn scale(&self) -> f64 {
        self.plan.cfg_scale * self.plan.sampler.guidance_factor
    }

    /// One prediction per image.
    fn combine(&mut self, evaluation: &Evaluation, x: &Tensor, denoised: &[Tensor]) -> Result<Denoised> {
        let (mut guided, mut unconds) = (vec![], vec![]);
        let guidances = self.networks()?.guidance.get(self.images.clone()).unwrap_or_default();
        for (image, guidance) in guidances.iter().enumerate() {
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
        if !self.context.wants.denoise_combine {
            return Ok(Denoised { guided, uncond });
        }
        let (images, seeds) = (self.images_of(x), &self.plan.seeds);
        let is_steered = evaluation.rows.iter().any(|row| row.role == Role::Uncond);
        let scale = if is_steered { self.scale() } else { 1.0 };
        let Surroundings { stages, handles, .. } = &mut self.context.around;
        let rows = handles.insert(Tensor::cat(&denoised.iter().collect::<Vec<_>>(), 0)?);
        let (latents, guided) = (handles.insert(x.clone()), handles.insert(guided));
        let stage = DenoiseCombine { evaluation, images, seeds, scale, latents, rows, guided };
        stages.denoise_combine(&stage, handles)?;
        let guided = self.context.around.handles.take(guided)?;
        self.context.around.handles.end_call();
        Ok(Denoised { guided, uncond })
    }
}
