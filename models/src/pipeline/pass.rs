//! One pass: a batch of images from noise, or from latents, to latents.

use std::sync::Arc;

use super::contexts::Contexts;
use super::denoiser::Denoiser;
use super::guidance::Guidance;
use super::handles::Handles;
use super::pass_plan::PassPlan;
use super::stages::{LatentFinal, NoiseInit, Stages, Wants};
use super::start::Start;
use super::time_embeddings::TimeEmbeddings;
use super::watch::{Progress, Watch};
use crate::Result;
use crate::model::ModelFacts;
use crate::networks::taesd::Taesd;
use crate::networks::unet::UNet;
use crate::nn::KeyValueTransform;
use crate::sampling::{ModelSigmas, sample};
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
}

/// Samples latents `(batch, channels, height, width)`, one per image.
pub(super) fn run(
    plan: &PassPlan,
    start: &Start,
    guidance: &[Guidance],
    context: &mut PassContext,
) -> Result<Tensor> {
    let (mut noise, mut generators) = plan.begin()?;
    if context.wants.noise_init {
        let handle = context.handles.insert(noise);
        context.stages.noise_init(&NoiseInit { noise: handle }, context.handles)?;
        noise = context.handles.take(handle)?;
        context.handles.end_call();
    }
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
        generators: &mut generators,
        start,
        progress: context.progress,
        steps: sigmas.levels.len().saturating_sub(1),
        step: 0,
        call: 0,
    };
    let mut latents = start.keep(sample(&plan.sampler, &state, &sigmas, &mut denoiser)?)?;
    if context.wants.latent_final {
        let handle = context.handles.insert(latents);
        context.stages.latent_final(&LatentFinal { latents: handle }, context.handles)?;
        latents = context.handles.take(handle)?;
        context.handles.end_call();
    }
    Ok(latents)
}
