//! From a request to pictures, whatever the loop begins with: the passes, one after the other, and what they decode to.

use std::ops::Range;
use std::sync::Arc;

use super::components::Components;
use super::contexts::Contexts;
use super::decode::{DecodePlan, decode};
use super::evaluation::PassKind;
use super::handles::Handles;
use super::image_conditioning::ImageConditioning;
use super::networks::Surroundings;
use super::pass;
use super::pass_context::{PassContext, nobodys_turn};
use super::pass_plan::PassPlan;
use super::request::Txt2Img;
use super::sampling_options::Skipped;
use super::stages::{BatchPost, ImagePost, PassBegin, Picture, Stages};
use super::start::Start;
use super::time_embeddings::TimeEmbeddings;
use super::watch::{Phase, Progress, Watch};
use crate::image::{self, RgbImage};
use crate::model::{ModelFacts, TextEncoder};
use crate::networks::taesd::Taesd;
use crate::nn::Run;
use crate::sampling::{ImageNoise, Sigmas};
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
    let model_sigmas = facts.sigmas(request.sampling.zero_terminal_snr);
    let steps = origin.visited.len().saturating_sub(1);
    let mut handles = Handles::default();
    let mut contexts = Contexts::default();
    let mut times = TimeEmbeddings::new(
        origin.visited.iter().take(steps).map(|level| model_sigmas.sigma_to_t(f64::from(*level))).collect(),
    );
    let mut skipped = Skipped::default();
    let mut outputs = vec![];
    for index in 0..request.n_iter {
        let wants = stages.wants();
        let first_image = index * request.batch_size;
        let images = first_image..first_image + request.batch_size;
        let noises: Vec<ImageNoise> = images.clone().map(|image| request.noise(image)).collect();
        let plan = PassPlan {
            index,
            first_image,
            seeds: noises.iter().map(|noise| noise.seed).collect(),
            noises,
            width: request.width,
            height: request.height,
            channels: facts.family.latent_channels,
            sampler: request.sampler,
            sigmas: origin.sigmas,
            sampling: &request.sampling,
            calls: origin.calls,
            cfg_scale: request.cfg_scale,
            samples_at_once: request.samples_at_once.unwrap_or(usize::MAX),
        };
        if wants.pass_begin {
            stages.pass_begin(&PassBegin {
                pass: PassKind::Base,
                index,
                first_image: plan.first_image,
                seeds: plan.seeds.clone(),
                size: (plan.width, plan.height),
            })?;
        }
        if watch.cancelled() {
            return Err(Error::Cancelled);
        }
        components.begin_pass();
        let guide = |encoder: &TextEncoder, images: Range<usize>, is_refiner: bool, run: &Run| {
            request.texts().guidance(encoder, images, is_refiner, run)
        };
        let mut around = Surroundings {
            guide: &guide,
            tiling: request.tiling,
            zero_terminal_snr: request.sampling.zero_terminal_snr,
            image_cfg_scale: origin.image_cfg_scale,
            components: &mut *components,
            watch: &mut *watch,
            stages: &mut *stages,
            wants_conditioning: wants.conditioning,
            handles: &mut handles,
        };
        let guidance = around.guidance(images.clone(), false)?;
        let wants_previews = request.taesd_previews;
        let previews = if wants_previews { preview_decoder(around.components, around.watch)? } else { None };
        let networks = around.networks(*facts, false, guidance)?;
        let progress =
            Progress { phase: Phase::Conditioning, step: index * steps, steps: request.n_iter * steps };
        let of_images =
            |shown: &ImageConditioning| shown.channels(images.clone(), |image| request.noise(image));
        let mut context = PassContext {
            around,
            facts,
            sigmas: &model_sigmas,
            images: images.clone(),
            networks: Some(networks),
            channels: origin.shown.map(of_images).transpose()?,
            wants,
            contexts: &mut contexts,
            times: &mut times,
            previews: previews.as_deref(),
            refiner_switch_at: request.refiner_switch_at,
            progress,
            skipped: &mut skipped,
        };
        context.prepare()?;
        context.around.watch.progress(progress);
        let start = (origin.start)(images)?;
        let latents = pass::run(&plan, &start, &mut context)?;
        let networks = context.networks.as_ref().ok_or_else(nobodys_turn)?;
        let seen = start.seen(&latents, networks.unet.device())?;
        let refined = networks.is_refiner;
        drop(context);
        let mut pictures = vec![];
        {
            let told = Progress { phase: Phase::Decoding, step: (index + 1) * steps, ..progress };
            decode(
                components,
                &latents,
                &DecodePlan {
                    scale: facts.family.latent_scale,
                    decoder: request.decoder,
                    wrap: request.tiling,
                },
                watch,
                |watch, image| {
                    let place = pictures.len();
                    let seed = plan.seeds.get(place).copied().unwrap_or_default();
                    pictures.push(Picture { image, seed, index: plan.first_image + place });
                    watch.progress(told);
                },
            )?;
        }
        if wants.image_post {
            stages.image_post(&mut ImagePost { pictures: &mut pictures })?;
        }
        if wants.batch_post {
            stages.batch_post(&mut BatchPost { pictures: &mut pictures })?;
        }
        outputs.extend(pictures.into_iter().map(|Picture { image, seed, index }| {
            let subseed = request.noise(index).variation.map(|variation| variation.subseed);
            let place = index.checked_sub(plan.first_image);
            let seen = place.and_then(|place| seen.get(place)).cloned();
            Output { image, seed, subseed, skipped, refined, seen, index }
        }));
    }
    Ok(outputs)
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
