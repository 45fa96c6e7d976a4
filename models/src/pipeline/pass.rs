//! One pass: a batch of images from noise, or from latents, to latents.

use std::sync::Arc;

use super::contexts::Contexts;
use super::denoiser::Denoiser;
use super::guidance::Guidance;
use super::handles::Handles;
use super::pass_plan::PassPlan;
use super::sampling_options::Skipped;
use super::stages::{LatentFinal, NoiseInit, Stages, Wants};
use super::start::Start;
use super::time_embeddings::TimeEmbeddings;
use super::watch::{Progress, Watch};
use crate::Result;
use crate::model::ModelFacts;
use crate::networks::taesd::Taesd;
use crate::networks::unet::UNet;
use crate::nn::KeyValueTransform;
use crate::sampling::{BrownianTree, ModelSigmas, NoiseGenerator, sample};
use crate::tensor::Tensor;

/// What passes of a request share.
pub(super) struct PassContext<'a> {
    pub facts: &'a ModelFacts,
    pub sigmas: &'a ModelSigmas,
    pub unet: &'a UNet,
    pub watch: &'a mut dyn Watch,
    pub stages: &'a mut dyn Stages,
    pub wants: Wants,
    pub handles: &'a mut Handles,
    pub contexts: &'a Contexts,
    pub transforms: &'a [Arc<dyn KeyValueTransform>],
    pub times: &'a mut TimeEmbeddings,
    /// What previews are made by; of latents alone if `None`.
    pub previews: Option<&'a Taesd>,
    /// Where the request stands as the pass begins.
    pub progress: Progress,
    /// Why what is steered away from was left out.
    pub skipped: &'a mut Skipped,
}

/// Samples latents `(batch, channels, height, width)`, one per image.
pub(super) fn run(
    plan: &PassPlan,
    start: &Start,
    guidance: &[Guidance],
    context: &mut PassContext,
) -> Result<Tensor> {
    let (mut noise, generators) = plan.begin()?;
    if context.wants.noise_init {
        let handle = context.handles.insert(noise);
        context.stages.noise_init(&NoiseInit { noise: handle }, context.handles)?;
        noise = context.handles.take(handle)?;
        context.handles.end_call();
    }
    let mut generators = plan.generators_on_the_way(generators);
    let mut trees = plan.trees();
    let images = plan.seeds.len();
    let mut latents = if plan.sampler.goes_alone && images > 1 {
        let mut all = vec![];
        for (image, generator) in generators.iter_mut().enumerate() {
            let part = Part {
                plan: &plan.of_image(image),
                start: &start.of_image(image)?,
                guidance: guidance.get(image..=image).unwrap_or_default(),
                generators: std::slice::from_mut(generator),
                trees: trees.get_mut(image..=image).unwrap_or_default(),
                which: (image, images),
            };
            all.push(part.sample(noise.narrow(0, image, 1)?, context)?);
        }
        Tensor::cat(&all.iter().collect::<Vec<_>>(), 0)?
    } else {
        let (generators, trees) = (&mut *generators, &mut *trees);
        Part { plan, start, guidance, generators, trees, which: (0, 1) }.sample(noise, context)?
    };
    if context.wants.latent_final {
        let handle = context.handles.insert(latents);
        context.stages.latent_final(&LatentFinal { latents: handle }, context.handles)?;
        latents = context.handles.take(handle)?;
        context.handles.end_call();
    }
    Ok(latents)
}

/// Images that are sampled together: all of a pass, or one after the other.
struct Part<'a> {
    plan: &'a PassPlan<'a>,
    start: &'a Start,
    guidance: &'a [Guidance],
    generators: &'a mut [NoiseGenerator],
    trees: &'a mut [BrownianTree],
    /// Which of how many.
    which: (usize, usize),
}

impl Part<'_> {
    /// From unit noise to latents, one per image.
    fn sample(self, noise: Tensor, context: &mut PassContext) -> Result<Tensor> {
        let Self { plan, start, guidance, generators, trees, which } = self;
        let sigmas = start.levels(plan.sigmas.clone())?;
        let state = start.state(noise, &sigmas)?;
        let mut denoiser = Denoiser {
            facts: context.facts,
            sigmas: context.sigmas,
            unet: context.unet,
            watch: context.watch,
            stages: context.stages,
            wants: context.wants,
            handles: context.handles,
            plan,
            guidance,
            contexts: context.contexts,
            transforms: context.transforms,
            times: context.times,
            previews: context.previews,
            generators,
            trees,
            skipped: context.skipped,
            part: which,
            start,
            progress: context.progress,
            steps: sigmas.levels.len().saturating_sub(1),
            step: 0,
            call: 0,
        };
        let options = &plan.sampling.sampler;
        start.keep(sample(&plan.sampler, &state, &sigmas, context.sigmas, options, &mut denoiser)?)
    }
}
