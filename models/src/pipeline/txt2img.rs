//! Text to image.

use super::components::Components;
use super::draw::{Origin, Output, draw};
use super::image_conditioning::ImageConditioning;
use super::request::Txt2Img;
use super::stages::Stages;
use super::start::Start;
use super::watch::Watch;
use crate::Result;
use crate::model::ModelFacts;

/// Draws `n_iter * batch_size` images. The result depends on the request and the model only.
pub fn txt2img(
    facts: &ModelFacts,
    components: &mut dyn Components,
    request: &Txt2Img,
    watch: &mut dyn Watch,
    stages: &mut dyn Stages,
) -> Result<Vec<Output>> {
    request.check(facts)?;
    let (_, sigmas) = request.levels(facts)?;
    let shown = ImageConditioning::of_nothing(facts, components, request.latents(), request.tiling, watch)?;
    let origin = Origin {
        start: &|_| Ok(Start::Noise),
        sigmas: &sigmas,
        visited: &sigmas.levels,
        calls: request.sampler.foreseen_calls(request.steps),
        shown: shown.as_ref(),
        image_cfg_scale: None,
    };
    draw(facts, components, request, &origin, watch, stages)
}
