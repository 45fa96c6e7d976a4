//! One pass: a batch of images from noise, or from latents, to latents.

use std::ops::Range;

use super::denoiser::Denoiser;
use super::networks::Surroundings;
use super::pass_context::PassContext;
use super::pass_plan::PassPlan;
use super::stages::{LatentFinal, NoiseInit};
use super::start::Start;
use crate::Result;
use crate::sampling::{BrownianTree, NoiseGenerator, sample};
use crate::tensor::Tensor;

/// Samples latents `(batch, channels, height, width)`, one per image.
pub(super) fn run(plan: &PassPlan, start: &Start, context: &mut PassContext) -> Result<Tensor> {
    let (mut noise, generators) = plan.begin()?;
    if context.wants.noise_init {
        let Surroundings { stages, handles, .. } = &mut context.around;
        let handle = handles.insert(noise);
        stages.noise_init(&NoiseInit { noise: handle }, handles)?;
        noise = handles.take(handle)?;
        handles.end_call();
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
                images: image..image + 1,
                generators: std::slice::from_mut(generator),
                trees: trees.get_mut(image..=image).unwrap_or_default(),
                which: (image, images),
            };
            all.push(part.sample(noise.narrow(0, image, 1)?, context)?);
        }
        Tensor::cat(&all.iter().collect::<Vec<_>>(), 0)?
    } else {
        let (generators, trees) = (&mut *generators, &mut *trees);
        Part { plan, start, images: 0..images, generators, trees, which: (0, 1) }.sample(noise, context)?
    };
    if context.wants.latent_final {
        let Surroundings { stages, handles, .. } = &mut context.around;
        let handle = handles.insert(latents);
        stages.latent_final(&LatentFinal { latents: handle }, handles)?;
        latents = handles.take(handle)?;
        handles.end_call();
    }
    Ok(latents)
}

/// Images that are sampled together: all of a pass, or one after the other.
struct Part<'a> {
    plan: &'a PassPlan<'a>,
    start: &'a Start,
    /// Of those of the pass.
    images: Range<usize>,
    generators: &'a mut [NoiseGenerator],
    trees: &'a mut [BrownianTree],
    /// Which of how many.
    which: (usize, usize),
}

impl Part<'_> {
    /// From unit noise to latents, one per image.
    fn sample(self, noise: Tensor, context: &mut PassContext) -> Result<Tensor> {
        let Self { plan, start, images, generators, trees, which } = self;
        if context.networks.as_ref().is_none_or(|networks| networks.is_refiner) {
            context.begin_again()?;
        }
        let sigmas = start.levels(plan.sigmas);
        let state = start.state(noise)?;
        let model_sigmas = context.sigmas;
        let mut denoiser = Denoiser {
            context,
            plan,
            images,
            generators,
            trees,
            part: which,
            start,
            steps: sigmas.levels.len().saturating_sub(1),
            step: 0,
            call: 0,
        };
        let options = &plan.sampling.sampler;
        start.keep_at_last(sample(&plan.sampler, &state, &sigmas, model_sigmas, options, &mut denoiser)?)
    }
}
