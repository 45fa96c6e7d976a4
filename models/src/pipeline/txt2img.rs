//! Text to image.

use std::ops::Range;
use std::sync::Arc;

use super::components::Components;
use super::draw::{Begin, Begun, Origin, Output, draw};
use super::image_conditioning::ImageConditioning;
use super::request::Txt2Img;
use super::stages::{Exchanged, Stages};
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
        from: &Nothing(shown.map(Arc::new)),
        strength: None,
        sigmas: &sigmas,
        visited: &sigmas.levels,
        calls: request.sampler.foreseen_calls(request.steps),
        image_cfg_scale: None,
    };
    draw(facts, components, request, &origin, watch, stages)
}

/// There is no picture, and what is shown of that.
struct Nothing(Option<Arc<ImageConditioning>>);

impl Begin for Nothing {
    fn begin(
        &self,
        _images: Range<usize>,
        _exchanged: Vec<Exchanged>,
        _components: &mut dyn Components,
        _watch: &mut dyn Watch,
    ) -> Result<Begun> {
        Ok((Start::Noise, self.0.clone()))
    }
}
