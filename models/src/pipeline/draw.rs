//! From a request to pictures, whatever the loop begins with: the passes, one after the other, and what they decode to.

use std::ops::Range;
use std::sync::Arc;

use super::components::Components;
use super::contexts::Contexts;
use super::decode::{DecodePlan, decode};
use super::evaluation::PassKind;
use super::handles::Handles;
use super::image_conditioning::ImageConditioning;
use super::image_texts::ImageTexts;
use super::networks::Surroundings;
use super::pass;
use super::pass_context::{PassContext, nobodys_turn};
use super::pass_plan::PassPlan;
use super::request::Txt2Img;
use super::sampling_options::Skipped;
use super::stages::{BatchPost, ImagePost, PassBegin, Picture, Stages, Wants};
use super::start::Start;
use super::time_embeddings::TimeEmbeddings;
use super::watch::{Phase, Progress, Watch};
use crate::image::{self, RgbImage};
use crate::model::{ModelFacts, TextEncoder};
use crate::networks::taesd::Taesd;
use crate::nn::Run;
use crate::sampling::{ImageNoise, Sigmas};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// One finished picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The pixels.
    pub image: RgbImage,
    /// The seed that draws it alone.
    pub seed: u64,
    /// The variation's, with that.
    pub subseed: Option<u64>,
    /// Why what is steered away from was left out on the way.
    pub skipped: Skipped,
    /// Whether the refiner ended it.
    pub refined: bool,
    /// With soft inpainting, how much of it is seen: for [`crate::image::inpaint::soft_mask`].
    pub seen: Option<image::Picture>,
    /// Its place in the request.
    pub index: usize,
}

/// What the passes of a request begin with.
pub(super) struct Origin<'a> {
    /// What these images, counted over the request, begin with.
    pub start: &'a dyn Fn(Range<usize>) -> Result<Start>,
    /// All levels of the request, over which a Brownian motion goes.
    pub sigmas: &'a Sigmas,
    /// Those that are visited, falling.
    pub visited: &'a [f32],
    /// Model calls as A1111 counts them, which shares of them are shares of.
    pub calls: usize,
    /// What images are shown, if the checkpoint sees a picture.
    pub shown: Option<&'a ImageConditioning>,
    /// How much the picture counts that is edited, if that is said.
    pub image_cfg_scale: Option<f64>,
}

/// Draws `n_iter * batch_size` images of a request that was checked.
pub(super) fn draw(
    facts: &ModelFacts,
    components: &mut dyn Components,
    request: &Txt2Img,
    origin: &Origin,
    watch: &mut dyn Watch,
    stages: &mut dyn Stages,
) -> Result<Vec<Output>> {
    let mut drawing = Drawing {
        facts,
        request,
        origin,
        components,
        watch,
        stages,
        handles: Handles::default(),
        contexts: Contexts::default(),
        times: TimeEmbeddings::default(),
        skipped: Skipped::default(),
    };
    let mut outputs = vec![];
    for index in 0..request.n_iter {
        outputs.extend(drawing.batch(index)?);
    }
    Ok(outputs)
}

/// A request while it is drawn, and what is kept from pass to pass.
struct Drawing<'a> {
    facts: &'a ModelFacts,
    request: &'a Txt2Img,
    origin: &'a Origin<'a>,
    components: &'a mut dyn Components,
    watch: &'a mut dyn Watch,
    stages: &'a mut dyn Stages,
    handles: Handles,
    contexts: Contexts,
    times: TimeEmbeddings,
    /// Why what is steered away from was left out so far.
    skipped: Skipped,
}

/// A pass that is about to be sampled.
struct Pass<'a> {
    kind: PassKind,
    /// What is known of the checkpoint that it begins with.
    facts: &'a ModelFacts,
    /// What is drawn in it.
    request: &'a Txt2Img,
    texts: ImageTexts<'a>,
    /// All levels, over which a Brownian motion goes.
    sigmas: &'a Sigmas,
    /// Those that are visited, falling.
    visited: &'a [f32],
    calls: usize,
    shown: Option<&'a ImageConditioning>,
    image_cfg_scale: Option<f64>,
    refiner_switch_at: Option<f64>,
    /// Where the request stands as it begins.
    progress: Progress,
}

/// What a pass ended with.
struct Sampled {
    latents: Tensor,
    /// Whether the refiner did.
    refined: bool,
    /// With soft inpainting, how much of each image is seen.
    seen: Vec<image::Picture>,
}

impl Drawing<'_> {
    /// Draws the images of one pass.
    fn batch(&mut self, index: usize) -> Result<Vec<Output>> {
        let Self { request, origin, .. } = *self;
        let images = self.images(index);
        let steps = origin.visited.len().saturating_sub(1);
        let pass = Pass {
            kind: PassKind::Base,
            facts: self.facts,
            request,
            texts: request.texts(),
            sigmas: origin.sigmas,
            visited: origin.visited,
            calls: origin.calls,
            shown: origin.shown,
            image_cfg_scale: origin.image_cfg_scale,
            refiner_switch_at: request.refiner_switch_at,
            progress: Progress {
                phase: Phase::Conditioning,
                step: index * steps,
                steps: request.n_iter * steps,
            },
        };
        let wants = self.begin(pass.kind, index, request)?;
        self.components.begin_pass();
        let sampled = self.sample(&pass, index, wants, || (origin.start)(images))?;
        let told = Progress { phase: Phase::Decoding, step: (index + 1) * steps, ..pass.progress };
        let drawn = self.decoded(&sampled.latents, pass.facts, told)?;
        self.finished(drawn, index, wants, &sampled)
    }

    /// The images of a pass, counted over the request.
    fn images(&self, index: usize) -> Range<usize> {
        let first = index * self.request.batch_size;
        first..first + self.request.batch_size
    }

    fn noises(&self, index: usize) -> Vec<ImageNoise> {
        self.images(index).map(|image| self.request.noise(image)).collect()
    }

    /// Tells that a pass begins, in which this is drawn.
    fn begin(&mut self, kind: PassKind, index: usize, request: &Txt2Img) -> Result<Wants> {
        let wants = self.stages.wants();
        if wants.pass_begin {
            self.stages.pass_begin(&PassBegin {
                pass: kind,
                index,
                first_image: self.images(index).start,
                seeds: self.noises(index).iter().map(|noise| noise.seed).collect(),
                size: (request.width, request.height),
            })?;
        }
        if self.watch.cancelled() { Err(Error::Cancelled) } else { Ok(wants) }
    }

    /// From what a pass begins with to latents, with the networks that are lent now.
    fn sample(
        &mut self,
        pass: &Pass,
        index: usize,
        wants: Wants,
        start: impl FnOnce() -> Result<Start>,
    ) -> Result<Sampled> {
        let (facts, request) = (pass.facts, pass.request);
        let (images, noises) = (self.images(index), self.noises(index));
        let model_sigmas = facts.sigmas(request.sampling.zero_terminal_snr);
        let steps = pass.visited.len().saturating_sub(1);
        let levels = pass.visited.iter().take(steps);
        self.times.follow(levels.map(|level| model_sigmas.sigma_to_t(f64::from(*level))).collect());
        let plan = PassPlan {
            kind: pass.kind,
            index,
            first_image: images.start,
            seeds: noises.iter().map(|noise| noise.seed).collect(),
            noises,
            width: request.width,
            height: request.height,
            channels: facts.family.latent_channels,
            sampler: request.sampler,
            sigmas: pass.sigmas,
            sampling: &request.sampling,
            calls: pass.calls,
            cfg_scale: request.cfg_scale,
            samples_at_once: request.samples_at_once.unwrap_or(usize::MAX),
        };
        let guide = |encoder: &TextEncoder, images: Range<usize>, is_refiner: bool, run: &Run| {
            pass.texts.guidance(encoder, images, is_refiner, run)
        };
        let mut around = Surroundings {
            guide: &guide,
            tiling: request.tiling,
            zero_terminal_snr: request.sampling.zero_terminal_snr,
            image_cfg_scale: pass.image_cfg_scale,
            components: &mut *self.components,
            watch: &mut *self.watch,
            stages: &mut *self.stages,
            wants_conditioning: wants.conditioning,
            handles: &mut self.handles,
        };
        let guidance = around.guidance(images.clone(), false)?;
        let wants_previews = request.taesd_previews;
        let previews = if wants_previews { preview_decoder(around.components, around.watch)? } else { None };
        let networks = around.networks(*facts, false, guidance)?;
        let of_images =
            |shown: &ImageConditioning| shown.channels(images.clone(), |image| request.noise(image));
        let channels = pass.shown.map(of_images).transpose()?;
        let mut context = PassContext {
            around,
            kind: pass.kind,
            facts,
            sigmas: &model_sigmas,
            images,
            networks: Some(networks),
            channels,
            wants,
            contexts: &mut self.contexts,
            times: &mut self.times,
            previews: previews.as_deref(),
            refiner_switch_at: pass.refiner_switch_at,
            progress: pass.progress,
            skipped: &mut self.skipped,
        };
        context.prepare()?;
        context.around.watch.progress(pass.progress);
        let start = start()?;
        let latents = pass::run(&plan, &start, &mut context)?;
        let networks = context.networks.as_ref().ok_or_else(nobodys_turn)?;
        let seen = start.seen(&latents, networks.unet.device())?;
        Ok(Sampled { latents, refined: networks.is_refiner, seen })
    }

    /// Pictures of latents; the watch is told of each.
    fn decoded(&mut self, latents: &Tensor, facts: &ModelFacts, told: Progress) -> Result<Vec<RgbImage>> {
        let Txt2Img { decoder, tiling: wrap, .. } = *self.request;
        let plan = DecodePlan { scale: facts.family.latent_scale, decoder, wrap };
        let mut pictures = vec![];
        decode(self.components, latents, &plan, self.watch, |watch, image| {
            pictures.push(image);
            watch.progress(told);
        })?;
        Ok(pictures)
    }

    /// The pictures of a pass as those who take part in it leave them.
    fn finished(
        &mut self,
        drawn: Vec<RgbImage>,
        index: usize,
        wants: Wants,
        sampled: &Sampled,
    ) -> Result<Vec<Output>> {
        let seeds = self.noises(index).into_iter().map(|noise| noise.seed);
        let pictures = drawn.into_iter().zip(seeds).zip(self.images(index));
        let mut pictures: Vec<Picture> =
            pictures.map(|((image, seed), index)| Picture { image, seed, index }).collect();
        if wants.image_post {
            self.stages.image_post(&mut ImagePost { pictures: &mut pictures })?;
        }
        if wants.batch_post {
            self.stages.batch_post(&mut BatchPost { pictures: &mut pictures })?;
        }
        let first = self.images(index).start;
        let output = |Picture { image, seed, index }| {
            let subseed = self.request.noise(index).variation.map(|variation| variation.subseed);
            let seen = index.checked_sub(first).and_then(|place| sampled.seen.get(place)).cloned();
            Output { image, seed, subseed, skipped: self.skipped, refined: sampled.refined, seen, index }
        };
        Ok(pictures.into_iter().map(output).collect())
    }
}

/// What makes previews. Where it fails they are made without: they are no reason to draw nothing.
fn preview_decoder(components: &mut dyn Components, watch: &mut dyn Watch) -> Result<Option<Arc<Taesd>>> {
    match components.taesd() {
        Err(Error::Cancelled) => Err(Error::Cancelled),
        Err(error) => {
            watch.notice(&format!("previews are of latents alone: {error}"));
            Ok(None)
        }
        found => found,
    }
}
