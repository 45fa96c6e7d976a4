//! From a request to pictures, whatever the loop begins with: the passes, one after the other, and what they decode to.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::components::Components;
use super::contexts::Contexts;
use super::decode::{DecodePlan, decode};
use super::evaluation::PassKind;
use super::handles::Handles;
use super::hires::HiresLevels;
use super::image_conditioning::ImageConditioning;
use super::image_texts::ImageTexts;
use super::lent_vae::LentVae;
use super::networks::Surroundings;
use super::pass;
use super::pass_context::{PassContext, nobodys_turn};
use super::pass_plan::PassPlan;
use super::previews::Previews;
use super::request::Txt2Img;
use super::sampling_options::Skipped;
use super::second_pass::{FirstPass, SecondPass};
use super::stages::{Exchanged, ImagePost, PassBegin, Picture, Stages, Wants};
use super::start::Start;
use super::time_embeddings::TimeEmbeddings;
use super::watch::{Phase, Progress, Watch};
use crate::image::{self, RgbImage};
use crate::model::{ModelFacts, TextEncoder};
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
    /// What the pass was for that drew it.
    pub pass: PassKind,
}

/// What images begin with, and what they are shown if their checkpoint sees a picture.
pub(super) type Begun = (Start, Option<Arc<ImageConditioning>>);

/// Has images something to begin with.
pub(super) trait Begin {
    /// Of these, counted over the request, whose pictures may be exchanged: one for each, or none.
    fn begin(
        &self,
        images: Range<usize>,
        exchanged: Vec<Exchanged>,
        components: &mut dyn Components,
        watch: &mut dyn Watch,
    ) -> Result<Begun>;
}

/// What the passes of a request begin with.
pub(super) struct Origin<'a> {
    pub from: &'a dyn Begin,
    /// How far they go from there; `None` from noise alone.
    pub strength: Option<f64>,
    /// All levels of the request, over which a Brownian motion goes.
    pub sigmas: &'a Sigmas,
    /// Those that are visited, falling.
    pub visited: &'a [f32],
    /// Model calls as A1111 counts them, which shares of them are shares of.
    pub calls: usize,
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
    let second = request.second_pass()?;
    let of_second = second.as_ref().map(|second| second.levels(facts)).transpose()?;
    let second_steps = of_second.map_or(0, |levels| steps_of(&levels.beginning.sigmas.levels));
    let mut drawing = Drawing {
        facts,
        request,
        origin,
        second: second.as_ref(),
        second_steps,
        steps: steps_of(origin.visited) + second_steps,
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

fn steps_of(levels: &[f32]) -> usize {
    levels.len().saturating_sub(1)
}

/// A request while it is drawn, and what is kept from pass to pass.
struct Drawing<'a> {
    facts: &'a ModelFacts,
    request: &'a Txt2Img,
    origin: &'a Origin<'a>,
    second: Option<&'a SecondPass<'a>>,
    /// Of a batch in its second pass.
    second_steps: usize,
    /// Of a batch, in all of its passes.
    steps: usize,
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
    /// Whether that is another one than the request's.
    is_other: bool,
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

impl Pass<'_> {
    fn steps(&self) -> usize {
        steps_of(self.visited)
    }

    /// Where the request stands as it ends.
    fn end(&self) -> Progress {
        Progress { phase: Phase::Decoding, step: self.progress.step + self.steps(), ..self.progress }
    }
}

impl Drawing<'_> {
    /// Draws the images of one batch.
    fn batch(&mut self, index: usize) -> Result<Vec<Output>> {
        let Self { request, origin, facts, second, steps, .. } = *self;
        let kind = PassKind::Base;
        // What it begins with is encoded by its own VAE: the batch before may have ended with a refiner.
        self.components.begin_pass();
        let (wants, exchanged) =
            self.begin(kind, index, request, (steps_of(origin.visited), origin.strength))?;
        let images = self.images(index);
        let (start, shown) = origin.from.begin(images, exchanged, self.components, self.watch)?;
        let pass = Pass {
            kind,
            facts,
            is_other: false,
            request,
            texts: request.texts(),
            sigmas: origin.sigmas,
            visited: origin.visited,
            calls: origin.calls,
            shown: shown.as_deref(),
            image_cfg_scale: origin.image_cfg_scale,
            refiner_switch_at: request.refiner_switch_at.filter(|_| second.is_none()),
            progress: Progress {
                phase: Phase::Conditioning,
                pass: PassKind::Base,
                step: index * steps,
                steps: request.n_iter * steps,
            },
        };
        let sampled = self.sample(&pass, index, wants, &start)?;
        match second {
            Some(second) => self.batch_again(second, index, &sampled.latents, pass.end()),
            None => self.finished(&pass, index, wants, &sampled),
        }
    }

    /// Draws the images of a batch once more, larger, of what the first pass left.
    fn batch_again(
        &mut self,
        second: &SecondPass,
        index: usize,
        latents: &Tensor,
        progress: Progress,
    ) -> Result<Vec<Output>> {
        let pictures =
            if second.needs_pictures() { self.decoded(latents, self.facts, progress)? } else { vec![] };
        let mut outputs = if second.keeps_first() {
            let pictures = self.pictures(pictures.clone(), index);
            self.outputs(pictures, PassKind::Base, false)
        } else {
            vec![]
        };
        let told = (self.second_steps, Some(second.strength()));
        let other = self.components.begin_hires_pass()?;
        let (wants, _) = self.begin(PassKind::Hires, index, &second.drawing, told)?;
        let facts = other.as_ref().unwrap_or(self.facts);
        second.check_other(self.facts, facts)?;
        let HiresLevels { all, beginning, calls } = second.levels(facts)?;
        let first = FirstPass { latents, pictures, noises: self.noises(index) };
        let scale = facts.family.latent_scale;
        let latents = second.latents(&first, scale, self.components, self.watch, self.stages)?;
        let Txt2Img { tiling, .. } = second.drawing;
        let size = second.drawing.latents();
        let shown = ImageConditioning::of_nothing(facts, self.components, size, tiling, self.watch)?;
        let visited = beginning.sigmas.levels.clone();
        let pass = Pass {
            kind: PassKind::Hires,
            facts,
            is_other: other.is_some(),
            request: &second.drawing,
            texts: second.texts(),
            sigmas: &all,
            visited: &visited,
            calls,
            shown: shown.as_ref(),
            image_cfg_scale: None,
            refiner_switch_at: second.drawing.refiner_switch_at,
            progress: Progress { phase: Phase::Conditioning, pass: PassKind::Hires, ..progress },
        };
        let start = Start::Latents { latents, mask: None, soft: None, beginning };
        let sampled = self.sample(&pass, index, wants, &start)?;
        outputs.extend(self.finished(&pass, index, wants, &sampled)?);
        Ok(outputs)
    }

    /// The images of a pass, counted over the request.
    fn images(&self, index: usize) -> Range<usize> {
        let first = index * self.request.batch_size;
        first..first + self.request.batch_size
    }

    fn noises(&self, index: usize) -> Vec<ImageNoise> {
        self.images(index).map(|image| self.request.noise(image)).collect()
    }

    /// Tells that a pass begins, in which this is drawn in so many steps, so far from what it begins with. What is exchanged of
    /// that.
    fn begin(
        &mut self,
        kind: PassKind,
        index: usize,
        request: &Txt2Img,
        (steps, strength): (usize, Option<f64>),
    ) -> Result<(Wants, Vec<Exchanged>)> {
        let wants = self.stages.wants();
        let size = |drawn: &Txt2Img| (drawn.width, drawn.height);
        let mut exchanged = vec![];
        if wants.pass_begin {
            // Whose networks it will be, if not those of the pass before.
            if let Some(model) = self.components.shape() {
                self.stages.model(&model);
            }
            self.components.rest();
            exchanged = self.stages.pass_begin(&PassBegin {
                pass: kind,
                index,
                first_image: self.images(index).start,
                seeds: self.noises(index).iter().map(|noise| noise.seed).collect(),
                size: size(request),
                steps,
                base: size(self.request),
                hires: self.second.map(|second| size(&second.drawing)),
                strength,
                depth: request.depth,
            })?;
        }
        if self.watch.cancelled() { Err(Error::Cancelled) } else { Ok((wants, exchanged)) }
    }

    /// From what a pass begins with to latents, with the networks that are lent now.
    fn sample(&mut self, pass: &Pass, index: usize, wants: Wants, start: &Start) -> Result<Sampled> {
        let (facts, request) = (pass.facts, pass.request);
        let (images, noises) = (self.images(index), self.noises(index));
        let model_sigmas = facts.sigmas(request.sampling.zero_terminal_snr);
        let levels = pass.visited.iter().take(pass.steps());
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
            depth: request.depth,
        };
        let guide = |encoder: &TextEncoder,
                     images: Range<usize>,
                     is_refiner: bool,
                     run: &Run,
                     stages: Option<&mut dyn Stages>| {
            pass.texts.guidance(encoder, images, is_refiner || pass.is_other, run, stages)
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
        let scale = facts.family.latent_scale;
        let previews =
            Previews::of(request.previews, request.tiling, scale, around.components, around.watch)?;
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
            attention: vec![],
            contexts: &mut self.contexts,
            times: &mut self.times,
            previews: previews.as_ref(),
            refiner_switch_at: pass.refiner_switch_at,
            latents: plan.latents(),
            progress: pass.progress,
            skipped: &mut self.skipped,
        };
        context.prepare()?;
        context.around.watch.progress(pass.progress);
        let latents = pass::run(&plan, start, &mut context)?;
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

    /// The pictures of a batch's last pass, as those who take part in it leave them.
    fn finished(
        &mut self,
        pass: &Pass,
        index: usize,
        wants: Wants,
        sampled: &Sampled,
    ) -> Result<Vec<Output>> {
        let drawn = self.decoded(&sampled.latents, pass.facts, pass.end())?;
        let drawn = self.restored(drawn)?;
        let mut pictures = self.pictures(drawn, index);
        if wants.image_post {
            let Txt2Img { decoder, tiling: wrap, rng, .. } = *self.request;
            let coding = LentVae {
                components: RefCell::new(&mut *self.components),
                watch: RefCell::new(&mut *self.watch),
                plan: DecodePlan { scale: pass.facts.family.latent_scale, decoder, wrap },
                channels: pass.facts.family.latent_channels,
                most: pass.request.width * pass.request.height,
                rng,
            };
            self.stages.image_post(&mut ImagePost { pictures: &mut pictures, coding: &coding })?;
        }
        let mut outputs = self.outputs(pictures, pass.kind, sampled.refined);
        let first = self.images(index).start;
        for output in &mut outputs {
            let place = output.index.checked_sub(first);
            output.seen = place.and_then(|place| sampled.seen.get(place)).cloned();
        }
        Ok(outputs)
    }

    /// Pictures with their faces restored, if that is asked for.
    fn restored(&mut self, drawn: Vec<RgbImage>) -> Result<Vec<RgbImage>> {
        let Some(restoration) = &self.request.restoration else { return Ok(drawn) };
        // Whoever restores them needs the room that was drawn in.
        self.components.rest();
        let mut restored = vec![];
        for image in drawn {
            if self.watch.cancelled() {
                return Err(Error::Cancelled);
            }
            restored.push(self.stages.restore(restoration, &image.into())?.into_rgb());
            self.watch.restored();
        }
        Ok(restored)
    }

    fn pictures(&self, drawn: Vec<RgbImage>, index: usize) -> Vec<Picture> {
        let seeds = self.noises(index).into_iter().map(|noise| noise.seed);
        let pictures = drawn.into_iter().zip(seeds).zip(self.images(index));
        pictures.map(|((image, seed), index)| Picture { image, seed, index }).collect()
    }

    fn outputs(&self, pictures: Vec<Picture>, pass: PassKind, refined: bool) -> Vec<Output> {
        let output = |Picture { image, seed, index }| {
            let subseed = self.request.noise(index).variation.map(|variation| variation.subseed);
            Output { image, seed, subseed, skipped: self.skipped, refined, seen: None, index, pass }
        };
        pictures.into_iter().map(output).collect()
    }
}
